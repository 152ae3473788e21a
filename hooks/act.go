package hooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/unmoor/unmoor/core"
)

// The time of a call grows with its batch: each is what one container may take, and atOnce is how many
// an engine stops side by side, at least.
const (
	each   = 200 * time.Millisecond
	atOnce = 8
)

// Stop has the owner stop its containers.
func (r *Registry) Stop(ctx context.Context, owner string, store core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome {
	grace = max(grace, 0)
	return r.act(ctx, "stop", owner, handles, func(p Plugin, e Entry) (time.Duration, action) {
		return stopTime(grace, len(handles)) + e.StopMargin, func(ctx context.Context, handles []core.Handle) []core.Outcome {
			return p.Stop(ctx, store, handles, grace)
		}
	})
}

// Remove has the owner remove its containers.
func (r *Registry) Remove(ctx context.Context, owner string, store core.StoreInfo, handles []core.Handle) []core.Outcome {
	return r.act(ctx, "remove", owner, handles, func(p Plugin, e Entry) (time.Duration, action) {
		return e.RemoveTimeout + time.Duration(len(handles))*each, func(ctx context.Context, handles []core.Handle) []core.Outcome {
			return p.Remove(ctx, store, handles)
		}
	})
}

// stopTime is what a batch may take for its grace periods and the work between them.
func stopTime(grace time.Duration, n int) time.Duration {
	const most = 1000 * time.Hour // what follows cannot overflow
	rounds := 1 + float64(n)/atOnce
	return time.Duration(min(float64(grace)*rounds+float64(each)*float64(n), float64(most)))
}

type action func(ctx context.Context, handles []core.Handle) []core.Outcome

// act calls a plugin and sees to it that every handle has one outcome, in the handles' order. What
// the plugin leaves out has failed.
func (r *Registry) act(ctx context.Context, verb, owner string, handles []core.Handle, prepare func(Plugin, Entry) (time.Duration, action)) []core.Outcome {
	if len(handles) == 0 {
		return nil
	}
	m, ok := r.member(owner)
	if !ok {
		return all(handles, func(id core.ContainerID) error {
			return fmt.Errorf("%s container %s: there is no plugin %q", verb, id.Short(), owner)
		})
	}
	e := m.settings()
	answer, failed := m.do(ctx, handles, e, prepare)
	if failed != nil {
		answer = all(handles, func(core.ContainerID) error { return failed })
	}
	for i, o := range answer {
		if f := (*fault)(nil); errors.As(o.Err, &f) && f.kind != faultCanceled {
			answer[i].Err = fmt.Errorf("%w; %s", o.Err, remedy(e, f))
		}
	}
	return settle(verb, owner, handles, answer)
}

func (m *member) do(ctx context.Context, handles []core.Handle, e Entry, prepare func(Plugin, Entry) (time.Duration, action)) ([]core.Outcome, *fault) {
	if f := m.shut(); f != nil {
		return nil, f
	}
	timeout, f := prepare(m.plugin, e)
	copies := cloneHandles(handles)
	answer, failed := call(ctx, timeout, func(ctx context.Context) ([]core.Outcome, error) {
		return f(ctx, copies), nil
	})
	worst := failed
	for _, o := range answer {
		if worst == nil {
			errors.As(o.Err, &worst)
		}
	}
	m.note(worst)
	return slices.Clone(answer), failed
}

func all(handles []core.Handle, why func(core.ContainerID) error) []core.Outcome {
	outcomes := make([]core.Outcome, len(handles))
	for i, h := range handles {
		outcomes[i] = core.Outcome{Container: h.Container.ID, Err: why(h.Container.ID)}
	}
	return outcomes
}

var (
	errNoOutcome   = errors.New("the plugin gave no outcome")
	errTwoOutcomes = errors.New("the plugin gave more than one outcome")
)

// settle matches outcomes with handles. Outcomes that nobody asked for are dropped.
func settle(verb, owner string, handles []core.Handle, answer []core.Outcome) []core.Outcome {
	given := make(map[core.ContainerID]core.Outcome, len(handles))
	for _, h := range handles {
		given[h.Container.ID] = core.Outcome{Container: h.Container.ID, Err: errNoOutcome}
	}
	for _, o := range answer {
		known, asked := given[o.Container]
		if !asked {
			continue
		}
		if !errors.Is(known.Err, errNoOutcome) {
			o = core.Outcome{Container: o.Container, Err: errTwoOutcomes}
		}
		o.Along = slices.DeleteFunc(slices.Clone(o.Along), func(id core.ContainerID) bool { return id == "" })
		given[o.Container] = o
	}
	outcomes := make([]core.Outcome, len(handles))
	for i, h := range handles {
		o := given[h.Container.ID]
		if o.Err != nil {
			o.StorageRemoved = false
			o.Err = fmt.Errorf("%s: %s container %s: %w", owner, verb, h.Container.ID.Short(), o.Err)
		}
		outcomes[i] = o
	}
	return outcomes
}

func cloneHandles(handles []core.Handle) []core.Handle {
	copies := slices.Clone(handles)
	for i := range copies {
		c := cloneContainers([]core.Container{copies[i].Container})
		copies[i].Container = c[0]
		copies[i].Claim.TakesAlong = slices.Clone(copies[i].Claim.TakesAlong)
		copies[i].Claim.ImageVolumes = slices.Clone(copies[i].Claim.ImageVolumes)
		copies[i].Claim.Labels = maps.Clone(copies[i].Claim.Labels)
		copies[i].Claim.Evidence = slices.Clone(copies[i].Claim.Evidence)
	}
	return copies
}
