package core

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// remove plans and executes, as every caller does. What it waits for takes no time.
func remove(t *testing.T, w *world, r Request) (plan *Plan, results []Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		e := w.engine()
		var err error
		if plan, err = e.Plan(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		results = e.Execute(t.Context(), plan)
	})
	return plan, results
}

func images(ids ...ImageID) []ImageTarget {
	var all []ImageTarget
	for _, id := range ids {
		all = append(all, ImageTarget{ID: id, Reference: string(id)})
	}
	return all
}

func TestRemovalOrder(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.start(w.container("run", img, "podman"), 10)
	w.container("idle", img, "podman")
	w.container("work", img, "records")
	w.container("stray", img, "")
	_, results := remove(t, w, Request{Images: images(img), Force: ForceStop})
	if !results[0].OK() {
		t.Fatalf("not done: %+v %+v", results[0].Blockers, results[0].Failed)
	}
	want := "stop run by podman|remove run by podman|remove idle by podman|delete work|delete stray|delete image img"
	if got := strings.Replace(strings.Join(w.log, "|"), "delete stray|delete work", "delete work|delete stray", 1); got != want { // side by side
		t.Errorf("steps\n got %s\nwant %s", got, want)
	}
	if results[0].Bytes != 4*7+100 {
		t.Errorf("freed %d bytes", results[0].Bytes)
	}
	var verbs []string
	for _, a := range results[0].Done {
		verbs = append(verbs, string(a.Verb))
	}
	slices.Sort(verbs[1:5])
	if got := strings.Join(verbs, " "); got != "stop delete_container remove remove remove untag delete_image" {
		t.Errorf("reported %s", got)
	}
}

func TestBlockedRemovalChangesNothing(t *testing.T) {
	for _, force := range []Force{ForceNone, ForceIdle, ForceStop} {
		w := newWorld()
		img := w.image("img", "a:1")
		w.start(w.container("run", img, "podman"), 10)
		stray := w.container("stray", img, "")
		w.procs[stray] = []Process{{PID: 11, StartTime: 1}}
		_, results := remove(t, w, Request{Images: images(img), Force: force})
		if results[0].OK() || len(results[0].Done) > 0 || len(w.log) > 0 {
			t.Errorf("force %s: did %v", force, w.log)
		}
	}
}

func TestKillEndsUnknownHolders(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	stray := w.container("stray", img, "")
	w.procs[stray] = []Process{{PID: 11, StartTime: 1}}
	run := w.container("run", img, "podman")
	w.start(run, 10)
	w.stubborn[run] = []Process{{PID: 12, StartTime: 5}} // a process that outlives its container
	_, results := remove(t, w, Request{Images: images(img), Force: ForceKill})
	if !results[0].OK() || w.hasImage(img) {
		t.Fatalf("not done: %+v, steps %v", results[0].Failed, w.log)
	}
	for _, want := range []string{"kill 11", "kill 12"} {
		if !slices.Contains(w.log, want) {
			t.Errorf("no %q in %v", want, w.log)
		}
	}
}

// What changes between plan and deletion keeps the container.
func TestChangesAfterThePlan(t *testing.T) {
	tests := []struct {
		name   string
		step   string
		change func(w *world)
		want   error
		kept   ContainerID
	}{
		{"a process enters an unowned container", "recheck", func(w *world) {
			w.procs["stray"] = []Process{{PID: 99, StartTime: 3}}
		}, ErrStillInUse, "stray"},
		{"a process enters just before the unmount", "unmount", func(w *world) {
			w.procs["stray"] = []Process{{PID: 99, StartTime: 3}}
		}, ErrStillInUse, "stray"},
		{"an engine claims the unowned container", "recheck", func(w *world) { w.owner["stray"] = "podman" }, ErrPlanStale, "stray"},
		{"an engine goes down that may own it", "recheck", func(w *world) {
			w.owner["stray"], w.down["podman"] = "podman", true
		}, ErrStillInUse, "stray"},
		{"the engine starts its container again", "remove", func(w *world) { w.start("idle", 50) }, ErrStillInUse, "idle"},
		{"a process stays after the stop", "look", func(w *world) {
			w.procs["run"] = []Process{{PID: 77, StartTime: 2}}
		}, ErrStillInUse, "run"},
		{"a new container of the image", "unmount_image", func(w *world) { w.container("new", "img", "") }, ErrImageInUse, "new"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			img := w.image("img", "a:1")
			w.images[0].OwnLayers = []Layer{w.images[0].Layer}
			w.start(w.container("run", img, "podman"), 10)
			w.container("idle", img, "podman")
			w.container("stray", img, "")
			w.at[tt.step] = func() { w.mu.Lock(); defer w.mu.Unlock(); tt.change(w) }
			_, results := remove(t, w, Request{Images: images(img), Force: ForceStop})
			if len(results[0].Failed) == 0 || !errors.Is(results[0].Failed[0].Err, tt.want) {
				t.Errorf("failed with %+v, want %v", results[0].Failed, tt.want)
			}
			if !w.has(tt.kept) || !w.hasImage(img) {
				t.Errorf("container or image lost; steps %v", w.log)
			}
		})
	}
}

