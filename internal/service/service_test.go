package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/unmoor/unmoor/core"
)

func TestTargetsCheck(t *testing.T) {
	some := []string{"a"}
	for _, tt := range []struct {
		targets Targets
		right   bool
	}{
		{Targets{}, false},
		{Targets{Images: some}, true}, {Targets{Containers: some}, true}, {Targets{Either: some}, true},
		{Targets{AllImages: true}, true}, {Targets{AllContainers: true}, true}, {Targets{AllImages: true, AllContainers: true}, true},
		{Targets{AllImages: true, Containers: some}, true}, {Targets{AllContainers: true, Images: some}, true},
		{Targets{AllImages: true, Images: some}, false}, {Targets{AllImages: true, Either: some}, false},
		{Targets{AllContainers: true, Containers: some}, false}, {Targets{AllContainers: true, Either: some}, false},
	} {
		if err := tt.targets.Check(); (err == nil) != tt.right {
			t.Errorf("%+v: %v", tt.targets, err)
		}
		if _, err := new(fake).local().Plan(t.Context(), Request{Targets: tt.targets}); err != nil && tt.right {
			t.Errorf("%+v: %v", tt.targets, err)
		}
	}
}

// What was asked for and what it is called belong to the plan's removals, in their order.
func TestPlanNames(t *testing.T) {
	f := &fake{shown: map[core.ContainerID]string{"c3": "ns/pod/app"}}
	f.image("aa1", "web:1", "web:2")
	f.image("bb1")
	f.container("c1", "old", "older")
	f.container("c2")
	f.container("c3", "k8s_app")
	type row struct{ id, reference, name string }
	for _, tt := range []struct {
		targets Targets
		want    []row
	}{
		{Targets{Images: []string{"web:2", "aa", "bb"}}, []row{{"aa1", "web:2", "web:2"}, {"aa1", "aa", "web:1"}, {"bb1", "bb", ""}}},
		{Targets{Containers: []string{"older", "c1", "c2", "ns/pod/app"}},
			[]row{{"c1", "older", "older"}, {"c1", "c1", "old"}, {"c2", "c2", ""}, {"c3", "ns/pod/app", "ns/pod/app"}}},
		{Targets{Either: []string{"c2", "web:1"}, Containers: []string{"old"}, Images: []string{"bb"}},
			[]row{{"bb1", "bb", ""}, {"aa1", "web:1", "web:1"}, {"c1", "old", "old"}, {"c2", "c2", ""}}},
		{Targets{AllImages: true, AllContainers: true},
			[]row{{"aa1", "web:1", "web:1"}, {"bb1", "bb1", ""}, {"c1", "c1", "old"}, {"c2", "c2", ""}, {"c3", "c3", "k8s_app"}}},
	} {
		out, err := f.local().Plan(t.Context(), Request{Targets: tt.targets})
		if err != nil {
			t.Errorf("%+v: %v", tt.targets, err)
			continue
		}
		var got []row
		for i, r := range out.Plan.Removals {
			got = append(got, row{string(r.Image) + string(r.Container), out.References[i], out.Names[i]})
		}
		if !slices.Equal(got, tt.want) || len(out.References) != len(got) || len(out.Names) != len(got) {
			t.Errorf("%+v:\n got %v\nwant %v", tt.targets, got, tt.want)
		}
		meaning, err := f.local().Resolve(t.Context(), tt.targets)
		var want []string
		for _, r := range tt.want {
			want = append(want, r.id)
		}
		if err != nil || len(meaning.Refusals) > 0 || !slices.Equal(meaning.Targets, want) {
			t.Errorf("%+v: resolved to %+v, %v", tt.targets, meaning, err)
		}
	}
}

// What goes with an image is told apart from what was asked for.
func TestMeaning(t *testing.T) {
	f := new(fake)
	f.image("aa1", "web:1")
	f.container("c1", "old")
	f.container("c2", "new")
	f.snapshot.Containers[0].ImageID = "aa1"
	meaning, err := f.local().Resolve(t.Context(), Targets{Images: []string{"web:1"}, Containers: []string{"new"}})
	if err != nil || !slices.Equal(meaning.Targets, []string{"aa1", "c2"}) || !slices.Equal(meaning.Along, []string{"c1"}) {
		t.Errorf("%+v, %v", meaning, err)
	}
}

