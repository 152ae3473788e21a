package core

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// remove plans and executes, as every caller does.
func remove(t *testing.T, w *world, r Request) (*Plan, []Result) {
	t.Helper()
	e := w.engine()
	plan, err := e.Plan(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return plan, e.Execute(context.Background(), plan)
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
	if got := strings.Join(w.log, "|"); got != want {
		t.Errorf("steps\n got %s\nwant %s", got, want)
	}
	if results[0].Bytes != 4*7+100 {
		t.Errorf("freed %d bytes", results[0].Bytes)
	}
	var verbs []string
	for _, a := range results[0].Done {
		verbs = append(verbs, string(a.Verb))
	}
	if got := strings.Join(verbs, " "); got != "stop remove remove remove delete_container untag delete_image" {
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
	w.at["recheck"] = cancel
	results := e.Execute(ctx, plan)
	if len(results[0].Done) != 1 || results[0].Done[0].Verb != VerbRemove || results[0].OK() || !w.hasImage(img) {
		t.Errorf("results %+v", results[0])
	}
}