func TestVanishedMeanwhileIsSuccess(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.container("stray", img, "")
	w.at["delete_container"] = func() { w.containers = nil }
	w.at["delete_image"] = func() { w.images = nil }
	_, results := remove(t, w, Request{Images: images(img), Force: ForceIdle})
	if !results[0].OK() {
		t.Errorf("failed: %+v", results[0].Failed)
	}
}

func TestSeveralImagesAreDecidedInOrder(t *testing.T) {
	w := newWorld()
	parent := w.image("parent", "p:1")
	child := w.child("child", parent, "c:1")
	blocked := w.image("blocked", "b:1")
	w.container("idle", blocked, "")
	_, results := remove(t, w, Request{Images: []ImageTarget{{ID: child, Name: "c:1"}, {ID: blocked, Name: "b:1"}, {ID: parent, Name: "p:1"}}})
	if !results[0].OK() || results[1].OK() || !results[2].OK() {
		t.Fatalf("results %+v", results)
	}
	if w.hasImage(child) || w.hasImage(parent) || !w.hasImage(blocked) {
		t.Errorf("left %+v", w.images)
	}
}

func TestCancelledBeforeDeletionKeeps(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.container("stray", img, "")
	ctx, cancel := context.WithCancel(context.Background())
	e := w.engine()
	plan, err := e.Plan(ctx, Request{Images: images(img), Force: ForceIdle})
	if err != nil {
		t.Fatal(err)
	}
	w.at["recheck"] = cancel
	results := e.Execute(ctx, plan)
	if len(results[0].Failed) == 0 || !w.has("stray") || !w.hasImage(img) {
		t.Errorf("went on after cancel: %+v", results[0])
	}
}

// An owner removes the company of a container unasked, so what is kept keeps its company.
func TestCompanyOfAKeptContainerIsKept(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	x, m := w.container("x", img, "podman"), w.container("m", img, "podman")
	w.claims[x] = Claim{TakesAlong: []ContainerID{m}}
	w.start(x, 10)
	w.start(m, 11)
	w.stubborn[m] = []Process{{PID: 12, StartTime: 5}}
	_, results := remove(t, w, Request{Images: images(img), Force: ForceStop})
	if results[0].OK() || !w.has(x) || !w.has(m) {
		t.Errorf("lost a container: %v", w.log)
	}
}

// Idle containers are looked at once more before their owner removes them.
func TestProcessEntersBeforeTheOwnerRemoves(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	idle := w.container("idle", img, "podman")
	w.at["look"] = func() { w.procs[idle] = []Process{{PID: 99, StartTime: 3}} }
	_, results := remove(t, w, Request{Images: images(img), Force: ForceIdle})
	if results[0].OK() || !w.has(idle) {
		t.Errorf("lost a container: %v", w.log)
	}
}

// What an owner has begun to remove is removed, and reported, though the caller gave up meanwhile.
func TestCancelledDuringTheOwnersRemoval(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.container("idle", img, "podman")
	ctx, cancel := context.WithCancel(context.Background())
	e := w.engine()
	plan, err := e.Plan(ctx, Request{Images: images(img), Force: ForceIdle})
	if err != nil {
		t.Fatal(err)
	}
	w.at["within the removal"] = cancel
	results := e.Execute(ctx, plan)
	if len(results[0].Done) != 1 || results[0].Done[0].Verb != VerbRemove || results[0].OK() || !w.hasImage(img) {
		t.Errorf("results %+v", results[0])
	}
}