func TestRefusals(t *testing.T) {
	f := new(fake)
	f.image("aa1")
	f.image("aa2")
	f.container("c1", "twice")
	f.container("c2", "twice")
	meaning, err := f.local().Resolve(t.Context(), Targets{
		Images: []string{"aa", "none", "boom"}, Containers: []string{"c", "nobody"}, Either: []string{"twice", "neither", "aa"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range meaning.Refusals {
		var ambiguous *core.AmbiguousError
		switch {
		case errors.As(r.Err, &ambiguous):
			if ambiguous.Reference != r.Reference {
				t.Errorf("%s is called %s", r.Reference, ambiguous.Reference)
			}
			got = append(got, r.Reference+" ambiguous")
		case errors.Is(r.Err, core.ErrImageUnknown):
			got = append(got, r.Reference+" no image")
		case errors.Is(r.Err, core.ErrContainerUnknown):
			got = append(got, r.Reference+" no container")
		default:
			got = append(got, r.Reference+" "+r.Err.Error())
		}
	}
	want := []string{"aa ambiguous", "none no image", "boom boom", "neither no image", "aa ambiguous", "c ambiguous", "nobody no container", "twice ambiguous"}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if meaning, err := f.local().Resolve(ctx, Targets{Containers: []string{"by its owner's name"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %+v, %v", meaning, err)
	}
}

// An error says that nothing was changed. Once something was, what went wrong is in the outcome.
func TestRemoveThatCannotBePlanned(t *testing.T) {
	gone := core.Interrupted{Image: core.Image{ID: "ff1", Names: []string{"gone:1"}}}
	gone.Deleted = []core.Image{gone.Image}
	for _, tt := range []struct {
		name     string
		fake     *fake
		revision string
		err      error
		problems []error
	}{
		{name: "at once", fake: &fake{snapshotErr: errBoom}, err: errBoom},
		{name: "at the plan", fake: &fake{snapshotErr: errBoom, snapshotFrom: 1}, err: errBoom},
		{name: "another plan", fake: &fake{}, revision: "r", err: core.ErrPlanStale},
		{name: "at once, after a completion", fake: &fake{snapshotErr: errBoom, completed: []core.Interrupted{gone}}, problems: []error{errBoom}},
		{name: "at the plan, after a completion", fake: &fake{snapshotErr: errBoom, snapshotFrom: 1, completed: []core.Interrupted{gone}}, problems: []error{errBoom}},
		{name: "another plan, after a completion", fake: &fake{completed: []core.Interrupted{gone}}, revision: "r", problems: []error{core.ErrPlanStale}},
		{name: "after a completion that failed", fake: &fake{completeErr: core.ErrStillInUse, snapshotErr: errBoom}, problems: []error{core.ErrStillInUse, errBoom}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := tt.fake
			f.image("aa1", "web:1")
			out, err := f.local().Remove(t.Context(), Request{Targets: Targets{Images: []string{"web:1", "none"}}, Revision: tt.revision}, nil)
			if tt.err != nil {
				if !errors.Is(err, tt.err) || out != nil {
					t.Errorf("%+v, %v", out, err)
				}
				return
			}
			if err != nil || out.Plan == nil || len(out.Plan.Removals)+len(out.References)+len(out.Names)+len(out.Results) > 0 ||
				len(out.Problems) != len(tt.problems) || len(out.Completed) != len(f.completed) {
				t.Fatalf("%+v, %v", out, err)
			}
			for i, want := range tt.problems {
				if !errors.Is(out.Problems[i], want) {
					t.Errorf("%v, want %v", out.Problems[i], want)
				}
			}
			if len(f.concluded) > 0 {
				t.Errorf("%v is concluded, and the same request would be answered in another way", f.concluded)
			}
		})
	}
}

// The rest of an interrupted deletion is listed among the images, whatever else is asked for.
func TestRemoveAddsTheRest(t *testing.T) {
	f := &fake{completed: []core.Interrupted{{Image: core.Image{ID: "ff1", Names: []string{"gone:1"}}, Rest: []core.ImageID{"aa1"}}}}
	f.image("aa1")
	f.container("c1", "old")
	j := f.local().job(Request{})
	j.complete(t.Context())
	if err := j.resolve(t.Context(), Targets{Images: []string{"gone:1"}, Containers: []string{"old"}}); err != nil {
		t.Fatal(err)
	}
	j.addRest()
	if err := j.plan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(j.outcome.References, []string{"aa1", "old"}) || len(j.outcome.Refusals) > 0 || j.outcome.Plan.Removals[1].Container != "c1" {
		t.Errorf("%+v", j.outcome)
	}
}

// Removals run side by side, each with its own progress.
func TestRemoveSideBySide(t *testing.T) {
	f := new(fake)
	for i := range 20 {
		f.container(fmt.Sprintf("c%02d", i))
	}
	local := f.local()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			id := fmt.Sprintf("c%02d", i)
			var mu sync.Mutex
			var told []string
			out, err := local.Remove(t.Context(), Request{Targets: Targets{Containers: []string{id}}}, func(p core.Progress) {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, string(p.Action.Container))
			})
			if err != nil || len(out.Results) != 1 || !out.Results[0].OK() {
				t.Errorf("%+v, %v", out, err)
			}
			if len(told) == 0 || slices.ContainsFunc(told, func(s string) bool { return s != id }) {
				t.Errorf("%s was told of %v", id, told)
			}
		})
	}
	wg.Wait()
	if len(f.snapshot.Containers) > 0 {
		t.Errorf("%+v are left", f.snapshot.Containers)
	}
}

