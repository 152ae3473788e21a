package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

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

// chunk is how many containers are deleted on the strength of one look: the last of a thousand would be
// deleted many seconds after it.
const chunk = 64

// deleters is how many containers are deleted side by side. The store's lock lets one at a time
// write its records; unmounting, probing and unlinking go on beside it.
const deleters = 4

// deleteRest deletes what the store still holds of the containers.
func (x *execution) deleteRest(ctx context.Context) {
	for tasks := range slices.Chunk(x.open(), chunk) {
		x.step("recheck")
		x.deleteSome(ctx, tasks)
	}
}

// deleteSome deletes what is left of some containers, after asking everybody once more. Anything but a
// plain "idle, and whose it was" keeps a container.
func (x *execution) deleteSome(ctx context.Context, tasks []*task) {
	rest, err := x.present(ctx, tasks)
	if err != nil {
		x.failAll(tasks, err)
		return
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
	work := make(chan int, len(rest))
	for i := range rest {
		work <- i
	}
	close(work)
	errs := make([]error, len(rest))
	var wg sync.WaitGroup
	for range min(deleters, len(rest)) {
		wg.Go(func() {
			for i := range work {
				t := rest[i]
				if errs[i] = ctx.Err(); errs[i] == nil {
					errs[i] = x.mayDelete(t, holdings[t.container.ID], seen[t.container.Layer.ID])
				}
				if errs[i] == nil {
					errs[i] = x.delete(ctx, t)
				}
			}
		})
	}
	wg.Wait()
	x.failUnlessGone(ctx, rest, errs)
}

// present ends the tasks whose containers are gone, and returns the others with their containers as they
// are now.
func (x *execution) present(ctx context.Context, tasks []*task) ([]*task, error) {
	// Also where ctx has ended: what is gone is to be reported.
	snapshot, err := x.Store.Snapshot(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	containers := make(map[ContainerID]Container, len(snapshot.Containers))
	for _, c := range snapshot.Containers {
		containers[c.ID] = c
	}
	var rest []*task
	for _, t := range tasks {
		c, there := containers[t.container.ID]
		if !there {
			x.gone(t)
			continue
		}
		t.container = c
		rest = append(rest, t)
	}
	return rest, nil
}

// failUnlessGone takes what went wrong for a success where the container is gone: somebody else, a
// second removal of the same image say, was in our way because it did the same.
func (x *execution) failUnlessGone(ctx context.Context, tasks []*task, errs []error) {
	failed := make(map[*task]error)
	var rest []*task
	for i, t := range tasks {
		if errs[i] != nil {
			failed[t] = errs[i]
			rest = append(rest, t)
		}
	}
	if len(rest) == 0 {
		return
	}
	there, err := x.present(ctx, rest)
	if err != nil {
		there = rest // nothing is known of them but what went wrong
	}
	for _, t := range there {
		x.fail(t, *t.remove, failed[t])
	}
}

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
func (x *execution) delete(ctx context.Context, t *task) error {
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
		return err
	}
	x.step("delete_container")
	// Not to be broken off: the library's deletion is quick, and half of one is garbage.
	err = x.Store.DeleteContainer(context.WithoutCancel(ctx), t.container)
	if err != nil && !errors.Is(err, ErrContainerUnknown) {
		return err
	}
	x.gone(t)
	return nil
}
