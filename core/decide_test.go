package core

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func plan(t *testing.T, w *world, r Request) *Plan {
	t.Helper()
	p, err := w.engine().Plan(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func summary(r Removal) string {
	var parts []string
	for _, a := range r.Actions {
		s := string(a.Verb) + " " + string(a.Container) + string(a.Image)
		if a.Verb == VerbUntag {
			s = "untag " + a.Name
		}
		parts = append(parts, s)
	}
	for _, b := range r.Blockers {
		parts = append(parts, fmt.Sprintf("BLOCKED %s %s by %s", b.Reason, string(b.Container)+string(b.Image), b.LiftedBy))
	}
	return strings.Join(parts, "; ")
}

func TestDecide(t *testing.T) {
	tests := []struct {
		name  string
		build func(w *world) Request
		want  string
	}{
		{"a name among several is only untagged, containers or not", func(w *world) Request {
			img := w.image("img", "a:1", "b:1")
			w.start(w.container("run", img, "podman"), 10)
			return Request{Images: []ImageTarget{{ID: img, Name: "a:1"}}}
		}, "untag a:1"},
		{"the last name deletes", func(w *world) Request {
			return Request{Images: []ImageTarget{{ID: w.image("img", "a:1"), Name: "a:1"}}}
		}, "untag a:1; delete_image img"},
		{"an idle container blocks without force", func(w *world) Request {
			img := w.image("img", "a:1")
			w.container("idle", img, "")
			return Request{Images: images(img)}
		}, "delete_container idle; untag a:1; delete_image img; BLOCKED has_container idle by idle"},
		{"by ID with several names", func(w *world) Request {
			return Request{Images: images(w.image("img", "a:1", "b:1"))}
		}, "untag a:1; untag b:1; delete_image img; BLOCKED several_names img by idle"},
		{"by ID with several names, forced", func(w *world) Request {
			return Request{Images: images(w.image("img", "a:1", "b:1")), Force: ForceStop}
		}, "untag a:1; untag b:1; delete_image img"},
		{"a parent by its last name loses the name only", func(w *world) Request {
			p := w.image("p", "p:1")
			w.child("c", p, "c:1")
			return Request{Images: []ImageTarget{{ID: p, Name: "p:1"}}, Force: ForceKill}
		}, "untag p:1"},
		{"a parent by ID is kept by every force", func(w *world) Request {
			p := w.image("p", "p:1")
			w.child("c", p, "c:1")
			return Request{Images: images(p), Force: ForceKill}
		}, "untag p:1; delete_image p; BLOCKED child_image p by none"},
		{"a dangling parent goes along", func(w *world) Request {
			p := w.image("p")
			return Request{Images: images(w.child("c", p, "c:1"))}
		}, "untag c:1; delete_image c; delete_image p"},
		{"a dangling parent stays with --no-prune", func(w *world) Request {
			p := w.image("p")
			return Request{Images: images(w.child("c", p, "c:1")), NoPrune: true}
		}, "untag c:1; delete_image c"},
		{"a dangling parent with a container stays", func(w *world) Request {
			p := w.image("p")
			w.container("idle", p, "")
			return Request{Images: images(w.child("c", p, "c:1")), Force: ForceKill}
		}, "untag c:1; delete_image c"},
		{"a dangling parent with another child stays", func(w *world) Request {
			p := w.image("p")
			w.child("d", p, "d:1")
			return Request{Images: images(w.child("c", p, "c:1"))}
		}, "untag c:1; delete_image c"},
		{"a read-only image is kept by every force", func(w *world) Request {
			img := w.image("img", "a:1", "b:1")
			w.images[0].ReadOnly = true
			return Request{Images: []ImageTarget{{ID: img, Name: "a:1"}}, Force: ForceKill}
		}, "BLOCKED read_only_store img by none"},
		{"an image in a manifest list needs force", func(w *world) Request {
			img := w.image("img", "a:1")
			w.images = append(w.images, Image{ID: "list", ManifestList: true, Instances: []ImageID{img}})
			return Request{Images: images(img)}
		}, "untag a:1; delete_image img; BLOCKED in_manifest img by idle"},
		{"list and instance in one request", func(w *world) Request {
			img := w.image("img", "a:1")
			w.images = append(w.images, Image{ID: "list", ManifestList: true, Instances: []ImageID{img}})
			return Request{Images: images("list", img)}
		}, "delete_image list | untag a:1; delete_image img"},
		{"a container that mounts the image as a volume", func(w *world) Request {
			img, other := w.image("img", "a:1"), w.image("other", "o:1")
			c := w.container("vol", other, "podman")
			w.claims[c] = Claim{ImageVolumes: []ImageID{img}}
			w.start(c, 10)
			return Request{Images: images(img), Force: ForceIdle}
		}, "stop vol; remove vol; untag a:1; delete_image img; BLOCKED in_use vol by stop"},
		{"an infra container takes its pod along", func(w *world) Request {
			img, other := w.image("img", "a:1"), w.image("other", "o:1")
			infra := w.container("infra", img, "podman")
			app := w.container("app", other, "podman")
			w.claims[infra] = Claim{TakesAlong: []ContainerID{app}}
			w.start(app, 10)
			return Request{Images: images(img), Force: ForceStop}
		}, "stop app; remove infra; remove app; untag a:1; delete_image img"},
		{"rm of an idle container needs no force", func(w *world) Request {
			return Request{Containers: []ContainerID{w.container("idle", w.image("img", "a:1"), "")}}
		}, "delete_container idle"},
		{"rm of what takes an idle one along needs force", func(w *world) Request {
			img := w.image("img", "a:1")
			infra, app := w.container("infra", img, "podman"), w.container("app", img, "podman")
			w.claims[infra] = Claim{TakesAlong: []ContainerID{app}}
			return Request{Containers: []ContainerID{infra}}
		}, "remove infra; remove app; BLOCKED has_container app by idle"},
		{"an idle claim does not lift the kernel's word", func(w *world) Request {
			img := w.image("img", "a:1")
			c := w.container("lie", img, "podman")
			w.procs[c] = []Process{{PID: 5, StartTime: 1}}
			return Request{Images: images(img), Force: ForceStop}
		}, "kill lie; remove lie; untag a:1; delete_image img; BLOCKED in_use lie by kill"},
		{"a host process in a running container is not stopped with it", func(w *world) Request {
			img := w.image("img", "a:1")
			c := w.container("run", img, "podman")
			w.start(c, 10)
			w.procs[c] = append(w.procs[c], Process{PID: 11, StartTime: 1, OnHost: true})
			return Request{Images: images(img), Force: ForceStop}
		}, "stop run; kill run; remove run; untag a:1; delete_image img; BLOCKED in_use run by kill"},
		{"an owner that is down keeps its container from every force", func(w *world) Request {
			img := w.image("img", "a:1")
			w.container("c", img, "podman")
			w.down["podman"] = true
			return Request{Images: images(img), Force: ForceKill}
		}, "delete_container c; untag a:1; delete_image img; BLOCKED owner_unavailable c by none"},
		{"a container of another image whose owner does not answer may mount this one", func(w *world) Request {
			img, other := w.image("img", "a:1"), w.image("other", "o:1")
			w.container("c", other, "podman")
			w.down["podman"] = true
			return Request{Images: images(img), Force: ForceKill}
		}, "untag a:1; delete_image img; BLOCKED owner_unavailable img by none"},
		{"a process outside of the container's control group is not stopped with it", func(w *world) Request {
			img := w.image("img", "a:1")
			c := w.container("c0ffee", img, "podman")
			w.start(c, 10)
			main := Process{PID: 10, StartTime: 1, Cgroup: "/m/libpod-c0ffee.scope/container"}
			w.claims[c] = Claim{Evidence: []Evidence{{Process: &main}}}
			w.procs[c] = []Process{main, {PID: 11, StartTime: 1, Cgroup: "/m/libpod-c0ffee.scope/system.slice/d"},
				{PID: 12, StartTime: 1, Cgroup: "/user.slice"}, {PID: 13, StartTime: 1}}
			return Request{Images: images(img), Force: ForceStop}
		}, "stop c0ffee; kill c0ffee; remove c0ffee; untag a:1; delete_image img; BLOCKED in_use c0ffee by kill"},
		{"a process in a lower layer of the image", func(w *world) Request {
			img := w.image("img", "a:1")
			w.images[0].OwnLayers = []Layer{w.images[0].Layer, {ID: "layer-lower", Driver: "overlay"}}
			w.procs["lower"] = []Process{{PID: 5, StartTime: 1}}
			w.start(w.container("run", img, "podman"), 10)
			return Request{Images: images(img), Force: ForceKill}
		}, "stop run; remove run; untag a:1; delete_image img; BLOCKED image_mounted img by none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			r := tt.build(w)
			var got []string
			for _, r := range plan(t, w, r).Removals {
				got = append(got, summary(r))
			}
			if s := strings.Join(got, " | "); s != tt.want {
				t.Errorf("\n got %s\nwant %s", s, tt.want)
			}
		})
	}
}

func TestRevisionFollowsTheFacts(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	c := w.container("c", img, "podman")
	r := Request{Images: images(img), Force: ForceKill}
	before := plan(t, w, r).Revision
	if again := plan(t, w, r).Revision; again != before {
		t.Error("the revision changed though nothing did")
	}
	w.start(c, 10)
	running := plan(t, w, r).Revision
	if running == before {
		t.Error("the container was started and the revision stayed")
	}
	w.procs[c] = append(w.procs[c], Process{PID: 11, StartTime: 3})
	if plan(t, w, r).Revision != running {
		t.Error("a running container forked and the revision changed")
	}
	stray := w.container("stray", img, "")
	w.procs[stray] = []Process{{PID: 20, StartTime: 1}}
	kills := plan(t, w, r).Revision
	w.procs[stray] = []Process{{PID: 20, StartTime: 2}}
	recycled := plan(t, w, r).Revision
	if recycled == kills {
		t.Error("the pid to kill was recycled and the revision stayed")
	}
	w.images[0].Layer.MountCount = 1
	if plan(t, w, r).Revision == recycled {
		t.Error("the image was mounted and the revision stayed")
	}
}

// What a removal gives free is what only images have that go, pruned parents among them.
func TestReclaimableBytes(t *testing.T) {
	w := newWorld()
	base := w.image("base", "b:1")
	child := w.child("child", w.child("mid", base), "c:1")
	if got := plan(t, w, Request{Images: images(child)}).ReclaimableBytes; got != 200 {
		t.Errorf("with its parent: %d", got)
	}
	if got := plan(t, w, Request{Images: images(child), NoPrune: true}).ReclaimableBytes; got != 100 {
		t.Errorf("without: %d", got)
	}
	if got := plan(t, w, Request{Images: images(child, base)}).ReclaimableBytes; got != 300 {
		t.Errorf("with all: %d", got)
	}
}

// A claim that is somebody's and nobody's is none.
func TestOwnedByNobodyIsUnknown(t *testing.T) {
	for _, owners := range [][]string{nil, {"a", "b"}} {
		h := Holding{Kind: Owned, Owners: owners, Claim: Claim{Use: UseIdle, State: StateStopped}}
		if use, _ := Judge(h, Observation{Use: UseIdle}); use != UseUnknown {
			t.Errorf("owned by %v: %s", owners, use)
		}
		if b := obstacles(Container{ID: "c"}, h, Observation{Use: UseIdle}); len(b) != 1 || b[0].LiftedBy != ForceNone {
			t.Errorf("owned by %v: %+v", owners, b)
		}
	}
}

func TestPlanOfARevision(t *testing.T) {
	w := newWorld()
	img := w.image("img", "a:1")
	r := Request{Images: []ImageTarget{{ID: img, Name: "a:1", Reference: "a"}}, Force: ForceIdle}
	r.Revision = plan(t, w, r).Revision
	r.Images[0].Reference = "a:1"
	if plan(t, w, r).Revision != r.Revision {
		t.Error("another way of naming it has another revision")
	}
	w.container("new", img, "")
	if _, err := w.engine().Plan(context.Background(), r); !errors.Is(err, ErrPlanStale) {
		t.Errorf("a plan that does not hold: %v", err)
	}
}

// Whatever the facts, a container whose use or owner is not known to be harmless is kept by every
// force but the one that may lift it, and so is its image.
func FuzzDecideKeeps(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { checkDecideKeeps(t, seed) })
}

