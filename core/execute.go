package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Execute carries out the removals of a plan that are not blocked. There is one result a removal,
// in the plan's order.
//
// The order is what makes it safe to be killed at any instant: a container is stopped before it is
// removed, removed by its owner before the store deletes what is left, unmounted before it is
// deleted, and an image goes after the last of its containers. Each step finds the earlier ones
// done when it runs again. What fails stops its dependants only.
//
// ctx ends it between two actions; an action that has begun is completed.
func (e *Engine) Execute(ctx context.Context, plan *Plan) []Result {
	x := newExecution(e, plan)
	e.step("begin")
	x.measure(ctx)
	x.end(ctx)
	x.lookAgain(ctx)
	x.keepCompany()
	x.removeByOwners(ctx)
	x.deleteRest(ctx)
	for i := range x.results {
		x.removeImages(ctx, &x.results[i])
	}
	e.step("end")
	return x.results
}

func (e *Engine) step(name string) {
	if e.Step != nil {
		e.Step(name)
	}
}

// execution is one run of Execute.
type execution struct {
	*Engine
	plan  *Plan
	store StoreInfo

	// tasks are the containers to remove, in plan order.
	tasks []*task
	byID  map[ContainerID]*task
	// mu guards the contents of results, and failed of every task.
	mu      sync.Mutex
	results []Result
}

// task is the removal of one container, for one or several of the plan's removals.
type task struct {
	container Container
	holding   Holding
	stop      *Action
	kill      *Action
	remove    *Action
	results   []int
	bytes     int64
	// failed ends the task.
	failed bool
}

func newExecution(e *Engine, plan *Plan) *execution {
	x := &execution{Engine: e, plan: plan, store: e.Store.Info(), byID: make(map[ContainerID]*task)}
	for i, r := range plan.Removals {
		x.results = append(x.results, Result{Removal: r, Blockers: r.Blockers})
		if r.Blocked() {
			continue
		}
		for _, a := range r.Actions {
			if a.Container == "" {
				continue
			}
			t := x.byID[a.Container]
			if t == nil {
				c, ok := plan.facts.Snapshot.Container(a.Container)
				if !ok {
					continue
				}
				t = &task{container: c, holding: plan.facts.Holdings[a.Container]}
				x.byID[a.Container] = t
				x.tasks = append(x.tasks, t)
			}
			if !slices.Contains(t.results, i) {
				t.results = append(t.results, i)
			}
			switch a.Verb {
			case VerbStop:
				t.stop = &a
			case VerbKill:
				t.kill = &a
			case VerbRemove, VerbDeleteContainer:
				t.remove = &a
			case VerbUnmount, VerbUntag, VerbDeleteImage:
			}
		}
	}
	return x
}

// measure reads the sizes before the last look, so that the walk of a large layer does not stand
// between that look and the removal. They are only told to people: what cannot be read counts as 0.
func (x *execution) measure(ctx context.Context) {
	for _, t := range x.tasks {
		if bytes, err := x.Store.ContainerSize(ctx, t.container); err == nil {
			t.bytes = bytes
		}
	}
}

// end stops what has to be stopped, all owners and all containers side by side, and ends the
// processes that no owner stops.
func (x *execution) end(ctx context.Context) {
	var wg sync.WaitGroup
	stops := make(map[string][]*task)
	for _, t := range x.tasks {
		if t.stop != nil {
			stops[t.stop.Owner] = append(stops[t.stop.Owner], t)
		}
	}
	for owner, tasks := range stops {
		x.step("stop")
		wg.Go(func() { x.stopByOwner(ctx, owner, tasks) })
	}
	for _, t := range x.tasks {
		// Where the owner stops the container first, what is left is seen and ended by lookAgain.
		if t.kill != nil && t.stop == nil {
			x.step("kill")
			wg.Go(func() { x.terminate(ctx, t, *t.kill) })
		}
	}
	wg.Wait()
}

func (x *execution) stopByOwner(ctx context.Context, owner string, tasks []*task) {
	for _, t := range tasks {
		x.started(*t.stop)
	}
	// Not to be broken off: podman leaves a container whose stop was interrupted in a state of its own,
	// out of which it cannot be started. The grace period bounds it.
	outcomes := x.Owners.Stop(context.WithoutCancel(ctx), owner, x.store, handles(tasks), x.plan.request.Grace)
	x.match(tasks, outcomes, func(t *task, o Outcome) {
		if o.Err != nil {
			x.fail(t, *t.stop, o.Err)
			return
		}
		x.done(t, *t.stop)
	})
}

// match hands each task its outcome; one that the owner left out has failed.
func (x *execution) match(tasks []*task, outcomes []Outcome, with func(*task, Outcome)) {
	byID := make(map[ContainerID]Outcome)
	for _, o := range outcomes {
		byID[o.Container] = o
	}
	for _, t := range tasks {
		o, ok := byID[t.container.ID]
		if !ok {
			o = Outcome{Container: t.container.ID, Err: errors.New("the engine gave no answer about it")}
		}
		with(t, o)
	}
}

