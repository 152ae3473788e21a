package core

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func account(t *testing.T, w *world) *Account {
	t.Helper()
	a, err := w.engine().Account(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkSums(t, a)
	return a
}

// checkSums makes sure that every byte counts once, however the bytes are parted.
func checkSums(t *testing.T, a *Account) {
	t.Helper()
	var layers, containers, loose, readOnly, shared, unique int64
	unmeasured := 0
	for _, l := range a.Layers {
		switch {
		case l.ReadOnly:
			readOnly += max(l.Bytes, 0)
		case l.Bytes < 0:
			unmeasured++
		case len(l.Images) == 0:
			loose += l.Bytes
		default:
			layers += l.Bytes
			if len(l.Images) == 1 {
				unique += l.Bytes
			} else {
				shared += l.Bytes
			}
		}
	}
	for _, c := range a.Containers {
		if c.Bytes < 0 {
			unmeasured++
		}
		containers += max(c.Bytes, 0)
	}
	var uniqueOfImages int64
	for _, i := range a.Images {
		if !i.ReadOnly { // the layers of one in an additional store lie there
			uniqueOfImages += i.UniqueBytes
		}
	}
	sum := func(what string, s Sum, bytes int64) {
		t.Helper()
		if s.Bytes != bytes || s.Now+s.AfterStop+s.Never != s.Bytes {
			t.Errorf("%s: %+v, want %d bytes", what, s, bytes)
		}
	}
	sum("images", a.OfImages, layers)
	sum("containers", a.OfContainers, containers)
	sum("nothing", a.OfNothing, loose)
	sum("total", a.Total, layers+containers+loose)
	var owners Sum
	images := 0
	for _, o := range a.Owners {
		if o.Now+o.AfterStop+o.Never != o.Bytes {
			t.Errorf("of %v: %+v", o.Owners, o)
		}
		owners.Count += o.Count
		owners.Active += o.Active
		owners.Bytes += o.Bytes
		owners.Now += o.Now
		owners.AfterStop += o.AfterStop
		owners.Never += o.Never
		owners.Unmeasured += o.Unmeasured
		images += o.Images
	}
	if owners.Count != a.OfContainers.Count || images != a.OfImages.Count || owners.Bytes != a.Total.Bytes || owners.Now != a.Total.Now ||
		owners.AfterStop != a.Total.AfterStop || owners.Never != a.Total.Never || owners.Unmeasured != a.Total.Unmeasured {
		t.Errorf("of all owners %+v and %d images, total %+v", owners, images, a.Total)
	}
	if unmeasured != a.Total.Unmeasured || readOnly != a.ReadOnlyBytes {
		t.Errorf("unmeasured %d, in additional stores %d; %+v", unmeasured, readOnly, a)
	}
	if uniqueOfImages != unique {
		t.Errorf("unique %d by the images, %d by the layers, shared %d", uniqueOfImages, unique, shared)
	}
}

func TestAccount(t *testing.T) {
	w := newWorld()
	base := w.image("base", "base:1")
	app := w.child("app", base, "app:1")
	w.image("free", "free:1")
	w.child("child", w.image("parent", "p:1"), "c:1")
	w.protection.Images = []string{"kept:1"}
	w.image("kept", "kept:1")
	w.start(w.container("run", app, "podman"), 10)
	w.container("idle", app, "crio")
	w.container("stray", w.image("stray-image", "s:1"), "")
	w.layers = append(w.layers, StoredLayer{ID: "loose", Bytes: 11}, StoredLayer{ID: "elsewhere", Bytes: 1000, ReadOnly: true}, StoredLayer{ID: "odd", Bytes: -1})
	a := account(t, w)
	var got []string
	for _, i := range a.Images {
		got = append(got, fmt.Sprintf("%s %d+%d %s %v: %s", i.ID, i.UniqueBytes, i.SharedBytes, i.Fate, i.Owners, i.Reason))
	}
	for _, c := range a.Containers {
		got = append(got, fmt.Sprintf("%s %d %s %v: %s", c.ID, c.Bytes, c.Fate, c.Owners, c.Reason))
	}
	for _, o := range a.Owners {
		got = append(got, fmt.Sprintf("%v %d images %d containers %d active %d = %d + %d + %d", o.Owners, o.Images, o.Count, o.Active, o.Bytes, o.Now, o.AfterStop, o.Never))
	}
	want := []string{
		"base 0+100 after_stop [crio podman]: image app:1 (app) needs it: container run: running in podman",
		"app 100+100 after_stop [crio podman]: container run: running in podman",
		"free 100+0 now []: nothing uses it",
		"parent 0+100 now []: nothing uses it",
		"child 100+100 now []: nothing uses it",
		`kept 100+0 never []: protected by [protect] images = "kept:1"`,
		"stray-image 100+0 now [none]: nothing uses it",
		"run 7 after_stop [podman]: running in podman",
		"idle 7 now [crio]: nothing uses it",
		"stray 7 now [none]: nothing uses it",
		"[] 4 images 0 containers 0 active 411 = 300 + 0 + 111",
		"[crio podman] 2 images 0 containers 0 active 200 = 0 + 200 + 0",
		"[none] 1 images 1 containers 0 active 107 = 107 + 0 + 0",
		"[crio] 0 images 1 containers 0 active 7 = 7 + 0 + 0",
		"[podman] 0 images 1 containers 1 active 7 = 0 + 7 + 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("\n got %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	if a.OfNothing != (Sum{Count: 2, Bytes: 11, Never: 11, Unmeasured: 1}) || a.ReadOnlyBytes != 1000 {
		t.Errorf("%+v, in additional stores %d", a.OfNothing, a.ReadOnlyBytes)
	}
}

// What keeps one image or container from going is its fate, the worst thing first.
func TestFates(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(w *world)
		want  string
	}{
		{"an owner that is down", func(w *world) {
			w.container("c", w.image("img"), "podman")
			w.image("other")
			w.down["podman"] = true
		}, "img never, other never, c never [podman?]"},
		{"a kernel that cannot tell", func(w *world) {
			w.blind[w.container("c", w.image("img"), "podman")] = true
		}, "img never, c never [podman]"},
		{"a process that nobody knows", func(w *world) {
			w.procs[w.container("c", w.image("img"), "")] = []Process{{PID: 5, StartTime: 1}}
		}, "img after_stop, c after_stop [none]"},
		{"a pinned image", func(w *world) { w.pins[w.image("img")] = Pin{Pinned: PinnedYes} }, "img never"},
		{"a mounted image", func(w *world) { w.imageAt(w.image("img")).Layer.MountCount = 1 }, "img after_stop"},
		{"a list of an image in use", func(w *world) {
			img := w.image("img")
			w.images = append(w.images, Image{ID: "list", Instances: []ImageID{img}})
			w.start(w.container("c", img, "podman"), 10)
		}, "img after_stop, list now, c after_stop [podman]"},
		{"what goes along is in use", func(w *world) {
			img := w.image("img")
			w.claims[w.container("infra", img, "podman")] = Claim{TakesAlong: []ContainerID{"app"}}
			w.claims[w.container("app", img, "podman")] = Claim{TakesAlong: []ContainerID{"infra"}}
			w.start("app", 10)
		}, "img after_stop, infra after_stop [podman], app after_stop [podman]"},
		{"an image that stands on itself", func(w *world) { w.imageAt(w.image("img")).Parent = "img" }, "img never"},
	} {
		w := newWorld()
		tt.build(w)
		a := account(t, w)
		var got []string
		for _, i := range a.Images {
			got = append(got, fmt.Sprintf("%s %s", i.ID, i.Fate))
		}
		for _, c := range a.Containers {
			got = append(got, fmt.Sprintf("%s %s %v", c.ID, c.Fate, c.Owners))
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, s, tt.want)
		}
	}
}

