package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
)

// Bounds of the removals. Beyond those that run, they wait; beyond those that wait, they are refused.
const (
	operationsRunning = 16
	operationsWaiting = 128
	// operationsOfUser wait or run for one user who is not root.
	operationsOfUser = 32
	// resolvesAtOnce is how many callers find out at once what they have asked for.
	resolvesAtOnce = 8
)

var (
	errStopping  = errors.New("the service is stopping; nothing was changed")
	errAbandoned = errors.New("nobody waited for it any more; nothing was changed")
)

// task is what an operation does.
type task struct {
	// key is what was asked for, and how.
	key string
	// resolve says what that means now. nil is that the task may touch anything.
	resolve func(ctx context.Context) (*service.Meaning, error)
	// run does it. It ends between two actions where ctx does.
	run func(ctx context.Context, o *operation) (result, error)
	// ended, where it is set, is called at the end of an operation that was begun.
	ended func()
}

// result is what a task comes to: an outcome, of a prune with what is around it, or an examination.
type result struct {
	outcome     *service.Outcome
	pruned      *service.Pruned
	examination *service.Examination
}

// operations runs tasks. Of two that are the same there is one; two that touch the same run one after the
// other, in the order in which they came; others run side by side.
type operations struct {
	logger    *slog.Logger
	resolving *semaphore.Weighted

	// mu guards what follows, and the operations' own state where that is said.
	mu sync.Mutex
	// list is in the order in which they came.
	list     []*operation
	running  int
	stopping bool
	// empty is closed, where it is set, once the list is empty.
	empty chan struct{}
}

// operation is one task with all that wait for its end.
type operation struct {
	id string
	// by is the caller that it was begun for.
	by caller

	all    *operations
	task   task
	cancel context.CancelFunc

	// operations.mu guards these.
	touches *touches
	callers int
	running bool
	// granted is closed when it may run.
	granted chan struct{}
	// why is set where it was ended before its time.
	why error

	// mu guards the steps. It is taken alone.
	mu      sync.Mutex
	steps   []core.Progress
	changed chan struct{}

	// done is closed once result and err are set.
	done   chan struct{}
	result result
	err    error
}

// touches is what an operation touches, by full IDs: its targets, and what may go with them. nil is
// everything.
type touches struct{ targets, all map[string]bool }

func touching(m *service.Meaning) *touches {
	t := &touches{make(map[string]bool), make(map[string]bool)}
	for _, id := range m.Targets {
		t.targets[id], t.all[id] = true, true
	}
	for _, id := range m.Along {
		t.all[id] = true
	}
	return t
}

func (t *touches) overlaps(other *touches) bool {
	if t == nil || other == nil {
		return true
	}
	few, many := t.all, other.all
	if len(few) > len(many) {
		few, many = many, few
	}
	for id := range few {
		if many[id] {
			return true
		}
	}
	return false
}

// covers is whether an operation that touches t is one for another's targets, too: of the same request,
// that is, of which it may have done a part.
func (t *touches) covers(other *touches) bool {
	if t == nil || other == nil {
		return t == other
	}
	for id := range other.targets {
		if !t.targets[id] {
			return false
		}
	}
	return len(other.targets) > 0 || len(t.targets) == 0
}

func newOperations(logger *slog.Logger) *operations {
	return &operations{logger: logger, resolving: semaphore.NewWeighted(resolvesAtOnce)}
}

// enter begins an operation, or joins the one that does the same. The caller leaves it with leave.
func (a *operations) enter(ctx context.Context, by caller, t task) (o *operation, joined bool, err error) {
	var touched *touches
	if t.resolve != nil {
		if err := a.resolving.Acquire(ctx, 1); err != nil {
			return nil, false, err
		}
		meaning, err := t.resolve(ctx)
		a.resolving.Release(1)
		if err != nil {
			return nil, false, err
		}
		touched = touching(meaning)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopping {
		return nil, false, errStopping
	}
	for _, o := range a.list {
		if o.why == nil && o.task.key == t.key && o.touches.covers(touched) {
			o.callers++
			return o, true, nil
		}
	}
	if err := a.admit(by); err != nil {
		return nil, false, err
	}
	// It is nobody's alone: it ends when the last of its callers leaves.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	o = &operation{id: newID(), by: by, all: a, task: t, cancel: cancel, touches: touched, callers: 1,
		granted: make(chan struct{}), changed: make(chan struct{}), done: make(chan struct{})}
	a.list = append(a.list, o)
	a.schedule()
	go o.work(ctx, o.granted, !o.running)
	return o, false, nil
}

// admit refuses one more where too many wait. It is called with the lock.
func (a *operations) admit(by caller) error {
	if len(a.list) >= operationsRunning+operationsWaiting {
		return fmt.Errorf("%d removals run or wait already; nothing was changed: try again later", len(a.list))
	}
	if by.privileged {
		return nil
	}
	n := 0
	for _, o := range a.list {
		if o.by.UID == by.UID {
			n++
		}
	}
	if n >= operationsOfUser {
		return fmt.Errorf("%d removals of user %d run or wait already; nothing was changed: try again later", n, by.UID)
	}
	return nil
}