func handles(tasks []*task) []Handle {
	all := make([]Handle, len(tasks))
	for i, t := range tasks {
		all[i] = Handle{Container: t.container, Claim: t.holding.Claim}
	}
	return all
}

// terminate ends the processes of a kill.
func (x *execution) terminate(ctx context.Context, t *task, a Action) {
	x.started(a)
	if err := x.Kernel.Terminate(ctx, a.Processes, x.plan.request.Grace); err != nil {
		x.fail(t, a, err)
		return
	}
	x.done(t, a)
}

// settleTime is how long what was stopped may take to be gone: processes that are being reaped, and
// mounts that go with them.
const settleTime = 2 * time.Second

// lookAgain sees whether the containers are idle, now that they were stopped and before their owners
// remove them: an engine knows its own processes only. With force kill it ends what is left, until
// nothing new turns up.
func (x *execution) lookAgain(ctx context.Context) {
	const rounds = 3 // a process that forks faster than that is not going to be caught
	busy := x.open()
	if len(busy) == 0 {
		return
	}
	for round := 0; ; round++ {
		x.step("look")
		seen, err := x.settle(ctx, &busy)
		if err != nil {
			x.failAll(busy, err)
			return
		}
		var wg sync.WaitGroup
		var again []*task
		for _, t := range busy {
			o := seen[t.container.Layer.ID]
			left := Processes(o.Evidence)
			if o.Use != UseInUse || len(left) == 0 || x.plan.Force < ForceKill || round == rounds {
				x.fail(t, *t.remove, &BusyError{Container: t.container.ID, Observation: o, Reason: busyReason(o)})
				continue
			}
			again = append(again, t)
			x.step("kill")
			wg.Go(func() {
				x.terminate(ctx, t, Action{Verb: VerbKill, Container: t.container.ID,
					Name: displayName(t.container, t.holding), Processes: left})
			})
		}
		wg.Wait()
		busy = slices.DeleteFunc(again, func(t *task) bool { return t.failed })
		if len(busy) == 0 {
			return
		}
	}
}

