package podman

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/unmoor/unmoor/core"
)

// Remove removes the containers and those that go along with them: first the ones that others do
// not need, a pod with its infra container, a volume after the containers that mount it. Nothing is
// forced. Podman's refusal of a container that runs again wraps core.ErrStillInUse. Anonymous
// volumes stay, as with "podman rmi --force".
//
// Nothing goes but what the handles name: one whose company is still there without a handle of its
// own is refused with core.ErrStillInUse.
func (p *Plugin) Remove(ctx context.Context, store core.StoreInfo, handles []core.Handle) []core.Outcome {
	r := &removal{plugin: p, store: store, outcomes: newOutcomes(handles), removed: make(map[core.ContainerID]bool)}
	plan := r.sort(ctx, r.accept(ctx, handles))
	failed := r.containers(ctx, plan.levels)
	for _, pod := range plan.pods {
		r.pod(ctx, pod)
	}
	if len(failed) > 0 && len(r.removed) > 0 && ctx.Err() == nil {
		// What a pod or a later one of the batch still needed can go now.
		failed = r.containers(ctx, [][]core.ContainerID{slices.Sorted(maps.Keys(failed))})
	}
	if len(failed) > 0 {
		p.judge(ctx, store, failed, func(id core.ContainerID, rec record, err error) {
			if isLive(rec) {
				err = stillInUse(rec)
			}
			r.outcomes.fail(err, id)
		}, r.outcomes.failOne)
	}
	for _, v := range plan.volumes {
		if err := p.engine.removeVolume(ctx, store, v.name); err != nil {
			r.outcomes.fail(err, v.id)
			continue
		}
		r.removed[v.id] = true
	}
	r.report(handles)
	return r.outcomes.list
}

func stillInUse(r record) error {
	return fmt.Errorf("podman calls it %s since: %w", r.State.Status, core.ErrStillInUse)
}

// removal is one run of Remove.
type removal struct {
	plugin   *Plugin
	store    core.StoreInfo
	outcomes *outcomes
	// removed are the containers that Podman took away at our word.
	removed map[core.ContainerID]bool
}

// order is how a batch is removed.
type order struct {
	// levels of containers: none needs one of a later level.
	levels  [][]core.ContainerID
	pods    []podRemoval
	volumes []volumeRemoval
}

type podRemoval struct {
	id    string
	infra core.ContainerID
	// members as the claim had them, the infra container included.
	members map[core.ContainerID]bool
}

type volumeRemoval struct {
	name string
	id   core.ContainerID
}