func TestDecideKeeps(t *testing.T) {
	for seed := range uint64(20000) {
		checkDecideKeeps(t, seed)
	}
}

func checkDecideKeeps(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(n int) int { return r.IntN(n) }
	facts := randomFacts(pick)
	snapshot := facts.Snapshot
	request := Request{Force: Force(pick(4)), NoPrune: pick(2) == 0}
	for _, i := range snapshot.Images {
		if pick(2) == 0 {
			request.Images = append(request.Images, ImageTarget{ID: i.ID, Name: first(i.Names), All: pick(3) == 0})
			if pick(4) == 0 {
				request.Images = append(request.Images, ImageTarget{ID: i.ID})
			}
		}
	}
	for _, c := range snapshot.Containers {
		if pick(3) == 0 {
			request.Containers = append(request.Containers, c.ID)
		}
	}
	plan := Decide(facts, request)
	removed := make(map[ContainerID]bool)
	listed := len(facts.Protection.Labels) > 0
	for _, removal := range plan.Removals {
		if removal.Blocked() {
			continue
		}
		for _, a := range removal.Actions {
			switch a.Verb {
			case VerbRemove, VerbDeleteContainer:
				removed[a.Container] = true
			case VerbDeleteImage:
				for _, c := range snapshot.ContainersOf(a.Image) {
					if !removed[c.ID] {
						t.Fatalf("seed %d: image %s goes before its container %s: %s", seed, a.Image, c.ID, summary(removal))
					}
				}
			case VerbStop, VerbKill, VerbUnmount, VerbUntag:
			}
			if a.Image != "" {
				i, _ := snapshot.Image(a.Image)
				if facts.Pins[i.ID].Pinned != PinnedNo || listed && (!i.LabelsKnown || i.Labels["keep"] == "yes" || first(i.Names) == "n1") {
					t.Fatalf("seed %d: force %s has %s of image %s, pin %s, %+v", seed, request.Force, a.Verb, i.ID, facts.Pins[i.ID].Pinned, i)
				}
			}
			if a.Container != "" && listed {
				if c := facts.Holdings[a.Container].Claim; c.Labels["keep"] == "yes" || c.DisplayName == "keeper" {
					t.Fatalf("seed %d: force %s has %s of container %s, claimed as %+v", seed, request.Force, a.Verb, a.Container, c)
				}
			}
		}
	}
	for id := range removed {
		c, ok := snapshot.Container(id)
		if !ok {
			t.Fatalf("seed %d: unknown container %s removed", seed, id)
		}
		h, o := facts.Holdings[id], facts.Observations[c.Layer.ID]
		least, never := ForceNone, false
		switch {
		case h.Kind == Undetermined || h.Kind == Contested:
			never = true
		case o.Use == UseUnknown:
			never = true
		case h.Kind == Unowned && o.Use == UseInUse:
			least, never = ForceKill, len(Processes(o.Evidence)) == 0
		case h.Kind == Owned && h.Claim.Use == UseUnknown:
			least = ForceKill
		case h.Kind == Owned && (h.Claim.Use == UseInUse || h.Claim.State.Live()):
			least = ForceStop
		case h.Kind == Owned && o.Use == UseInUse:
			least, never = ForceKill, len(Processes(o.Evidence)) == 0
		}
		if never || request.Force < least {
			t.Fatalf("seed %d: force %s removes container %s, holding %s, claim %s %q, kernel %s", seed, request.Force, id,
				h.Kind, h.Claim.Use, h.Claim.State, o.Use)
		}
	}
}

