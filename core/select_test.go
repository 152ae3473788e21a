package core

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// day is when it is now in the tests of selections.
var day = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return day.Add(-d) }

// old makes all of the world a week old.
func (w *world) old() {
	for i := range w.images {
		w.images[i].Created = ago(7 * 24 * time.Hour)
	}
	for i := range w.containers {
		w.containers[i].Created = ago(7 * 24 * time.Hour)
	}
}

func (w *world) imageAt(id ImageID) *Image {
	return &w.images[slices.IndexFunc(w.images, func(i Image) bool { return i.ID == id })]
}

func (w *world) containerAt(id ContainerID) *Container {
	return &w.containers[slices.IndexFunc(w.containers, func(c Container) bool { return c.ID == id })]
}

func prune(t *testing.T, w *world, policy Policy, past map[ImageID]Past) (*Plan, []Blocker) {
	t.Helper()
	plan, kept, err := w.engine().PlanPrune(context.Background(), Prune{Policy: policy, Past: past, Now: day})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range plan.Removals {
		if r.Blocked() {
			t.Errorf("what was selected is blocked: %s", summary(r))
		}
	}
	return plan, kept
}

// taken is what a plan takes, in its order, and what was kept.
func taken(plan *Plan, kept []Blocker) string {
	var all []string
	for _, r := range plan.Removals {
		for _, a := range r.Actions {
			switch a.Verb {
			case VerbUntag, VerbUnmount:
			case VerbRemove, VerbDeleteContainer, VerbDeleteImage:
				all = append(all, string(a.Container)+string(a.Image))
			default:
				all = append(all, summary(r))
			}
		}
	}
	for _, b := range kept {
		all = append(all, fmt.Sprintf("KEPT %s %s", b.Reason, string(b.Container)+string(b.Image)))
	}
	return strings.Join(all, " ")
}