func TestContainers(t *testing.T) {
	f := &fake{shown: map[core.ContainerID]string{"c3": "ns/pod/app"}}
	f.image("aa1", "web:1")
	f.container("c1", "old")
	f.container("c2")
	f.container("c3")
	f.snapshot.Containers[0].ImageID, f.snapshot.Containers[2].ImageID = "aa1", "aa1"
	for _, tt := range []struct {
		query ContainerQuery
		want  []core.ContainerID
		err   error
	}{
		{ContainerQuery{}, []core.ContainerID{"c1", "c2", "c3"}, nil},
		{ContainerQuery{Image: "web:1", Size: true}, []core.ContainerID{"c1", "c3"}, nil},
		{ContainerQuery{Container: "ns/pod/app"}, []core.ContainerID{"c3"}, nil},
		{ContainerQuery{Container: "old", Image: "web:1"}, []core.ContainerID{"c1"}, nil},
		{ContainerQuery{Container: "c2", Image: "web:1"}, nil, core.ErrContainerUnknown},
		{ContainerQuery{Container: "none"}, nil, core.ErrContainerUnknown},
		{ContainerQuery{Image: "none"}, nil, core.ErrImageUnknown},
	} {
		var got []core.ContainerID
		err := f.local().Containers(t.Context(), tt.query, func(c Container) error {
			got = append(got, c.ID)
			if (c.Size != nil) != tt.query.Size || c.Names == nil || c.Owners == nil || c.Evidence == nil || (c.ImageID != "") != (c.Image != "") {
				t.Errorf("%+v: %+v", tt.query, c)
			}
			return nil
		})
		if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
			t.Errorf("%+v: %v, %v", tt.query, got, err)
		}
	}
	n := 0
	if err := f.local().Containers(t.Context(), ContainerQuery{}, func(Container) error { n++; return errBoom }); !errors.Is(err, errBoom) || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}

// What was repaired stays told when a look afterwards fails.
func TestRepairWithoutASecondLook(t *testing.T) {
	f := &fake{litter: core.Litter{Unreferenced: []core.LitterLayer{{Layer: core.Layer{ID: "55bb"}}}}, examineErr: errBoom, examineFrom: 4}
	e, err := f.local().Examine(t.Context(), ExamineRequest{Repair: true, Names: []string{"/nowhere"}})
	if err != nil || len(e.Findings) > 0 || !slices.Equal(e.UnknownNames, []string{"/nowhere"}) || len(e.Silences) != 1 {
		t.Fatalf("%+v, %v", e, err)
	}
	f.examines = 0
	e, err = f.local().Examine(t.Context(), ExamineRequest{Repair: true})
	if err != nil || len(e.Findings) != 1 {
		t.Fatalf("%+v, %v", e, err)
	}
	if v := e.Findings[0]; !v.Repaired || !errors.Is(v.Err, errBoom) || !strings.Contains(v.Err.Error(), "after the repair") {
		t.Errorf("%+v", v)
	}
	f.examineFrom, f.examines = 0, 0
	if e, err := f.local().Examine(t.Context(), ExamineRequest{Repair: true}); !errors.Is(err, errBoom) {
		t.Errorf("%+v, %v", e, err)
	}
}