// settle takes the idle containers out of busy, and waits a while for the others to become idle.
func (x *execution) settle(ctx context.Context, busy *[]*task) (seen map[LayerID]Observation, err error) {
	for end := time.Now().Add(settleTime); ; {
		seen, err = x.observe(ctx, containersOf(*busy), nil)
		if err != nil {
			return nil, err
		}
		*busy = slices.DeleteFunc(slices.Clone(*busy), func(t *task) bool {
			return seen[t.container.Layer.ID].Use == UseIdle
		})
		if len(*busy) == 0 || time.Now().After(end) {
			return seen, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// keepCompany keeps what would take a kept container along: an owner removes the company unasked.
func (x *execution) keepCompany() {
	for again := true; again; {
		again = false
		for _, t := range x.open() {
			for _, id := range t.holding.Claim.TakesAlong {
				if other := x.byID[id]; other != nil && other.failed {
					x.fail(t, *t.remove, fmt.Errorf("container %s, which goes along, is kept: %w",
						label(displayName(other.container, other.holding), string(id)), ErrStillInUse))
					again = true
					break
				}
			}
		}
	}
}

func busyReason(o Observation) string {
	if o.Use == UseInUse {
		return usedBy(o)
	}
	return unseen(o)
}

// removeByOwners has the owners remove their containers, side by side. An owner refuses a container
// that was started again meanwhile.
func (x *execution) removeByOwners(ctx context.Context) {
	removals := make(map[string][]*task)
	for _, t := range x.open() {
		if owner := t.holding.Owner(); owner != "" {
			removals[owner] = append(removals[owner], t)
		}
	}
	var wg sync.WaitGroup
	for owner, tasks := range removals {
		if err := ctx.Err(); err != nil {
			x.failAll(tasks, err)
			continue
		}
		x.step("remove")
		wg.Go(func() {
			for _, t := range tasks {
				x.started(*t.remove)
			}
			// Not to be broken off: an engine that is killed in its removal leaves the worst of both.
			outcomes := x.Owners.Remove(context.WithoutCancel(ctx), owner, x.store, handles(tasks))
			x.match(tasks, outcomes, func(t *task, o Outcome) {
				// Success is reported by deleteRest, once the store says the same.
				if o.Err != nil {
					x.fail(t, *t.remove, o.Err)
				}
			})
		})
	}
	wg.Wait()
}

// deleteRest deletes what the store still holds of the containers, after asking everybody once
// more. Anything but a plain "idle, and whose it was" keeps a container.
func (x *execution) deleteRest(ctx context.Context) {
	x.step("recheck")
	// Also where ctx has ended: what is gone is to be reported.
	snapshot, err := x.Store.Snapshot(context.WithoutCancel(ctx))
	if err != nil {
		x.failAll(x.tasks, err)
		return
	}
	present := make(map[ContainerID]Container, len(snapshot.Containers))
	for _, c := range snapshot.Containers {
		present[c.ID] = c
	}
	var rest []*task
	for _, t := range x.tasks {
		if t.failed {
			continue
		}
		c, there := present[t.container.ID]
		if !there {
			x.gone(t)
			continue
		}
		t.container = c
		rest = append(rest, t)
	}
	if len(rest) == 0 {
		return
	}
	holdings := x.claim(ctx, x.store, containersOf(rest))
	seen, err := x.observe(ctx, containersOf(rest), nil)
	if err != nil {
		x.failAll(rest, err)
		return
	}
	work := make(chan *task)
	var wg sync.WaitGroup
	for range min(deleters, len(rest)) {
		wg.Go(func() {
			for t := range work {
				err := ctx.Err()
				if err == nil {
					err = x.mayDelete(t, holdings[t.container.ID], seen[t.container.Layer.ID])
				}
				if err != nil {
					x.failUnlessGone(ctx, t, *t.remove, err)
					continue
				}
				x.delete(ctx, t)
			}
		})
	}
	for _, t := range rest {
		work <- t
	}
	close(work)
	wg.Wait()
}

// deleters is how many containers are deleted side by side. The store's lock lets one at a time
// write its records; unmounting, probing and unlinking go on beside it.
const deleters = 4

// mayDelete is the last word before a container is deleted from the store.
func (x *execution) mayDelete(t *task, h Holding, o Observation) error {
	if h.Kind == Owned && h.Owner() != t.holding.Owner() {
		return fmt.Errorf("%s claims it since the plan was made: %w", h.Owner(), ErrPlanStale)
	}
	use, reason := Judge(h, o)
	if use == UseIdle {
		return nil
	}
	// The one unknown that a force lifts: the owner cannot tell, the kernel sees nobody.
	if x.plan.Force == ForceKill && h.Kind == Owned && h.Claim.Use == UseUnknown && o.Use == UseIdle {
		return nil
	}
	return &BusyError{Container: t.container.ID, Observation: Observation{Use: use, Evidence: o.Evidence}, Reason: reason}
}

// delete proves that nothing uses the layer and nothing is mounted there, then deletes. A process
// killed between the two leaves an unmounted, idle container.
func (x *execution) delete(ctx context.Context, t *task) {
	a := *t.remove
	if a.Verb != VerbRemove {
		x.started(a)
	}
	x.step("unmount")
	unmounted, err := x.Kernel.Release(ctx, t.container.Layer)
	for _, path := range unmounted {
		x.done(t, Action{Verb: VerbUnmount, Container: t.container.ID, Name: a.Name, Detail: path})
	}
	if err != nil {
		var busy *BusyError
		if errors.As(err, &busy) && busy.Container == "" {
			busy.Container = t.container.ID
		}
		x.failUnlessGone(ctx, t, a, err)
		return
	}
	x.step("delete_container")
	// Not to be broken off: the library's deletion is quick, and half of one is garbage.
	err = x.Store.DeleteContainer(context.WithoutCancel(ctx), t.container.ID)
	if err != nil && !errors.Is(err, ErrContainerUnknown) {
		x.fail(t, a, err)
		return
	}
	x.gone(t)
}

func (x *execution) open() []*task {
	var open []*task
	for _, t := range x.tasks {
		if !t.failed {
			open = append(open, t)
		}
	}
	return open
}

func containersOf(tasks []*task) []Container {
	all := make([]Container, len(tasks))
	for i, t := range tasks {
		all[i] = t.container
	}
	return all
}

// gone ends a task with success.
func (x *execution) gone(t *task) {
	a := *t.remove
	a.Bytes = t.bytes
	x.done(t, a)
}

func (x *execution) fail(t *task, a Action, err error) {
	x.mu.Lock()
	t.failed = true
	for _, i := range t.results {
		x.results[i].Failed = append(x.results[i].Failed, Failure{a, err})
	}
	x.mu.Unlock()
	x.tell(Progress{Phase: PhaseFailed, Action: a, Err: err})
}

// failUnlessGone takes what went wrong for a success where the container is gone: somebody else, a
// second removal of the same image say, was in our way because it did the same.
func (x *execution) failUnlessGone(ctx context.Context, t *task, a Action, err error) {
	snapshot, unread := x.Store.Snapshot(ctx)
	if unread == nil {
		if _, there := snapshot.Container(t.container.ID); !there {
			x.gone(t)
			return
		}
	}
	x.fail(t, a, err)
}

func (x *execution) failAll(tasks []*task, err error) {
	for _, t := range tasks {
		if !t.failed {
			x.fail(t, *t.remove, err)
		}
	}
}

func (x *execution) started(a Action) { x.tell(Progress{Phase: PhaseStarted, Action: a}) }

// done reports an action under the first removal that asked for it, so that nothing counts twice.
func (x *execution) done(t *task, a Action) { x.doneFor(&x.results[t.results[0]], a) }

func (x *execution) doneFor(r *Result, a Action) {
	x.mu.Lock()
	r.Done = append(r.Done, a)
	r.Bytes += a.Bytes
	x.mu.Unlock()
	x.tell(Progress{Phase: PhaseFinished, Action: a})
}

func (x *execution) tell(p Progress) {
	if x.Progress != nil {
		x.Progress(p)
	}
}
