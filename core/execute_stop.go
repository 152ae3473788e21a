package core

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The sizes are read by a few at a time, and only so long: they are only told to people.
const (
	measurers   = 4
	measureTime = 2 * time.Second
)

// measure begins to read the sizes, beside the stops. It is waited for before the last look, so that the
// walk of a large layer does not stand between that look and the removal. What was not read by then is
// not known.
func (x *execution) measure(ctx context.Context) (wait func()) {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	work := make(chan *task, len(x.tasks))
	for _, t := range x.tasks {
		work <- t
	}
	close(work)
	var wg sync.WaitGroup
	for range min(measurers, len(x.tasks)) {
		wg.Go(func() {
			for t := range work {
				if bytes, err := x.Store.ContainerSize(ctx, t.container); err == nil {
					t.bytes = bytes
				}
			}
		})
	}
	return func() {
		wg.Wait()
		cancel()
	}
}

// end stops what has to be stopped, all owners and all containers side by side, and ends the
// processes that no owner stops.
func (x *execution) end(ctx context.Context) {
	if err := ctx.Err(); err != nil {
		x.failAll(x.tasks, err)
		return
	}
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
			err := error(&BusyError{Container: t.container.ID, Observation: o, Reason: busyReason(o)})
			switch {
			case t.stop == nil && t.kill == nil: // idle in the plan: it was started by somebody since
				x.fail(t, *t.remove, fmt.Errorf("%w: %w", ErrPlanStale, err))
			case o.Use != UseInUse || len(left) == 0 || x.plan.Force < ForceKill || round == rounds:
				x.fail(t, *t.remove, err)
			default:
				again = append(again, t)
			}
		}
		holdings := x.claim(ctx, x.store, containersOf(again))
		for _, t := range again {
			if err := t.restarted(holdings[t.container.ID]); err != nil {
				x.fail(t, *t.remove, err)
				continue
			}
			x.step("kill")
			wg.Go(func() {
				x.terminate(ctx, t, Action{Verb: VerbKill, Container: t.container.ID,
					Name: displayName(t.container, t.holding), Processes: Processes(seen[t.container.Layer.ID].Evidence)})
			})
		}
		wg.Wait()
		busy = slices.DeleteFunc(again, func(t *task) bool { return t.failed })
		if len(busy) == 0 {
			return
		}
	}
}

// restarted is why what still runs is not what the plan was to end: its owner has started the container
// again, on behalf of systemd say, or who owns it is not what it was.
func (t *task) restarted(h Holding) error {
	switch {
	case h.Kind != t.holding.Kind || h.Owner() != t.holding.Owner():
		return fmt.Errorf("its owner was %s when the plan was made, and is %s now: %w", ownerWord(t.holding), ownerWord(h), ErrPlanStale)
	case h.Kind == Owned && claimsUse(h.Claim):
		return fmt.Errorf("%s started it again: %w", h.Owner(), ErrPlanStale)
	}
	return nil
}

func ownerWord(h Holding) string {
	switch h.Kind {
	case Owned, Contested:
		return list(h.Owners)
	case Unowned:
		return "nobody"
	case Undetermined:
	}
	return "not known"
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