// schedule lets those run that may. It is called with the lock.
func (a *operations) schedule() {
	for i, o := range a.list {
		if a.running >= operationsRunning {
			return
		}
		if !o.running && a.free(i) {
			o.running = true
			a.running++
			close(o.granted)
		}
	}
}

// free is whether nothing that came before, and nothing that runs, touches the same. It is called with the
// lock.
func (a *operations) free(i int) bool {
	for k, other := range a.list {
		if k != i && (k < i || other.running) && a.list[i].touches.overlaps(other.touches) {
			return false
		}
	}
	return true
}

// work waits for its turn and does the task.
func (o *operation) work(ctx context.Context, granted <-chan struct{}, waits bool) {
	defer o.cancel()
	r, err := o.perform(ctx, granted, waits)
	// Without the lock: the last one to leave a configuration waits for what that has open.
	if o.task.ended != nil {
		o.task.ended()
	}
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	if err != nil && o.why != nil && errors.Is(err, context.Canceled) {
		err = o.why
	}
	o.result, o.err = r, err
	o.all.remove(o)
	close(o.done)
}

func (o *operation) perform(ctx context.Context, granted <-chan struct{}, waits bool) (r result, err error) {
	// Other goroutines of the engine are out of reach; what breaks in this one costs this operation.
	defer func() {
		if p := recover(); p != nil {
			o.all.logger.Error("a removal broke", "operation", o.id, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("the removal broke (%.200v); what was done before stays done: look with unmoor doctor", p)
		}
	}()
	if err := o.turn(ctx, granted, waits); err != nil {
		return r, err
	}
	return o.task.run(ctx, o)
}

// turn returns once the operation may run. What it touches may have become another thing while it waited.
func (o *operation) turn(ctx context.Context, granted <-chan struct{}, waits bool) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-granted:
		}
		if !waits || o.task.resolve == nil {
			return nil
		}
		meaning, err := o.task.resolve(ctx)
		if err != nil {
			return err
		}
		var ok bool
		if granted, ok = o.all.retouch(o, touching(meaning)); ok {
			return nil
		}
	}
}

// retouch says anew what an operation touches, which has its turn. ok is false where it has to wait for
// another one.
func (a *operations) retouch(o *operation, t *touches) (granted <-chan struct{}, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o.touches, o.running, o.granted = t, false, make(chan struct{})
	a.running--
	a.schedule()
	return o.granted, o.running
}

// remove takes an operation out of the list. It is called with the lock.
func (a *operations) remove(o *operation) {
	for i := range a.list {
		if a.list[i] == o {
			a.list = append(a.list[:i], a.list[i+1:]...)
			break
		}
	}
	if o.running {
		a.running--
	}
	a.schedule()
	if len(a.list) == 0 && a.empty != nil {
		close(a.empty)
		a.empty = nil
	}
}

// leave is that one of the callers waits no longer. After the last one it ends between two actions.
func (o *operation) leave() {
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	o.callers--
	if o.callers == 0 {
		o.end(errAbandoned)
	}
}

// end ends an operation before its time, between two actions. It is called with the lock.
func (o *operation) end(why error) {
	if o.why == nil {
		o.why = why
	}
	o.cancel()
}

// ended is why the operation was ended before its time, nil where it was not.
func (o *operation) ended() error {
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	return o.why
}

// targets lists what the operation is for, by full IDs.
func (o *operation) targets() []string {
	o.all.mu.Lock()
	defer o.all.mu.Unlock()
	if o.touches == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(o.touches.targets))
}

// stop refuses what comes, ends what runs between two actions, and waits for that.
func (a *operations) stop(ctx context.Context) error {
	a.mu.Lock()
	a.stopping = true
	for _, o := range a.list {
		o.end(errStopping)
	}
	var empty chan struct{}
	if len(a.list) > 0 {
		if a.empty == nil {
			a.empty = make(chan struct{})
		}
		empty = a.empty
	}
	a.mu.Unlock()
	if empty == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-empty:
		return nil
	}
}

// count is how many run, and how many there are in all.
func (a *operations) count() (running, all int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.running, len(a.list)
}

// tell adds a step. It may be called from several goroutines at once, and waits for nobody.
func (o *operation) tell(p core.Progress) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.steps = append(o.steps, p)
	close(o.changed)
	o.changed = make(chan struct{})
}

// stepsFrom are the steps from the nth on, and what is closed once there are more.
func (o *operation) stepsFrom(n int) ([]core.Progress, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.steps[n:len(o.steps):len(o.steps)], o.changed
}

// follow hands each step to tell, from the first one on, until the operation is done or ctx ends. tell's
// error ends it too. tell may be nil.
func (o *operation) follow(ctx context.Context, tell func(core.Progress) error) error {
	for n := 0; ; {
		steps, changed := o.stepsFrom(n)
		n += len(steps)
		for _, s := range steps {
			if tell == nil {
				break
			}
			if err := tell(s); err != nil {
				return err
			}
		}
		if len(steps) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-o.done:
			if rest, _ := o.stepsFrom(n); len(rest) == 0 {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
