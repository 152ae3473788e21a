package service

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func TestPrunePolicy(t *testing.T) {
	usual := core.Policy{Images: core.ScopeDangling, Unowned: true, Builders: []string{"buildah"}, MinAge: time.Minute, AbandonedAge: time.Hour}
	with := func(change func(*core.Policy)) core.Policy { p := usual; change(&p); return p }
	day := 24 * time.Hour
	cleaning := Cleaning{MinAge: time.Minute, AbandonedAge: time.Hour, Builders: []string{"buildah"}}
	for name, tt := range map[string]struct {
		request PruneRequest
		want    core.Policy
	}{
		"the zero value": {PruneRequest{}, usual},
		"all":            {PruneRequest{All: true, Keep: 3, UnusedFor: day}, with(func(p *core.Policy) { p.Images, p.Keep, p.UnusedFor = core.ScopeAll, 3, day })},
		"containers":     {PruneRequest{Stopped: true, BuildLeftovers: true}, with(func(p *core.Policy) { p.Stopped, p.Leftovers = true, true })},
		"other ages":     {PruneRequest{MinAge: new(time.Duration), AbandonedAge: &day}, with(func(p *core.Policy) { p.MinAge, p.AbandonedAge = 0, day })},
		"what is full":   {PruneRequest{WhenFull: true}, with(func(p *core.Policy) { p.Images, p.Unowned = core.ScopeAll, false })},
		"until":          {PruneRequest{Filters: []string{"until=36h"}}, with(func(p *core.Policy) { p.Until = noon.Add(-36 * time.Hour) })},
		"labels": {PruneRequest{Filters: []string{"label=a", "label=b=1=2", "label!=c", "label=d="}},
			with(func(p *core.Policy) { p.Labels, p.NotLabels = []string{"a", "b=1=2", "d="}, []string{"c"} })},
		"references": {PruneRequest{Filters: []string{"reference=quay.io/*", "reference=b"}, All: true},
			with(func(p *core.Policy) {
				p.Images, p.References, p.Unowned = core.ScopeAll, []string{"quay.io/*", "b"}, false
			})},
		"dangling":     {PruneRequest{Filters: []string{"dangling=1"}, All: true}, with(func(p *core.Policy) { p.Unowned = false })},
		"not dangling": {PruneRequest{Filters: []string{"dangling=false"}, All: true}, with(func(p *core.Policy) { p.Images, p.Unowned = core.ScopeNamed, false })},
		"owners": {PruneRequest{Filters: []string{"owner=crio", "owner=none"}, Stopped: true},
			with(func(p *core.Policy) {
				p.Images, p.Stopped, p.Owners = core.ScopeNone, true, []string{"crio", "none"}
			})},
	} {
		got, err := tt.request.policy(cleaning, noon)
		if err != nil || cmp.Diff(tt.want, got) != "" {
			t.Errorf("%s: %v %s", name, err, cmp.Diff(tt.want, got))
		}
	}
	for name, r := range map[string]PruneRequest{
		"to keep some without all":            {Keep: 1},
		"to keep fewer than none":             {Keep: -1, All: true},
		"a negative age":                      {UnusedFor: -1},
		"containers of what is full":          {WhenFull: true, Stopped: true},
		"an owner of images":                  {All: true, Filters: []string{"owner=crio"}},
		"an owner and a reference":            {Filters: []string{"owner=crio", "reference=x"}},
		"a reference and an owner":            {Filters: []string{"reference=x", "owner=crio"}},
		"a reference of containers":           {Stopped: true, Filters: []string{"reference=x"}},
		"dangling containers":                 {BuildLeftovers: true, Filters: []string{"dangling=true"}},
		"those with names, and not all":       {Filters: []string{"dangling=false"}},
		"two moments":                         {Filters: []string{"until=1h", "until=2h"}},
		"no moment":                           {Filters: []string{"until=yesterday"}},
		"no truth":                            {Filters: []string{"dangling=perhaps"}},
		"no pattern":                          {Filters: []string{"reference=["}},
		"no key":                              {Filters: []string{"=x"}},
		"an unknown key":                      {Filters: []string{"name=x"}},
		"no value":                            {Filters: []string{"until="}},
		"no label":                            {Filters: []string{"label=="}},
		"no filter":                           {Filters: []string{"until"}},
		"thresholds the wrong way round":      {WhenFull: true, Thresholds: &core.Thresholds{High: 80, Low: 85}},
		"a threshold of more than everything": {WhenFull: true, Thresholds: &core.Thresholds{High: 101, Low: 85}},
	} {
		if err := r.Check(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := new(fake).local().Prune(t.Context(), r, nil); err == nil {
			t.Errorf("%s: pruned", name)
		}
	}
}

func TestParseMoment(t *testing.T) {
	for text, want := range map[string]time.Time{
		"10m": noon.Add(-10 * time.Minute), "1w2d3h": noon.Add(-(9*24 + 3) * time.Hour), "0": noon, "0s": noon,
		"2026-05-01":                  time.Date(2026, 5, 1, 0, 0, 0, 0, time.Local),
		"2026-05-01T10:00":            time.Date(2026, 5, 1, 10, 0, 0, 0, time.Local),
		"2026-05-01T10:00:00Z":        time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC),
		"2026-05-01T10:00:00.5+02:00": time.Date(2026, 5, 1, 8, 0, 0, 5e8, time.UTC),
		"2026-05-01Z":                 time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
		"1767225600":                  time.Unix(1767225600, 0),
		"1767225600.25":               time.Unix(1767225600, 25e7),
	} {
		if got, err := parseMoment(text, noon); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1h", "1y", "d", "2026-13-01", "1.0000000001", "99999999999999", "1e9", "-5", "99999999d"} {
		if got, err := parseMoment(text, noon); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// old is a store whose things came long ago.
func (f *fake) old() {
	for i := range f.snapshot.Images {
		f.snapshot.Images[i].Created = noon
	}
	for i := range f.snapshot.Containers {
		f.snapshot.Containers[i].Created = noon
	}
}

// journal is a double that knows of every image, and used each some hours ago by its place.
type journal struct {
	*fake
	keeps   []bool
	problem error
}

func (j *journal) Past(ctx context.Context, _ func(context.Context) (*core.Snapshot, error), keep bool) (map[core.ImageID]core.Past, error, error) {
	j.keeps = append(j.keeps, keep)
	past := make(map[core.ImageID]core.Past)
	for n, i := range j.snapshot.Images {
		at := noon.Add(time.Duration(n) * time.Hour)
		past[i.ID] = core.Past{Used: at, Seen: noon, Unused: at}
	}
	return past, j.problem, nil
}

func takes(p *Pruned) string {
	var all []string
	for i, r := range p.Plan.Removals {
		all = append(all, fmt.Sprintf("%s %s=%s", string(r.Image)+string(r.Container), p.References[i], p.Names[i]))
	}
	return strings.Join(all, ", ")
}

func TestPrune(t *testing.T) {
	f := &fake{completed: []core.Interrupted{{Image: core.Image{ID: "gone"}, Deleted: []core.Image{{ID: "gone", Names: []string{"g:1"}}}}}}
	f.image("aa1")
	f.image("bb1", "b:1")
	f.container("c1", "old")
	f.old()
	l := f.local()
	j := &journal{fake: f, problem: errBoom}
	l.Journal = j
	if lost, err := l.PlanPrune(t.Context(), PruneRequest{UnusedFor: time.Hour}); err != nil || len(lost.Problems) != 1 || !errors.Is(lost.Problems[0], errBoom) {
		t.Errorf("a past that is lost: %v %+v", err, lost)
	}
	planned, err := l.PlanPrune(t.Context(), PruneRequest{})
	if err != nil || takes(planned) != "aa1 aa1=, c1 c1=old" || planned.Bytes != 101 || planned.AtLeast || planned.Results != nil || planned.After != nil {
		t.Fatalf("%v %+v", err, planned)
	}
	if len(f.snapshot.Images) != 2 || len(f.concluded) > 0 || len(planned.Problems) > 0 {
		t.Errorf("planning has changed something: %+v, %+v", f.snapshot, planned.Problems)
	}
	if _, err := l.Prune(t.Context(), PruneRequest{Revision: strings.Repeat("0", 64)}, nil); err != nil {
		t.Fatal(err) // the interrupted one was completed before
	}
	if len(f.snapshot.Images) != 2 {
		t.Error("a plan of another revision was carried out")
	}
	f.completed, j.problem = nil, nil
	if _, err := l.Prune(t.Context(), PruneRequest{Revision: strings.Repeat("0", 64)}, nil); !errors.Is(err, core.ErrPlanStale) {
		t.Errorf("another revision: %v", err)
	}
	steps := 0
	done, err := l.Prune(t.Context(), PruneRequest{Revision: planned.Plan.Revision}, func(core.Progress) { steps++ })
	if err != nil || takes(done) != takes(planned) || len(done.Results) != 2 || !done.Results[0].OK() || !done.Results[1].OK() || steps == 0 {
		t.Errorf("%v %+v", err, done)
	}
	if len(f.snapshot.Images) != 1 || len(f.snapshot.Containers) != 0 {
		t.Errorf("there is %+v", f.snapshot)
	}
	if fmt.Sprint(j.keeps) != "[false false true true true]" {
		t.Errorf("the looks were kept: %v", j.keeps)
	}
}

// What an earlier process was killed in is completed, reported once and concluded.
func TestPruneCompletes(t *testing.T) {
	f := &fake{completed: []core.Interrupted{{Image: core.Image{ID: "gone"}, Deleted: []core.Image{{ID: "gone", Names: []string{"g:1"}}}}}}
	done, err := f.local().Prune(t.Context(), PruneRequest{}, nil)
	if err != nil || len(done.Completed) != 1 || done.Completed[0].Names[0] != "g:1" || fmt.Sprint(f.concluded) != "[gone]" || len(done.Plan.Removals) != 0 {
		t.Errorf("%v %+v, concluded %v", err, done, f.concluded)
	}
	f.snapshotErr = errBoom
	if done, err = f.local().Prune(t.Context(), PruneRequest{}, nil); err != nil || !errors.Is(done.Problems[0], errBoom) {
		t.Errorf("and then the store cannot be read: %v %+v", err, done)
	}
	f.completed = nil
	if _, err = f.local().Prune(t.Context(), PruneRequest{}, nil); !errors.Is(err, errBoom) {
		t.Errorf("the store cannot be read: %v", err)
	}
}

// full is a disk that every image fills by a part.
func (f *fake) full(capacity, perImage int64) func() (core.Disk, error) {
	return func() (core.Disk, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return core.Disk{Capacity: capacity, Available: capacity - perImage*int64(len(f.snapshot.Images))}, nil
	}
}

func TestPruneWhenFull(t *testing.T) {
	store := func() (*fake, *Local) {
		f := new(fake)
		for n := range 9 {
			f.image(fmt.Sprint("i", n), fmt.Sprintf("a:%d", n))
		}
		f.old()
		l := f.local()
		l.Journal, l.Cleaning.Thresholds = &journal{fake: f}, core.Thresholds{High: 85, Low: 70}
		return f, l
	}
	request := PruneRequest{WhenFull: true}

	// Each image gives free what it should: one round.
	f, l := store()
	l.disk = f.full(1000, 100)
	planned, err := l.PlanPrune(t.Context(), request)
	if err != nil || planned.Wanted != 200 || takes(planned) != "i0 a:0=a:0, i1 a:1=a:1" {
		t.Fatalf("%v %+v", err, planned)
	}
	done, err := l.Prune(t.Context(), request, nil)
	if err != nil || takes(done) != takes(planned) || done.Disk.Available != 100 || done.After.Available != 300 {
		t.Errorf("%v %+v", err, done)
	}
	// Now it is not full.
	done, err = l.Prune(t.Context(), request, nil)
	if err != nil || done.Wanted != 0 || len(done.Plan.Removals) > 0 || done.After != nil || len(f.snapshot.Images) != 7 {
		t.Errorf("%v %+v", err, done)
	}
	if looks := l.Journal.(*journal).keeps; !looks[len(looks)-1] || len(looks) != 3 {
		t.Errorf("where it is not full, the use of images is looked at all the same: %v", looks)
	}
	if _, err := l.PlanPrune(t.Context(), PruneRequest{WhenFull: true, Revision: planned.Plan.Revision}); !errors.Is(err, core.ErrPlanStale) {
		t.Errorf("the plan of what is full no more: %v", err)
	}

	// They give free less than is recorded: more rounds, until it is not too full.
	f, l = store()
	l.disk = func() (core.Disk, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		return core.Disk{Capacity: 1000, Available: 150 + 30*int64(9-len(f.snapshot.Images))}, nil
	}
	done, err = l.Prune(t.Context(), request, nil)
	if err != nil || len(done.Plan.Removals) != 5 || len(done.Results) != 5 || done.After.Available != 300 || done.Bytes != 500 || len(done.Names) != 5 {
		t.Errorf("%v %s %+v", err, takes(done), done)
	}
	// With a revision there is the one plan that was looked at.
	f, l = store()
	l.disk = func() (core.Disk, error) { return core.Disk{Capacity: 1000, Available: 50}, nil }
	if planned, err = l.PlanPrune(t.Context(), request); err != nil || len(planned.Plan.Removals) != 3 {
		t.Fatalf("%v %+v", err, planned)
	}
	done, err = l.Prune(t.Context(), PruneRequest{WhenFull: true, Revision: planned.Plan.Revision}, nil)
	if err != nil || takes(done) != takes(planned) || len(f.snapshot.Images) != 6 {
		t.Errorf("%v %+v", err, done)
	}
	// Nothing helps: all of it goes, and it ends.
	done, err = l.Prune(t.Context(), request, nil)
	if err != nil || len(f.snapshot.Images) != 0 || done.After.Used() != 95 {
		t.Errorf("%v %+v", err, done)
	}
	// What cannot be deleted is not tried again and again.
	f, l = store()
	f.deleteErr = errBoom
	l.disk = f.full(1000, 100)
	done, err = l.Prune(t.Context(), request, nil)
	if err != nil || len(done.Results) != 2 || done.Results[0].OK() {
		t.Errorf("%v %+v", err, done)
	}
	// Nothing is known of the past, or of the disk.
	f, l = store()
	l.disk, l.Journal = f.full(1000, 100), nil
	done, err = l.Prune(t.Context(), request, nil)
	if err != nil || len(done.Results) > 0 || len(done.Kept) != 9 || done.Kept[0].Reason != core.ReasonUnknownUse {
		t.Errorf("%v %+v", err, done)
	}
	l.disk = func() (core.Disk, error) { return core.Disk{}, errBoom }
	if _, err := l.Prune(t.Context(), request, nil); !errors.Is(err, errBoom) {
		t.Errorf("a disk that cannot be measured: %v", err)
	}
}

// A filter by labels, where no labels are read, must not pass for one that fits nothing, nor everything.
func TestPruneByLabelsThatAreNotRead(t *testing.T) {
	f := new(fake)
	f.image("aa1")
	f.old()
	for _, filter := range []string{"label=keep", "label!=keep"} {
		if _, err := f.local().PlanPrune(t.Context(), PruneRequest{Filters: []string{filter}}); err == nil || !strings.Contains(err.Error(), "labels") {
			t.Errorf("%s: %v", filter, err)
		}
	}
}

func TestUsage(t *testing.T) {
	f := new(fake)
	f.image("aa1")
	f.container("c1")
	l := f.local()
	l.disk = f.full(1000, 100)
	u, err := l.Usage(t.Context())
	if err != nil || u.Disk.Available != 900 || len(u.Account.Images) != 1 || len(u.Account.Containers) != 1 || u.Time.IsZero() {
		t.Errorf("%v %+v", err, u)
	}
	l.disk = func() (core.Disk, error) { return core.Disk{}, errBoom }
	if u, err = l.Usage(t.Context()); err != nil || u.Disk != nil {
		t.Errorf("%v %+v", err, u)
	}
	f.snapshotErr = errBoom
	if _, err := l.Usage(t.Context()); !errors.Is(err, errBoom) {
		t.Errorf("%v", err)
	}
}
