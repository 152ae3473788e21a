package podman

import (
	"context"
	"fmt"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Stop stops the containers, and those that go along with them, side by side. Podman counts whole
// seconds, so the grace period is rounded up. A container that was started anew since it was claimed
// is refused with core.ErrPlanStale.
func (p *Plugin) Stop(ctx context.Context, store core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome {
	outcomes := newOutcomes(handles)
	revisions := make(map[core.ContainerID]revision)
	var ids []core.ContainerID
	add := func(id core.ContainerID) {
		if _, known := revisions[id]; !known {
			revisions[id] = revision{}
			ids = append(ids, id)
		}
	}
	for _, h := range handles {
		r := parseRevision(h.Claim.Revision)
		if r.volume != "" {
			continue // Nothing runs in a volume. Its users are handles of their own.
		}
		add(h.Container.ID)
		revisions[h.Container.ID] = r
	}
	for _, h := range handles {
		if parseRevision(h.Claim.Revision).volume == "" {
			for _, id := range h.Claim.TakesAlong {
				add(id)
			}
		}
	}
	if len(ids) == 0 {
		return outcomes.list
	}
	found, err := p.inspect(ctx, store, ids)
	if err != nil {
		outcomes.fail(err, ids...)
		return outcomes.list
	}
	var live []record
	var paused []core.ContainerID
	for _, id := range ids {
		r, ok := found.records[id]
		switch {
		case !ok && found.absent[id]:
		case !ok && revisions[id].lost:
			live = append(live, record{ID: id}) // inspect says nothing of it (4.3.1, 5.4.2), stop and rm work
		case !ok:
			outcomes.fail(found.silence(id), id)
		case !isLive(r):
		case revisions[id].start() != "" && revisions[id].start() != r.incarnation():
			outcomes.fail(fmt.Errorf("it was started anew since: %w", core.ErrPlanStale), id)
		default:
			live = append(live, r)
			if r.State.Status == statusPaused {
				paused = append(paused, id)
			}
		}
	}
	if len(live) == 0 {
		return outcomes.list
	}
	// "podman stop" of a paused container fails: "running or paused, refusing to clean up" (4.3.1,
	// 5.4.2, API included).
	if len(paused) > 0 {
		p.engine.unpause(ctx, store, paused)
	}
	failed := p.engine.stop(ctx, store, live, grace)
	if len(failed) == 0 {
		return outcomes.list
	}
	p.judge(ctx, store, failed, func(id core.ContainerID, r record, err error) {
		if isLive(r) {
			outcomes.fail(err, id)
		}
	}, outcomes.failOne)
	return outcomes.list
}

func isLive(r record) bool {
	state, _ := r.state()
	return state.Live()
}

// judge looks again at containers that Podman reported a failure for. One that is gone is none.
// present is called with each that is still there, unclear with each that nothing can be said of.
func (p *Plugin) judge(ctx context.Context, store core.StoreInfo, failed map[core.ContainerID]error,
	present func(core.ContainerID, record, error), unclear func(core.ContainerID, error)) {
	var ids []core.ContainerID
	for id := range failed {
		ids = append(ids, id)
	}
	found, err := p.inspect(ctx, store, ids)
	for _, id := range ids {
		r, there := found.records[id]
		switch {
		case err != nil:
			unclear(id, failed[id])
		case there:
			present(id, r, failed[id])
		case found.absent[id]:
		default:
			unclear(id, failed[id])
		}
	}
}

// outcomes has one outcome for each handle, in order, successes until told otherwise.
type outcomes struct {
	list  []core.Outcome
	index map[core.ContainerID][]int
}

func newOutcomes(handles []core.Handle) *outcomes {
	o := &outcomes{list: make([]core.Outcome, len(handles)), index: make(map[core.ContainerID][]int)}
	for i, h := range handles {
		o.list[i].Container = h.Container.ID
		o.index[h.Container.ID] = append(o.index[h.Container.ID], i)
		for _, id := range h.Claim.TakesAlong {
			// What befalls its company befalls the container.
			o.index[id] = append(o.index[id], i)
		}
	}
	return o
}

func (o *outcomes) fail(err error, ids ...core.ContainerID) {
	for _, id := range ids {
		o.failOne(id, err)
	}
}

func (o *outcomes) failOne(id core.ContainerID, err error) {
	for _, i := range o.index[id] {
		if o.list[i].Err != nil {
			continue
		}
		if o.list[i].Container != id {
			o.list[i].Err = fmt.Errorf("container %s, which goes along: %w", id.Short(), err)
			continue
		}
		o.list[i].Err = err
	}
}