// What a container's removal carries fails with it, whichever removal it belongs to.
func TestFailureStopsEveryDependant(t *testing.T) {
	t.Run("an image that the container mounts", func(t *testing.T) {
		w := newWorld()
		app, data := w.image("app", "a:1"), w.image("data", "d:1")
		c := w.container("c", app, "podman")
		w.claims[c] = Claim{ImageVolumes: []ImageID{data}}
		w.start(c, 10)
		w.at["remove"] = func() { w.start(c, 11) }
		_, results := remove(t, w, Request{Images: images(app, data), Force: ForceStop})
		if results[0].OK() || results[1].OK() || !w.hasImage(data) || !w.has(c) {
			t.Errorf("results %+v; steps %v", results, w.log)
		}
	})
	t.Run("the container itself", func(t *testing.T) {
		w := newWorld()
		app := w.image("app", "a:1")
		c := w.container("c", app, "podman")
		w.at["remove"] = func() { w.start(c, 11) }
		_, results := remove(t, w, Request{Images: images(app), Containers: []ContainerID{c}, Force: ForceStop})
		if results[0].OK() || results[1].OK() {
			t.Errorf("results %+v", results)
		}
	})
}

func TestCancelledBeforeTheOwnersRemoval(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.container("idle", img, "podman")
	ctx, cancel := context.WithCancel(context.Background())
	e := w.engine()
	plan, err := e.Plan(ctx, Request{Images: images(img), Force: ForceIdle})
	if err != nil {
		t.Fatal(err)
	}
	w.at["look"] = cancel
	if results := e.Execute(ctx, plan); results[0].OK() || len(w.log) > 0 {
		t.Errorf("went on after cancel: %v, %+v", w.log, results[0])
	}
}

// A size that takes long to find out does not hold up the removal.
func TestSizeThatCannotBeMeasured(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.container("large", img, "")
	w.container("small", img, "")
	_, results := remove(t, w, Request{Images: images(img), Force: ForceIdle})
	if !results[0].OK() || results[0].Bytes != 107 || !results[0].AtLeast {
		t.Errorf("freed %d, at least %v; failed %+v", results[0].Bytes, results[0].AtLeast, results[0].Failed)
	}
}

func TestCancelledBeforeTheStop(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.start(w.container("run", img, "podman"), 10)
	stray := w.container("stray", img, "")
	w.procs[stray] = []Process{{PID: 11, StartTime: 1}}
	ctx, cancel := context.WithCancel(context.Background())
	e := w.engine()
	plan, err := e.Plan(ctx, Request{Images: images(img), Force: ForceKill})
	if err != nil {
		t.Fatal(err)
	}
	w.at["begin"] = cancel
	results := e.Execute(ctx, plan)
	if results[0].OK() || len(w.log) > 0 {
		t.Errorf("went on after cancel: %v, %+v", w.log, results[0])
	}
}

// With force kill, only what was in use in the plan is ended.
func TestStartedAfterThePlanIsNotKilled(t *testing.T) {
	tests := []struct {
		name  string
		setup func(w *world, img ImageID) ContainerID
		step  string
	}{
		{"a process enters an idle one that nobody owns", func(w *world, img ImageID) ContainerID { return w.container("c", img, "") }, "look"},
		{"an idle one is started", func(w *world, img ImageID) ContainerID { return w.container("c", img, "podman") }, "begin"},
		{"an idle one is started before the look", func(w *world, img ImageID) ContainerID { return w.container("c", img, "podman") }, "look"},
		{"a stopped one is started again", func(w *world, img ImageID) ContainerID {
			c := w.container("c", img, "podman")
			w.start(c, 10)
			return c
		}, "look"},
		{"an unowned one is claimed, and runs", func(w *world, img ImageID) ContainerID {
			c := w.container("c", img, "")
			w.procs[c] = []Process{{PID: 10, StartTime: 1}}
			return c
		}, "look"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			img := w.image("img", "a:1")
			c := tt.setup(w, img)
			w.at[tt.step] = func() {
				w.start(c, 77)
				if !strings.HasSuffix(tt.name, "nobody owns") {
					w.owner[c] = "podman"
				}
			}
			_, results := remove(t, w, Request{Images: images(img), Force: ForceKill})
			if len(results[0].Failed) == 0 || !errors.Is(results[0].Failed[0].Err, ErrPlanStale) || !w.has(c) || slices.Contains(w.log, "kill 77") {
				t.Errorf("failed %+v; steps %v", results[0].Failed, w.log)
			}
		})
	}
}

