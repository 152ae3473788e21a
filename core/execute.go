package core

import (
	"context"
	"errors"
	"slices"
	"sync"
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
	measured := x.measure(ctx)
	x.end(ctx)
	measured()
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
	// results are the removals that fail with it: those that it is for, the first of which reports it,
	// and those that rest on its being gone.
	results []int
	// bytes is its size, -1 where that is not known.
	bytes int64
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
				t = &task{container: c, holding: plan.facts.Holdings[a.Container], bytes: -1}
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
	for i, r := range plan.Removals {
		for _, t := range x.tasks {
			if !r.Blocked() && t.carries(r) && !slices.Contains(t.results, i) {
				t.results = append(t.results, i)
			}
		}
	}
	return x
}

// carries is whether a removal rests on the container's being gone. In the plan a container belongs to
// the first removal that it is for, and the others take it for gone.
func (t *task) carries(r Removal) bool {
	return t.container.ID == r.Container || slices.ContainsFunc(r.Actions, func(a Action) bool {
		return a.Verb == VerbDeleteImage &&
			(a.Image == t.container.ImageID || slices.Contains(t.holding.Claim.ImageVolumes, a.Image))
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
	a.Bytes = max(t.bytes, 0)
	if t.bytes < 0 {
		x.mu.Lock()
		x.results[t.results[0]].AtLeast = true
		x.mu.Unlock()
	}
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

func (x *execution) failFor(r *Result, a Action, err error) {
	r.Failed = append(r.Failed, Failure{a, err})
	x.tell(Progress{Phase: PhaseFailed, Action: a, Err: err})
}

func (x *execution) tell(p Progress) {
	if x.Progress != nil {
		x.Progress(p)
	}
}
