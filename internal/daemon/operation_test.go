package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/wire"
)

var root = caller{privileged: true}

func ordinary(uid int) caller { return caller{Peer: wire.Peer{UID: uid}} }

func quietOperations() *operations { return newOperations(slog.New(slog.DiscardHandler)) }

// stage is a task that says when it begins and ends when it is told to, or its ctx does.
type stage struct {
	task
	begun, proceed chan struct{}
	outcome        *service.Outcome
}

func newStage(key string, ids ...string) *stage {
	s := &stage{begun: make(chan struct{}), proceed: make(chan struct{}), outcome: &service.Outcome{Names: []string{key}}}
	s.task = task{key: key, run: func(ctx context.Context, o *operation) (result, error) {
		close(s.begun)
		select {
		case <-ctx.Done():
			return result{}, fmt.Errorf("work: %w", ctx.Err())
		case <-s.proceed:
			return result{outcome: s.outcome}, nil
		}
	}}
	if len(ids) > 0 {
		s.resolve = func(context.Context) (*service.Meaning, error) { return &service.Meaning{Targets: ids}, nil }
	}
	return s
}

func enter(t *testing.T, a *operations, by caller, s *stage) *operation {
	t.Helper()
	o, _, err := a.enter(t.Context(), by, s.task)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// granted is whether the operation may run; that is decided before enter returns.
func granted(o *operation) bool {
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	return o.running
}

func TestSameIsOneOperation(t *testing.T) {
	a := quietOperations()
	s := newStage("remove web", "1", "2")
	first := enter(t, a, root, s)
	<-s.begun
	first.tell(core.Progress{Phase: core.PhaseStarted})
	second, joined, err := a.enter(t.Context(), ordinary(7), newStage("remove web", "2", "1").task)
	if err != nil || !joined || second != first {
		t.Fatalf("a second operation was begun (joined %v, %v)", joined, err)
	}
	for _, other := range []*stage{newStage("remove --force web", "1", "2"), newStage("remove web", "1", "3")} {
		if o := enter(t, a, root, other); o == first {
			t.Errorf("%s of other things is the same operation", other.key)
		}
	}
	var steps [2]int
	var wg sync.WaitGroup
	for i := range steps {
		wg.Go(func() {
			if err := first.follow(t.Context(), func(core.Progress) error { steps[i]++; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	first.tell(core.Progress{Phase: core.PhaseFinished})
	close(s.proceed)
	wg.Wait()
	if first.result.outcome != s.outcome || first.err != nil || steps != [2]int{2, 2} {
		t.Errorf("outcome %v, error %v, steps %v", first.result.outcome, first.err, steps)
	}
	third, joined, err := a.enter(t.Context(), root, newStage("remove web", "1", "2").task)
	if err != nil || joined || third == first {
		t.Errorf("what comes after the end joined it (%v)", err)
	}
}

// TestTouches: what may go with a target keeps others waiting, and does not make another request of one.
func TestTouches(t *testing.T) {
	touch := func(targets, along []string) *touches {
		return touching(&service.Meaning{Targets: targets, Along: along})
	}
	image, container := touch([]string{"web"}, []string{"c1", "c2"}), touch([]string{"c2"}, nil)
	far, none := touch([]string{"db"}, []string{"c3"}), touch(nil, nil)
	for name, tt := range map[string]struct {
		a, b            *touches
		overlap, covers bool
	}{
		"itself":                          {image, image, true, true},
		"its container":                   {image, container, true, false},
		"another image":                   {image, far, false, false},
		"with fewer containers by now":    {image, touch([]string{"web"}, []string{"c2"}), true, true},
		"with one more container":         {image, touch([]string{"web"}, []string{"c1", "c2", "c4"}), true, true},
		"the rest of several":             {touch([]string{"web", "db"}, nil), touch([]string{"db"}, nil), true, true},
		"another image of the name":       {image, touch([]string{"web2"}, []string{"c1"}), true, false},
		"nothing any more":                {image, none, false, false},
		"nothing of nothing":              {none, none, false, true},
		"everything and something":        {nil, image, true, false},
		"everything and everything":       {nil, nil, true, true},
		"something and everything":        {far, nil, true, false},
		"everything and nothing, so wait": {nil, none, true, false},
	} {
		if got := tt.a.overlaps(tt.b); got != tt.overlap || tt.b.overlaps(tt.a) != got {
			t.Errorf("%s: overlaps %v", name, got)
		}
		if got := tt.a.covers(tt.b); got != tt.covers {
			t.Errorf("%s: covers %v", name, got)
		}
	}
}

func TestOverlappingWait(t *testing.T) {
	a := quietOperations()
	one, two, both, far, all := newStage("a", "1"), newStage("b", "2"), newStage("c", "1", "2"), newStage("d", "3"), newStage("repair")
	o1, o2 := enter(t, a, root, one), enter(t, a, root, two)
	<-one.begun
	<-two.begun
	o3 := enter(t, a, root, both)
	o4 := enter(t, a, root, far)
	<-far.begun // side by side with the others
	oAll := enter(t, a, root, all)
	late := newStage("e", "4")
	oLate := enter(t, a, root, late)
	for name, o := range map[string]*operation{"overlapping": o3, "touching everything": oAll, "behind what touches everything": oLate} {
		if granted(o) {
			t.Errorf("one that is %s runs", name)
		}
	}
	close(one.proceed)
	<-o1.done
	if granted(o3) {
		t.Error("one runs although what it touches is touched")
	}
	close(two.proceed)
	<-o2.done
	<-both.begun
	close(both.proceed)
	close(far.proceed)
	<-o3.done
	<-o4.done
	<-all.begun
	if granted(oLate) {
		t.Error("one runs beside what touches everything")
	}
	close(all.proceed)
	<-oAll.done
	<-late.begun
	close(late.proceed)
	<-oLate.done
	if running, all := a.count(); running != 0 || all != 0 {
		t.Errorf("%d run, %d are left", running, all)
	}
}

// TestNobodyOvertakes: one that waits is not passed for ever by those that overlap with it.
func TestNobodyOvertakes(t *testing.T) {
	a := quietOperations()
	one, both, two := newStage("a", "1"), newStage("b", "1", "2"), newStage("c", "2")
	o1 := enter(t, a, root, one)
	oBoth, o2 := enter(t, a, root, both), enter(t, a, root, two)
	if granted(o2) {
		t.Error("one that came later runs first, and touches the same")
	}
	close(one.proceed)
	<-o1.done
	<-both.begun
	if granted(o2) {
		t.Error("two run that touch the same")
	}
	close(both.proceed)
	<-oBoth.done
	<-two.begun
	close(two.proceed)
	<-o2.done
}

// TestResolvedAnew: what a name means may have changed while the operation waited.
func TestResolvedAnew(t *testing.T) {
	a := quietOperations()
	one, two := newStage("a", "1"), newStage("b", "2")
	o1, o2 := enter(t, a, root, one), enter(t, a, root, two)
	moved := newStage("c")
	answers := [][]string{{"1"}, {"2"}, {"2"}}
	asked := make(chan struct{}, len(answers))
	moved.resolve = func(context.Context) (*service.Meaning, error) {
		defer func() { asked <- struct{}{} }()
		ids := answers[0]
		answers = answers[1:]
		return &service.Meaning{Targets: ids}, nil
	}
	o := enter(t, a, root, moved)
	<-asked
	close(one.proceed)
	<-o1.done
	<-asked // it has its turn, and means what the second one touches now
	for granted(o) {
		runtime.Gosched()
	}
	if isClosed(moved.begun) {
		t.Error("it runs beside what touches the same")
	}
	close(two.proceed)
	<-o2.done
	<-moved.begun
	close(moved.proceed)
	<-o.done
	if o.err != nil || len(answers) != 0 {
		t.Errorf("error %v; %d answers were not asked for", o.err, len(answers))
	}
}

func TestLastCallerLeaves(t *testing.T) {
	a := quietOperations()
	s := newStage("a", "1")
	o := enter(t, a, root, s)
	<-s.begun
	if _, joined, err := a.enter(t.Context(), root, newStage("a", "1").task); !joined || err != nil {
		t.Fatal("not joined", err)
	}
	waiting := newStage("b", "1")
	oWaiting := enter(t, a, root, waiting)
	o.leave()
	if o.ended() != nil {
		t.Fatal("it was ended although a caller waits")
	}
	o.leave()
	again := newStage("a", "1")
	oAgain, joined, err := a.enter(t.Context(), root, again.task)
	if err != nil || joined {
		t.Fatalf("one that is being ended was joined (%v)", err)
	}
	<-o.done
	if !errors.Is(o.err, errAbandoned) {
		t.Errorf("the error is %v", o.err)
	}
	oWaiting.leave()
	<-oWaiting.done
	if !errors.Is(oWaiting.err, errAbandoned) && isClosed(waiting.begun) {
		t.Errorf("one that waited and was left: %v", oWaiting.err)
	}
	<-again.begun
	close(again.proceed)
	<-oAgain.done
	if oAgain.err != nil {
		t.Error(oAgain.err)
	}
}

// TestFollowEnds: a caller that goes away, or whose answer cannot be written, follows no longer.
func TestFollowEnds(t *testing.T) {
	a := quietOperations()
	s := newStage("a", "1")
	o := enter(t, a, root, s)
	<-s.begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := o.follow(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	o.tell(core.Progress{})
	broken := errors.New("broken pipe")
	if err := o.follow(t.Context(), func(core.Progress) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	close(s.proceed)
	<-o.done
}

func TestStop(t *testing.T) {
	a := quietOperations()
	s := newStage("a", "1")
	o := enter(t, a, root, s)
	<-s.begun
	waiting := enter(t, a, root, newStage("b", "1"))
	if err := a.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, o := range []*operation{o, waiting} {
		if <-o.done; !errors.Is(o.err, errStopping) {
			t.Errorf("ended with %v", o.err)
		}
	}
	if _, _, err := a.enter(t.Context(), root, newStage("c", "3").task); !errors.Is(err, errStopping) {
		t.Errorf("one that comes after: %v", err)
	}
}

func TestStopWaitsNoLongerThanItsContext(t *testing.T) {
	a := quietOperations()
	release := make(chan struct{})
	begun := make(chan struct{})
	o, _, err := a.enter(t.Context(), root, task{key: "deaf", run: func(context.Context, *operation) (result, error) {
		close(begun)
		<-release
		return result{outcome: &service.Outcome{}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	<-o.done
	if o.err != nil || o.result.outcome == nil {
		t.Errorf("what was done to the end has the error %v", o.err)
	}
}

func TestBounds(t *testing.T) {
	a := quietOperations()
	release := make(chan struct{})
	var all []*operation
	blocked := func(i int) task {
		id := fmt.Sprint(i)
		return task{key: id, resolve: func(context.Context) (*service.Meaning, error) { return &service.Meaning{Targets: []string{id}}, nil },
			run: func(context.Context, *operation) (result, error) { <-release; return result{}, nil }}
	}
	for i := range operationsOfUser {
		o, _, err := a.enter(t.Context(), ordinary(7), blocked(i))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	if _, _, err := a.enter(t.Context(), ordinary(7), blocked(1000)); err == nil || !strings.Contains(err.Error(), "user 7") {
		t.Errorf("one user's %dth removal: %v", operationsOfUser+1, err)
	}
	if running, n := a.count(); running != operationsRunning || n != operationsOfUser {
		t.Errorf("%d of %d run", running, n)
	}
	for i := operationsOfUser; i < operationsRunning+operationsWaiting; i++ {
		o, _, err := a.enter(t.Context(), root, blocked(i))
		if err != nil {
			t.Fatalf("root's, with %d before: %v", i, err)
		}
		all = append(all, o)
	}
	if _, _, err := a.enter(t.Context(), root, blocked(1001)); err == nil {
		t.Error("there is no bound")
	}
	close(release)
	for _, o := range all {
		<-o.done
	}
	if running, n := a.count(); running != 0 || n != 0 {
		t.Errorf("%d run, %d are left", running, n)
	}
}

// TestBrokenTask: a panic costs its operation, not the process.
func TestBrokenTask(t *testing.T) {
	a := quietOperations()
	o, _, err := a.enter(t.Context(), root, task{key: "x", run: func(context.Context, *operation) (result, error) { panic("at the disco") }})
	if err != nil {
		t.Fatal(err)
	}
	<-o.done
	if o.err == nil || !strings.Contains(o.err.Error(), "at the disco") {
		t.Errorf("the error is %v", o.err)
	}
	s := newStage("x")
	next := enter(t, a, root, s)
	<-s.begun
	close(s.proceed)
	<-next.done
}

// TestManyAtOnce: whatever comes and goes, two that touch the same never run at once, and all end.
func TestManyAtOnce(t *testing.T) {
	a := quietOperations()
	var mu sync.Mutex
	busy := make(map[string]bool)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 40 {
				ids := []string{fmt.Sprint((w + i) % 5), fmt.Sprint((w * i) % 7)}
				if w == 0 && i%10 == 0 {
					ids = nil
				}
				tk := task{key: fmt.Sprint(w, i), run: func(ctx context.Context, o *operation) (result, error) {
					mu.Lock()
					for _, id := range ids {
						if busy[id] {
							t.Errorf("two touch %s", id)
						}
					}
					if ids == nil && len(busy) > 0 {
						t.Errorf("one that touches everything runs beside %v", busy)
					}
					for _, id := range ids {
						busy[id] = true
					}
					mu.Unlock()
					o.tell(core.Progress{})
					mu.Lock()
					for _, id := range ids {
						delete(busy, id)
					}
					mu.Unlock()
					return result{}, nil
				}}
				if ids != nil {
					tk.resolve = func(context.Context) (*service.Meaning, error) {
						return &service.Meaning{Along: slices.Clone(ids)}, nil
					}
				}
				o, _, err := a.enter(t.Context(), root, tk)
				if err != nil {
					t.Error(err)
					return
				}
				if i%3 == 0 {
					o.leave()
				} else if err := o.follow(t.Context(), nil); err != nil {
					t.Error(err)
				}
				<-o.done
			}
		})
	}
	wg.Wait()
}