// accept returns the handles whose company is in the batch too, or gone, and refuses the others, as
// well as those that would take one of the others along.
func (r *removal) accept(ctx context.Context, handles []core.Handle) []core.Handle {
	kept := r.strangers(ctx, handles)
	for again := len(kept) > 0; again; {
		again = false
		for i, h := range handles {
			id := h.Container.ID
			for _, along := range h.Claim.TakesAlong {
				if why := kept[along]; why != nil && kept[id] == nil {
					kept[id], r.outcomes.list[i].Err = why, why
					again = true
				}
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(handles), func(h core.Handle) bool { return kept[h.Container.ID] != nil })
}

// strangers are the containers that would go along with the batch without being in it, each with why
// it has to stay. What Podman says is gone is none.
func (r *removal) strangers(ctx context.Context, handles []core.Handle) map[core.ContainerID]error {
	named := make(map[core.ContainerID]bool, len(handles))
	for _, h := range handles {
		named[h.Container.ID] = true
	}
	missing := make(map[core.ContainerID]bool)
	for _, h := range handles {
		for _, along := range h.Claim.TakesAlong {
			if !named[along] {
				missing[along] = true
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	kept := make(map[core.ContainerID]error)
	found, err := r.plugin.inspect(ctx, r.store, slices.Sorted(maps.Keys(missing)))
	for id := range missing {
		rec, there := found.records[id]
		switch {
		case err != nil:
			kept[id] = fmt.Errorf("look for container %s, which goes along: %w", id.Short(), err)
		case there:
			kept[id] = fmt.Errorf("container %s (%s), which goes along, was not to be removed: %w", rec.Name, id.Short(), core.ErrStillInUse)
		case !found.absent[id]:
			kept[id] = fmt.Errorf("look for container %s, which goes along: %w", id.Short(), found.silence(id))
		}
	}
	return kept
}

// sort puts the batch in order. A pod that has grown since the claim is refused: its new containers
// would go unseen.
func (r *removal) sort(ctx context.Context, handles []core.Handle) order {
	var o order
	needed := make(map[core.ContainerID]int) // how many containers go along with each
	inPod := make(map[core.ContainerID]bool)
	for _, h := range handles {
		revision := parseRevision(h.Claim.Revision)
		id := h.Container.ID
		switch {
		case revision.volume != "":
			o.volumes = append(o.volumes, volumeRemoval{revision.volume, id})
			inPod[id] = true
		case revision.pod != "":
			o.pods = append(o.pods, podRemoval{id: revision.pod, infra: id, members: map[core.ContainerID]bool{id: true}})
		default:
			needed[id] = len(h.Claim.TakesAlong)
		}
	}
	o.pods = r.confirm(ctx, handles, o.pods, inPod)
	levels := make(map[int][]core.ContainerID)
	for _, id := range slices.Sorted(maps.Keys(needed)) {
		if !inPod[id] {
			levels[needed[id]] = append(levels[needed[id]], id)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(levels)) {
		o.levels = append(o.levels, levels[n])
	}
	return o
}

// confirm asks which containers the pods have now, notes them in inPod, and returns the pods that
// may go.
func (r *removal) confirm(ctx context.Context, handles []core.Handle, pods []podRemoval, inPod map[core.ContainerID]bool) []podRemoval {
	if len(pods) == 0 {
		return nil
	}
	going := make(map[core.ContainerID]bool, len(handles))
	for _, h := range handles {
		going[h.Container.ID] = true
	}
	present, err := r.plugin.engine.pods(ctx, r.store)
	var may []podRemoval
	for _, p := range pods {
		inPod[p.infra] = true
		if err != nil {
			r.outcomes.fail(err, p.infra)
			continue
		}
		i := slices.IndexFunc(present, func(q pod) bool { return q.ID == p.id })
		if i < 0 {
			continue // gone
		}
		grown := false
		for _, c := range present[i].Containers {
			if !going[c.ID] {
				grown = true
				r.outcomes.fail(fmt.Errorf("container %s joined pod %s since: %w", c.ID.Short(), present[i].Name, core.ErrPlanStale), p.infra)
			}
			inPod[c.ID] = true
			p.members[c.ID] = true
		}
		if !grown {
			may = append(may, p)
			continue
		}
		for id := range p.members {
			r.outcomes.fail(fmt.Errorf("pod %s is kept, since it has grown: %w", present[i].Name, core.ErrPlanStale), id)
		}
	}
	return may
}

// containers removes level after level and returns what Podman did not remove.
func (r *removal) containers(ctx context.Context, levels [][]core.ContainerID) map[core.ContainerID]error {
	failed := make(map[core.ContainerID]error)
	for _, ids := range levels {
		removed, refused := r.plugin.engine.remove(ctx, r.store, ids)
		maps.Copy(r.removed, removed)
		maps.Copy(failed, refused)
	}
	return failed
}

// pod removes a pod with its containers.
func (r *removal) pod(ctx context.Context, p podRemoval) {
	err := r.plugin.engine.removePod(ctx, r.store, p.id)
	if err == nil {
		for id := range p.members {
			r.removed[id] = true
		}
		return
	}
	failed := make(map[core.ContainerID]error)
	for id := range p.members {
		failed[id] = err
	}
	r.plugin.judge(ctx, r.store, failed, func(id core.ContainerID, rec record, err error) {
		if isLive(rec) {
			err = stillInUse(rec)
		}
		r.outcomes.fail(err, id)
	}, r.outcomes.failOne)
}

// report notes what went, and what went along.
func (r *removal) report(handles []core.Handle) {
	for i, h := range handles {
		o := &r.outcomes.list[i]
		o.StorageRemoved = o.Err == nil && r.removed[h.Container.ID]
		for _, id := range h.Claim.TakesAlong {
			if r.removed[id] {
				o.Along = append(o.Along, id)
			}
		}
	}
}