// What changes before the last look at an image keeps it.
func TestImageChangesAfterThePlan(t *testing.T) {
	add := func(w *world, id, owner string, image ImageID) ContainerID {
		w.owner[ContainerID(id)] = owner
		w.containers = append(slices.Clone(w.containers), Container{ID: ContainerID(id), ImageID: image})
		return ContainerID(id)
	}
	tests := []struct {
		name   string
		change func(w *world)
		want   error
	}{
		{"a name", func(w *world) { w.images[1].Names = []string{"a:1", "b:1"} }, ErrPlanStale},
		{"a container", func(w *world) { add(w, "new", "", "img") }, ErrStillInUse},
		{"a child", func(w *world) { w.child("new", "img", "n:1") }, ErrPlanStale},
		{"a list that holds it", func(w *world) {
			w.images = append(w.images, Image{ID: "list", ManifestList: true, Instances: []ImageID{"img"}})
		}, ErrPlanStale},
		{"a mount", func(w *world) { w.images[1].Layer.MountCount = 1 }, ErrStillInUse},
		{"a process in its layer", func(w *world) { w.procs["img"] = []Process{{PID: 9, StartTime: 1}} }, ErrStillInUse},
		{"a layer of which the kernel cannot tell", func(w *world) { w.blind["img"] = true }, ErrStillInUse},
		{"a container that mounts it as a volume", func(w *world) {
			w.claims[add(w, "new", "podman", "other")] = Claim{ImageVolumes: []ImageID{"img"}}
		}, ErrPlanStale},
		{"a container of which its owner says nothing", func(w *world) {
			add(w, "new", "podman", "other")
			w.down["podman"] = true
		}, ErrPlanStale},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.image("other", "o:1")
			img := w.image("img", "a:1")
			w.images[1].OwnLayers = []Layer{w.images[1].Layer}
			w.at["look_image"] = func() { w.mu.Lock(); defer w.mu.Unlock(); tt.change(w) }
			_, results := remove(t, w, Request{Images: images(img), Force: ForceKill})
			if len(results[0].Failed) == 0 || !errors.Is(results[0].Failed[0].Err, tt.want) {
				t.Fatalf("failed with %+v, want %v", results[0].Failed, tt.want)
			}
			if !w.hasImage(img) {
				t.Errorf("the image is lost; steps %v", w.log)
			}
			if tt.name == "a process in its layer" && !strings.HasPrefix(results[0].Failed[0].Err.Error(), "image img is in use") {
				t.Errorf("it says %q", results[0].Failed[0].Err)
			}
		})
	}
}

func TestOwnerThatLeavesAContainerOut(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.start(w.container("run", img, "podman"), 10)
	w.deaf["podman"] = true
	_, results := remove(t, w, Request{Images: images(img), Force: ForceStop})
	if results[0].OK() || !w.has("run") || !strings.Contains(results[0].Failed[0].Err.Error(), "no answer") {
		t.Errorf("results %+v", results[0])
	}
}

// What cannot be told after the stop, or before the deletion, is kept by every force.
func TestKernelThatCannotTell(t *testing.T) {
	for step, owner := range map[string]string{"look": "podman", "recheck": "", "unmount": ""} {
		w := newWorld()
		img := w.image("img", "a:1")
		c := w.container("c", img, owner)
		w.at[step] = func() { w.mu.Lock(); defer w.mu.Unlock(); w.blind[c] = true }
		_, results := remove(t, w, Request{Images: images(img), Force: ForceKill})
		if results[0].OK() || !w.has(c) {
			t.Errorf("before %s: results %+v; steps %v", step, results[0], w.log)
		}
	}
}