// Whatever the facts, nothing counts twice, and what is called free now is what a removal with force idle
// would take.
func TestAccountSums(t *testing.T) {
	free := 0
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 4))
		facts := randomFacts(r.IntN)
		if r.IntN(3) > 0 {
			calm(facts, r.IntN)
		}
		s := facts.Snapshot
		readOnly := make(map[LayerID]bool)
		for n := range 6 {
			id := LayerID(fmt.Sprint("s", n))
			readOnly[id] = r.IntN(6) == 0
			s.Layers = append(s.Layers, StoredLayer{ID: id, Bytes: int64(r.IntN(1000) - 50), ReadOnly: readOnly[id]})
		}
		for n := range s.Layers {
			s.Layers[n].Bytes = max(s.Layers[n].Bytes, -1)
		}
		sizes := make(map[ContainerID]int64)
		for _, c := range s.Containers {
			s.Layers = append(s.Layers, StoredLayer{ID: c.LayerID, Bytes: -1})
			if r.IntN(5) > 0 {
				sizes[c.ID] = int64(r.IntN(500))
			}
		}
		for n := range s.Images {
			i := &s.Images[n]
			i.LayerSizes = make(map[LayerID]int64)
			for _, l := range s.Layers[:6] {
				if r.IntN(3) == 0 && !l.ReadOnly {
					i.LayerSizes[l.ID] = l.Bytes
				}
			}
		}
		a := AccountFor(facts, sizes)
		checkSums(t, a)
		for _, i := range a.Images {
			removal := Decide(facts, Request{Images: []ImageTarget{{ID: i.ID, All: true}}, Force: ForceIdle}).Removals[0]
			if !removal.Blocked() && i.Fate != FateNow && i.Reason != "the image itself is mounted" {
				needs := slices.ContainsFunc(s.ListsWith(i.ID), func(ImageID) bool { return true })
				if !needs {
					t.Errorf("seed %d: image %s is %s (%s), and could go", seed, i.ID, i.Fate, i.Reason)
				}
			}
			if i.Fate == FateNow {
				free++
				for _, b := range removal.Blockers {
					if b.Reason != ReasonChildImage { // which can go, too
						t.Errorf("seed %d: image %s is called free: %s", seed, i.ID, summary(removal))
					}
				}
			}
		}
		for _, c := range a.Containers {
			removal := Decide(facts, Request{Containers: []ContainerID{c.ID}, Force: ForceIdle}).Removals[0]
			if removal.Blocked() == (c.Fate == FateNow) {
				t.Errorf("seed %d: container %s is %s (%s): %s", seed, c.ID, c.Fate, c.Reason, summary(removal))
			}
			if c.Fate == FateNow {
				free++
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	if free < 1000 {
		t.Errorf("%d things were free", free)
	}
}

func TestAccountOfALargeStore(t *testing.T) {
	facts := Facts{Snapshot: &Snapshot{}, Holdings: map[ContainerID]Holding{}, Observations: map[LayerID]Observation{}, Pins: map[ImageID]Pin{}}
	s := facts.Snapshot
	for n := range 5000 {
		layer := LayerID(fmt.Sprintf("%064d", n))
		i := Image{ID: ImageID(layer), Layer: Layer{ID: layer}, LayerSizes: map[LayerID]int64{layer: 5, s0: 7}}
		s.Images = append(s.Images, i)
		s.Layers = append(s.Layers, StoredLayer{ID: layer, Bytes: 5})
		facts.Pins[i.ID], facts.Observations[layer] = Pin{Pinned: PinnedNo}, Observation{Use: UseIdle}
	}
	s.Layers = append(s.Layers, StoredLayer{ID: s0, Bytes: 7})
	begin := time.Now()
	a := AccountFor(facts, nil)
	t.Logf("accounted for %d images in %v", len(a.Images), time.Since(begin))
	if a.Total.Bytes != 5*5000+7 || a.Total.Now != a.Total.Bytes {
		t.Errorf("%+v", a.Total)
	}
}

const s0 LayerID = "shared"