// randomFacts are facts of all kinds about a few images and containers.
func randomFacts(pick func(int) int) Facts {
	snapshot := &Snapshot{}
	facts := Facts{Snapshot: snapshot, Holdings: map[ContainerID]Holding{}, Observations: map[LayerID]Observation{},
		Pins: map[ImageID]Pin{}}
	if pick(3) == 0 {
		facts.Protection = Protection{Images: []string{"n1"}, Containers: []string{"keep*"}, Labels: []string{"keep=yes"}}
	}
	label := func() map[string]string {
		return []map[string]string{nil, nil, nil, {"keep": "yes"}, {"keep": "no"}}[pick(5)]
	}
	for i := range 1 + pick(3) {
		image := Image{ID: ImageID(fmt.Sprint("i", i)), Layer: Layer{ID: LayerID(fmt.Sprint("il", i))}}
		if pick(3) > 0 {
			image.Names = []string{fmt.Sprint("n", i)}
		}
		if i > 0 && pick(2) == 0 {
			image.Parent = ImageID(fmt.Sprint("i", pick(i)))
		}
		image.Labels, image.LabelsKnown = label(), pick(8) > 0
		if pick(10) > 0 {
			facts.Pins[image.ID] = Pin{Pinned: []Pinned{PinnedNo, PinnedNo, PinnedNo, PinnedYes, PinnedUnknown, 7}[pick(6)]}
		}
		facts.Observations[image.Layer.ID] = Observation{Use: UseIdle}
		snapshot.Images = append(snapshot.Images, image)
	}
	process := func() []Evidence {
		if pick(3) == 0 {
			return nil
		}
		return []Evidence{{Process: &Process{PID: 2 + pick(50), StartTime: 1, OnHost: pick(2) == 0}}}
	}
	states := []State{StateCreated, StateRunning, StatePaused, StateStopped, StateBuilding, StateRemoving, "hibernating"}
	for i := range pick(5) {
		id, layer := ContainerID(fmt.Sprint("c", i)), LayerID(fmt.Sprint("l", i))
		snapshot.Containers = append(snapshot.Containers, Container{ID: id, Layer: Layer{ID: layer},
			ImageID: snapshot.Images[pick(len(snapshot.Images))].ID})
		if pick(8) > 0 {
			h := Holding{Kind: HoldingKind(pick(4)), Owners: []string{"a"}}
			h.Claim = Claim{Container: id, Use: Use(pick(3)), State: states[pick(len(states))], Evidence: process()}
			if pick(4) == 0 {
				h.Claim.TakesAlong = []ContainerID{ContainerID(fmt.Sprint("c", pick(5)))}
			}
			h.Claim.Labels = label()
			if pick(8) == 0 {
				h.Claim.DisplayName = "keeper"
			}
			facts.Holdings[id] = h
		}
		if pick(8) > 0 {
			facts.Observations[layer] = Observation{Use: Use(pick(3)), Evidence: process()}
		}
	}
	return facts
}