// A container that somebody else has removed while it stood in our way is a success.
func TestGoneAfterARefusal(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	w.container("stray", img, "")
	w.at["unmount"] = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.procs["stray"] = []Process{{PID: 9, StartTime: 1}}
		w.containers = nil
	}
	_, results := remove(t, w, Request{Images: images(img), Force: ForceIdle})
	if !results[0].OK() || w.hasImage(img) {
		t.Errorf("results %+v; steps %v", results[0], w.log)
	}
}

// The rest of an interrupted removal goes as dangling parents do: never with a container.
func TestRestOfAnInterruptedRemoval(t *testing.T) {
	for _, needed := range []bool{false, true} {
		w := newWorld()
		two := w.image("two")
		one := w.child("one", two)
		vol := w.container("vol", w.image("other", "o:1"), "podman")
		if needed {
			w.claims[vol] = Claim{ImageVolumes: []ImageID{one}}
		}
		w.start(vol, 10)
		rest := RestOf(Interrupted{Image: Image{ID: "child"}, Rest: []ImageID{one, two}})
		_, results := remove(t, w, Request{Images: []ImageTarget{rest}, Force: ForceKill})
		if !results[0].OK() || w.hasImage(one) != needed || w.hasImage(two) != needed || !w.running[vol] {
			t.Errorf("needed %v: results %+v, left %+v, steps %v", needed, results[0], w.images, w.log)
		}
	}
}

// Whatever changes at whatever step, nothing that is in use goes. Left out are the steps after the last
// proof, of which nobody can know.
func TestExecuteKeepsWhatComesIntoUse(t *testing.T) {
	synctest.Test(t, checkExecuteKeeps) // it waits a lot
}

func checkExecuteKeeps(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newWorld()
		owners := []string{"", "podman", "records"}
		app, data := w.image("app", "a:1"), w.image("data", "d:1")
		parent := w.image("parent")
		child := w.child("child", parent, "c:1")
		for i := range w.images {
			w.images[i].OwnLayers = []Layer{w.images[i].Layer}
		}
		all := []ImageID{app, data, parent, child}
		for i := range 1 + r.IntN(4) {
			c := w.container(fmt.Sprint("c", i), all[r.IntN(len(all))], owners[r.IntN(len(owners))])
			if w.owner[c] != "" && r.IntN(3) == 0 {
				w.claims[c] = Claim{ImageVolumes: []ImageID{all[r.IntN(len(all))]}}
			}
			switch {
			case r.IntN(3) > 0:
			case w.owner[c] != "":
				w.start(c, 10+i)
			default:
				w.procs[c] = []Process{{PID: 10 + i, StartTime: 1}}
			}
		}
		pid := 100
		change := func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			pid++
			image := &w.images[r.IntN(len(w.images)+1)%max(len(w.images), 1)]
			switch r.IntN(6) {
			case 0:
				image.Names = append(slices.Clone(image.Names), fmt.Sprint("n:", pid))
			case 1:
				image.Layer.MountCount++
			case 2:
				w.procs[ContainerID(image.ID)] = []Process{{PID: pid, StartTime: 1}}
			case 3:
				id := w.container(fmt.Sprint("new", pid), "", owners[1+r.IntN(2)])
				w.claims[id] = Claim{ImageVolumes: []ImageID{image.ID}}
			case 4:
				w.down[owners[1+r.IntN(2)]] = true
			case 5:
				if len(w.containers) > 0 {
					c := w.containers[r.IntN(len(w.containers))].ID
					w.procs[c] = append(slices.Clone(w.procs[c]), Process{PID: pid, StartTime: 1})
				}
			}
		}
		steps := []string{"begin", "look", "recheck", "unmount", "look_image"}
		for range 1 + r.IntN(2) {
			w.at[steps[r.IntN(len(steps))]] = func() {
				if len(w.images) > 0 {
					change()
				}
			}
		}
		request := Request{Images: images(app, data, child), Force: Force(r.IntN(4))}
		plan, err := w.engine().Plan(context.Background(), request)
		if err != nil {
			t.Fatal(err)
		}
		results := w.engine().Execute(context.Background(), plan)
		if len(w.lost) > 0 {
			t.Fatalf("seed %d, force %s: lost %v; steps %v; results %+v", seed, request.Force, w.lost, w.log, results)
		}
	}
}