func TestSelect(t *testing.T) {
	usual := Policy{Images: ScopeDangling, Unowned: true, MinAge: 2 * time.Minute, AbandonedAge: 24 * time.Hour}
	all := usual
	all.Images = ScopeAll
	everything := all
	everything.Stopped, everything.Leftovers, everything.Builders = true, true, []string{"builder"}
	with := func(p Policy, change func(*Policy)) Policy { change(&p); return p }
	for _, tt := range []struct {
		name   string
		policy Policy
		build  func(w *world)
		want   string
	}{
		{"the zero policy takes nothing", Policy{}, func(w *world) {
			w.container("stray", w.image("img"), "")
		}, ""},
		{"dangling images, and idle containers of nobody", usual, func(w *world) {
			w.image("dangling")
			w.container("stray", w.image("img", "a:1"), "")
			w.image("named", "b:1")
		}, "dangling stray"},
		{"a dangling image with a stray container goes with it", usual, func(w *world) {
			w.container("stray", w.image("img"), "")
		}, "stray img"},
		{"a dangling image that an idle container of an engine stands on", usual, func(w *world) {
			w.container("idle", w.image("img"), "podman")
		}, ""},
		{"a stray container with a process", usual, func(w *world) {
			c := w.container("stray", w.image("img"), "")
			w.procs[c] = []Process{{PID: 5, StartTime: 1}}
		}, ""},
		{"a stray container of which the kernel cannot tell", usual, func(w *world) {
			w.blind[w.container("stray", w.image("img"), "")] = true
		}, "KEPT unknown_use stray"},
		{"what may be a container of an engine that is down", usual, func(w *world) {
			w.container("c", w.image("img"), "podman")
			w.down["podman"] = true
		}, "KEPT owner_unavailable c"},
		{"an engine that is down keeps every image", all, func(w *world) {
			w.image("a", "a:1")
			w.container("c", w.image("img", "b:1"), "podman")
			w.down["podman"] = true
		}, "KEPT owner_unavailable c KEPT owner_unavailable a"},
		{"all images without containers", all, func(w *world) {
			w.image("a", "a:1", "a:2")
			w.container("idle", w.image("b", "b:1"), "podman")
			w.start(w.container("run", w.image("c", "c:1"), "podman"), 10)
		}, "a"},
		{"children before their parents", all, func(w *world) {
			w.child("grandchild", w.child("child", w.image("base", "base:1")), "g:1")
		}, "grandchild child base"},
		{"the base of an image in use", all, func(w *world) {
			w.start(w.container("run", w.child("child", w.image("base", "base:1"), "c:1"), "podman"), 10)
		}, ""},
		{"a list goes with what it lists", all, func(w *world) {
			img := w.image("img", "a:1")
			w.images = append(w.images, Image{ID: "list", Names: []string{"l:1"}, ManifestList: true, Instances: []ImageID{img}})
		}, "list img"},
		{"a list of an image in use", all, func(w *world) {
			img := w.image("img", "a:1")
			w.images = append(w.images, Image{ID: "list", Names: []string{"l:1"}, ManifestList: true, Instances: []ImageID{img}})
			w.start(w.container("run", img, "podman"), 10)
		}, ""},
		{"an image in a list, by the usual policy", usual, func(w *world) {
			img := w.image("img")
			w.images = append(w.images, Image{ID: "list", Names: []string{"l:1"}, ManifestList: true, Instances: []ImageID{img}})
		}, ""},
		{"a mounted image", usual, func(w *world) {
			w.imageAt(w.image("img")).Layer.MountCount = 1
		}, "KEPT image_mounted img"},
		{"an image that a container mounts as a volume", all, func(w *world) {
			img := w.image("img", "a:1")
			w.claims[w.container("c", w.image("other", "o:1"), "podman")] = Claim{ImageVolumes: []ImageID{img}}
		}, ""},
		{"a protected image, a protected container", all, func(w *world) {
			w.protection = Protection{Images: []string{"a:1"}, Containers: []string{"stray"}}
			w.image("a", "a:1")
			w.container("stray", w.image("b", "b:1"), "")
		}, "KEPT protected stray KEPT protected a"},
		{"an image that is pinned, and one of which that is not known", all, func(w *world) {
			w.pins[w.image("a", "a:1")] = Pin{Pinned: PinnedYes}
			w.pins[w.image("b", "b:1")] = Pin{}
			w.image("c", "c:1")
		}, "c KEPT protected a KEPT owner_unavailable b"},
		{"an image of an additional store", all, func(w *world) {
			w.imageAt(w.image("a", "a:1")).ReadOnly = true
		}, ""},
		{"what came a minute ago", all, func(w *world) {
			w.image("a", "a:1")
			w.container("stray", w.image("b"), "")
			w.container("stray2", w.image("c"), "")
			w.old()
			w.imageAt("a").Stored = ago(time.Minute)
			w.containerAt("stray").Created = ago(23 * time.Hour)
			w.containerAt("stray2").Created = time.Time{}
		}, ""},
		{"stopped containers, and nothing of a builder", with(all, func(p *Policy) { p.Stopped, p.Builders = true, []string{"builder"} }), func(w *world) {
			img := w.image("img", "a:1")
			w.container("idle", img, "podman")
			w.container("working", img, "builder")
			w.start(w.container("run", img, "podman"), 10)
		}, "idle"},
		{"leftovers of a builder alone", with(usual, func(p *Policy) { p.Leftovers, p.Builders = true, []string{"builder"} }), func(w *world) {
			img := w.image("img", "a:1")
			w.container("idle", img, "podman")
			w.container("working", img, "builder")
			w.start(w.container("build", img, "builder"), 10)
			w.old()
			young := w.container("young", img, "builder")
			w.containerAt(young).Created = ago(time.Hour)
		}, "working"},
		{"a pod goes whole or stays whole", everything, func(w *world) {
			img := w.image("img", "a:1")
			for _, id := range []string{"infra", "app", "infra2", "app2"} {
				c := w.container(id, img, "podman")
				w.claims[c] = Claim{Group: "pod" + strings.Trim(id, "infrap")}
			}
			w.claims["infra"] = Claim{Group: "pod", TakesAlong: []ContainerID{"app"}}
			w.start("app2", 10)
		}, "infra app"},
		{"what would take a kept container along", everything, func(w *world) {
			img := w.image("img", "a:1")
			infra := w.container("infra", img, "podman")
			stray := w.container("stray", img, "")
			w.claims[infra] = Claim{TakesAlong: []ContainerID{stray}}
			w.old()
			w.containerAt(stray).Created = ago(time.Hour)
		}, ""},
		{"of one owner", with(everything, func(p *Policy) { p.Owners = []string{"podman"} }), func(w *world) {
			w.container("idle", w.image("img"), "podman")
			w.container("crio", w.image("other"), "crio")
			w.container("stray", w.image("third"), "")
		}, "idle"},
		{"of nobody", with(everything, func(p *Policy) { p.Owners = []string{"none"} }), func(w *world) {
			w.container("idle", w.image("img"), "podman")
			w.container("stray", w.image("third"), "")
		}, "stray"},
		{"by labels", with(everything, func(p *Policy) { p.Labels, p.NotLabels = []string{"a", "b=1"}, []string{"keep*"} }), func(w *world) {
			for id, labels := range map[ImageID]map[string]string{
				"fits": {"a": "x", "b": "1"}, "less": {"a": "x"}, "other": {"a": "x", "b": "2"}, "kept": {"a": "", "b": "1", "keeper": ""},
			} {
				w.imageAt(w.image(string(id), string(id)+":1")).Labels = labels
			}
			w.imageAt(w.image("unknown", "u:1")).LabelsKnown = false
			stay := w.image("stay", "s:1")
			w.claims[w.container("c", stay, "podman")] = Claim{Labels: map[string]string{"a": "1", "b": "1"}}
			w.container("d", stay, "podman")
			w.container("stray", stay, "")
		}, "fits c"},
		{"without a label that is not known", with(all, func(p *Policy) { p.NotLabels = []string{"keep"} }), func(w *world) {
			w.imageAt(w.image("unknown", "u:1")).LabelsKnown = false
			w.container("stray", w.image("known", "k:1"), "")
		}, ""},
		{"created before", with(all, func(p *Policy) { p.Until = ago(48 * time.Hour) }), func(w *world) {
			w.image("a", "a:1")
			w.image("b", "b:1")
			w.image("c", "c:1")
			w.container("stray", w.image("d", "d:1"), "")
			w.old()
			w.imageAt("b").Created = ago(48 * time.Hour)
			w.imageAt("c").Created, w.imageAt("c").Stored = time.Time{}, ago(72*time.Hour)
			w.containerAt("stray").Created = ago(47 * time.Hour)
		}, "a"},
		{"by reference", with(everything, func(p *Policy) { p.References = []string{"nginx", "quay.io/*/app:1"} }), func(w *world) {
			w.image("a", "docker.io/library/nginx:1")
			w.image("b", "quay.io/x/app:1")
			w.image("c", "quay.io/x/y/app:1")
			w.image("d")
			w.container("stray", w.image("e", "localhost/e"), "")
		}, "a b"},
		{"the newest of a repository stay", with(all, func(p *Policy) { p.Keep = 2 }), func(w *world) {
			for i := range 4 {
				w.image(fmt.Sprint("i", i), fmt.Sprintf("quay.io/app:%d", i))
			}
			w.image("both", "quay.io/app:both", "localhost/own:1")
			w.image("none")
			w.old()
			for i := range 4 {
				w.imageAt(ImageID(fmt.Sprint("i", i))).Created = ago(time.Duration(10+i) * time.Hour)
			}
		}, "i2 i3 none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			tt.build(w)
			if !slices.ContainsFunc(w.images, func(i Image) bool { return !i.Created.IsZero() }) {
				w.old()
			}
			if got := taken(prune(t, w, tt.policy, nil)); got != tt.want {
				t.Errorf("\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

// Whose last use is the oldest goes first, and no more than is wanted.
func TestSelectLeastRecentlyUsed(t *testing.T) {
	w := newWorld()
	past := make(map[ImageID]Past)
	for i, hours := range []time.Duration{5, 30, 1, 20} {
		id := w.image(fmt.Sprint("i", i), fmt.Sprintf("a:%d", i))
		past[id] = Past{Used: ago(hours * time.Hour), Seen: ago(100 * time.Hour), Unused: ago(hours * time.Hour)}
	}
	past[w.image("never", "n:1")] = Past{Seen: ago(25 * time.Hour), Unused: ago(25 * time.Hour)}
	w.image("unknown", "u:1")
	past[w.image("missed", "m:1")] = Past{Used: ago(90 * time.Hour), Seen: ago(95 * time.Hour), Unused: ago(time.Minute)}
	w.old()
	policy := Policy{Images: ScopeAll, MinAge: 2 * time.Minute}
	for wanted, want := range map[int64]string{
		1: "i1", 100: "i1", 101: "i1 never", 250: "i1 never i3", 10000: "i1 never i3 i0 i2 KEPT unknown_use unknown",
	} {
		policy.Wanted = wanted
		if got := taken(prune(t, w, policy, past)); got != want {
			t.Errorf("%d bytes:\n got %s\nwant %s", wanted, got, want)
		}
	}
	policy.Wanted, policy.UnusedFor = 0, 20*time.Hour
	if got, want := taken(prune(t, w, policy, past)), "i1 i3 never KEPT unknown_use unknown"; got != want {
		t.Errorf("unused for 20 hours:\n got %s\nwant %s", got, want)
	}
	// What the removal of one of unknown size gives free has to be seen before the next one goes.
	policy = Policy{Images: ScopeAll, Wanted: 250}
	w.imageAt("i1").LayerSizes = map[LayerID]int64{"layer-i1": -1}
	if got, want := taken(prune(t, w, policy, past)), "missed i1"; got != want {
		t.Errorf("with an unknown size:\n got %s\nwant %s", got, want)
	}
}

// A container that came, or came into use, after the plan of a prune stays, with its image.
func TestPruneAfterChanges(t *testing.T) {
	for name, change := range map[string]func(w *world){
		"a container of the image was created": func(w *world) { w.container("new", "img", "podman") },
		"the stray container came into use": func(w *world) {
			w.procs["stray"] = []Process{{PID: 5, StartTime: 1}}
		},
		"the image was named": func(w *world) { w.imageAt("img").Names = []string{"a:1"} },
	} {
		w := newWorld()
		w.container("stray", w.image("img"), "")
		w.old()
		plan, _ := prune(t, w, Policy{Images: ScopeDangling, Unowned: true}, nil)
		change(w)
		var results []Result
		synctest.Test(t, func(t *testing.T) { results = w.engine().Execute(t.Context(), plan) })
		if len(w.lost) > 0 || !w.hasImage("img") || len(results) != 1 || results[0].OK() {
			t.Errorf("%s: lost %v, %+v", name, w.lost, results)
		}
	}
}

// Whatever the facts and the policy, a selection is all that Decide allows, and takes nothing that is in
// use, or may be, protected, pinned, mounted or needed.
func FuzzSelectKeeps(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { checkSelectKeeps(t, seed) })
}

func TestSelectKeeps(t *testing.T) {
	var took int
	for seed := range uint64(20000) {
		took += checkSelectKeeps(t, seed)
	}
	if took < 10000 {
		t.Errorf("20000 selections took %d things", took)
	}
}

// calm makes most of what is in use, or may be, idle: a single doubt keeps every image.
func calm(facts Facts, pick func(int) int) {
	for _, c := range facts.Snapshot.Containers {
		if pick(10) > 0 {
			h := facts.Holdings[c.ID]
			h.Kind, h.Owners = []HoldingKind{Unowned, Owned}[pick(2)], []string{"a"}
			h.Claim.Use, h.Claim.State = UseIdle, []State{StateStopped, StateCreated}[pick(2)]
			facts.Holdings[c.ID] = h
			facts.Observations[c.Layer.ID] = Observation{Use: UseIdle}
		}
	}
	for _, i := range facts.Snapshot.Images {
		if pick(10) > 0 {
			facts.Pins[i.ID] = Pin{Pinned: PinnedNo}
		}
	}
}

func checkSelectKeeps(t *testing.T, seed uint64) (took int) {
	r := rand.New(rand.NewPCG(seed, 2))
	pick := func(n int) int { return r.IntN(n) }
	facts := randomFacts(pick)
	snapshot := facts.Snapshot
	moment := func() time.Time {
		if pick(2) == 0 {
			return ago(72 * time.Hour)
		}
		return []time.Time{{}, ago(time.Minute), ago(time.Hour), ago(48 * time.Hour), ago(-time.Hour)}[pick(5)]
	}
	if pick(5) > 0 {
		calm(facts, pick)
	}
	past := make(map[ImageID]Past)
	for n := range snapshot.Images {
		i := &snapshot.Images[n]
		i.Created, i.Stored = moment(), moment()
		i.ReadOnly = pick(10) == 0
		i.LayerSizes = map[LayerID]int64{i.Layer.ID: int64(pick(200) - 10), "shared": 10}
		if pick(8) == 0 {
			i.Layer.MountCount = 1
		}
		if n > 0 && pick(5) == 0 {
			i.Instances = []ImageID{snapshot.Images[pick(n)].ID}
		}
		if pick(3) > 0 {
			used := ago(time.Duration(pick(100)) * time.Hour)
			past[i.ID] = Past{Used: used, Seen: ago(100 * time.Hour), Unused: later(used, moment())}
		}
	}
	for n := range snapshot.Containers {
		snapshot.Containers[n].Created = moment()
		if h, ok := facts.Holdings[snapshot.Containers[n].ID]; ok && pick(3) == 0 {
			h.Claim.Group = "pod"
			facts.Holdings[snapshot.Containers[n].ID] = h
		}
	}
	policy := Policy{
		Images:  []Scope{ScopeAll, ScopeAll, ScopeDangling, ScopeNamed, ScopeNone}[pick(5)],
		Unowned: pick(4) > 0, Stopped: pick(4) > 0, Leftovers: pick(2) == 0,
		MinAge: []time.Duration{0, 2 * time.Minute}[pick(2)], AbandonedAge: []time.Duration{0, 24 * time.Hour}[pick(2)],
		Keep: []int{0, 0, 1, 2}[pick(4)], UnusedFor: []time.Duration{0, 0, 30 * time.Hour}[pick(3)],
		Wanted: []int64{0, 0, 50, 1000}[pick(4)],
	}
	if pick(3) == 0 {
		policy.Builders = []string{"a"}
	}
	if pick(4) == 0 {
		policy.NotLabels = []string{"keep=yes"}
	}
	if pick(6) == 0 {
		policy.Until = ago(24 * time.Hour)
	}
	before := fmt.Sprintf("%+v", facts)
	selection := Select(facts, past, policy, day)
	if fmt.Sprintf("%+v", facts) != before {
		t.Fatalf("seed %d: the facts were changed", seed)
	}
	if again := Select(facts, past, policy, day); fmt.Sprint(again) != fmt.Sprint(selection) {
		t.Fatalf("seed %d: again it is\n%+v, not\n%+v", seed, again, selection)
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("seed %d: %s\npolicy %+v\nselected %+v", seed, fmt.Sprintf(format, args...), policy, selection.Request)
	}
	gone := make(map[ContainerID]bool)
	goneImages := make(map[ImageID]bool)
	for _, removal := range Decide(facts, selection.Request).Removals {
		if removal.Blocked() {
			fail("blocked: %s", summary(removal))
		}
		for _, a := range removal.Actions {
			switch a.Verb {
			case VerbRemove, VerbDeleteContainer:
				gone[a.Container] = true
			case VerbDeleteImage:
				goneImages[a.Image] = true
			case VerbUnmount, VerbUntag:
			case VerbStop, VerbKill:
				fail("%s of %s", a.Verb, a.Container)
			}
		}
	}
	for id := range gone {
		c, _ := snapshot.Container(id)
		h := facts.Holdings[id]
		if use, reason := Judge(h, facts.Observations[c.Layer.ID]); use != UseIdle {
			fail("container %s goes: %s %s", id, use, reason)
		}
		if facts.Protection.container(c, h) != "" {
			fail("container %s goes and is protected", id)
		}
		if h.Kind == Unowned && !policy.Unowned || h.Kind == Owned && len(policy.Builders) == 0 && !policy.Stopped ||
			h.Kind == Owned && len(policy.Builders) > 0 && !policy.Leftovers {
			fail("container %s goes, and nobody said so: %+v", id, h)
		}
		if c.Created.IsZero() || !policy.Until.IsZero() && !c.Created.Before(policy.Until) || day.Sub(c.Created) < policy.MinAge {
			fail("container %s of %s goes", id, c.Created)
		}
		for _, mate := range snapshot.Containers {
			if m := facts.Holdings[mate.ID]; !gone[mate.ID] && h.Kind == Owned && h.Claim.Group != "" && m.Kind == Owned && m.Claim.Group == h.Claim.Group {
				fail("container %s goes, and %s of the same pod stays", id, mate.ID)
			}
		}
	}
	for id := range goneImages {
		i, _ := snapshot.Image(id)
		if detail, _ := facts.Protection.image(i); detail != "" || facts.Pins[id].Pinned != PinnedNo || i.ReadOnly || i.Layer.MountCount > 0 {
			fail("image %s goes: %s, pinned %s, %+v", id, detail, facts.Pins[id].Pinned, i)
		}
		for _, c := range snapshot.Containers {
			if h := facts.Holdings[c.ID]; !gone[c.ID] && (c.ImageID == id || slices.Contains(h.Claim.ImageVolumes, id) ||
				h.Kind == Undetermined || h.Kind == Contested) {
				fail("image %s goes, and container %s may need it", id, c.ID)
			}
		}
		for _, other := range append(snapshot.Children(id), snapshot.ListsWith(id)...) {
			if !goneImages[other] {
				fail("image %s goes, and %s needs it", id, other)
			}
		}
		p, seen := past[id]
		if (policy.Wanted > 0 || policy.UnusedFor > 0) && (!seen || day.Sub(p.Unused) < max(policy.UnusedFor, policy.MinAge)) {
			fail("image %s goes, and its past is %+v (known: %v)", id, p, seen)
		}
		if len(policy.NotLabels) > 0 && (!i.LabelsKnown || i.Labels["keep"] == "yes") {
			fail("image %s goes with labels %v, known %v", id, i.Labels, i.LabelsKnown)
		}
	}
	if n := len(selection.Request.Images); policy.Wanted > 0 && n > 1 {
		w := weigh(snapshot.Images)
		var freed int64
		for _, target := range selection.Request.Images[:n-1] {
			i, _ := snapshot.Image(target.ID)
			bytes, known := w.drop(i)
			if freed += bytes; freed >= policy.Wanted || !known {
				fail("more goes than is wanted: %d bytes by %s", freed, target.ID)
			}
		}
	}
	return len(gone) + len(goneImages)
}

// A large store is selected from in a time that nobody notices.
func TestSelectFromALargeStore(t *testing.T) {
	facts := Facts{Snapshot: &Snapshot{}, Holdings: map[ContainerID]Holding{}, Observations: map[LayerID]Observation{}, Pins: map[ImageID]Pin{}}
	const images = 2500
	for n := range images {
		i := Image{ID: ImageID(fmt.Sprintf("%064d", n)), Layer: Layer{ID: LayerID(fmt.Sprintf("%064d", n))}, Created: ago(99 * time.Hour)}
		i.Names = []string{fmt.Sprintf("localhost/app%d:1", n)}
		if n%10 > 0 {
			i.Parent = ImageID(fmt.Sprintf("%064d", n-1))
		}
		facts.Snapshot.Images = append(facts.Snapshot.Images, i)
		facts.Pins[i.ID] = Pin{Pinned: PinnedNo}
		facts.Observations[i.Layer.ID] = Observation{Use: UseIdle}
	}
	for n := range images {
		c := Container{ID: ContainerID(fmt.Sprintf("%064d", n)), ImageID: facts.Snapshot.Images[n].ID, Created: ago(99 * time.Hour),
			Layer: Layer{ID: LayerID(fmt.Sprintf("c%064d", n))}}
		facts.Snapshot.Containers = append(facts.Snapshot.Containers, c)
		facts.Holdings[c.ID] = Holding{Kind: Unowned}
		facts.Observations[c.Layer.ID] = Observation{Use: UseIdle}
	}
	begin := time.Now()
	selection := Select(facts, nil, Policy{Images: ScopeAll, Unowned: true}, day)
	t.Logf("selected %d images in %v", len(selection.Request.Images), time.Since(begin))
	if len(selection.Request.Images) != images {
		t.Errorf("selected %d", len(selection.Request.Images))
	}
}
