package podman

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/unmoor/unmoor/core"
)

// Remove removes the containers and those that go along with them: first the ones that others do
// not need, a pod with its infra container once that is alone, a volume after the containers that
// mount it. Nothing is forced. Podman's refusal of a container that runs again wraps
// core.ErrStillInUse. Anonymous volumes stay, as with "podman rmi --force": "podman pod rm" would take
// those of the pod's containers (4.3.1, 5.4.2).
//
// Nothing goes but what the handles name: one whose company is still there without a handle of its
// own is refused with core.ErrStillInUse. A pod goes whole or not at all, but for what Podman refuses
// on the way.
func (p *Plugin) Remove(ctx context.Context, store core.StoreInfo, handles []core.Handle) []core.Outcome {
	r := &removal{plugin: p, store: store, outcomes: newOutcomes(handles), removed: make(map[core.ContainerID]bool)}
	plan := r.sort(ctx, r.accept(ctx, handles))
	failed := r.containers(ctx, plan.levels)
	if len(failed) > 0 && len(r.removed) > 0 && ctx.Err() == nil {
		// What a later one of the batch still needed can go now.
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
	r.pods(ctx, plan.pods)
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
	// members as the claim had them, and as they are now, the infra container included.
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
		keep := func(id core.ContainerID, why error) {
			if kept[id] == nil {
				kept[id], again = why, true
			}
		}
		for _, h := range handles {
			for _, along := range h.Claim.TakesAlong {
				switch {
				case kept[along] != nil:
					keep(h.Container.ID, kept[along])
				case kept[h.Container.ID] != nil && parseRevision(h.Claim.Revision).pod != "":
					keep(along, kept[h.Container.ID]) // the pod stays whole
				}
			}
		}
	}
	for i, h := range handles {
		r.outcomes.list[i].Err = kept[h.Container.ID]
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

// sort puts the batch in order, without the pods that are refused and what is in them.
func (r *removal) sort(ctx context.Context, handles []core.Handle) order {
	var o order
	needed := make(map[core.ContainerID]int) // how many containers go along with each
	for _, h := range handles {
		revision := parseRevision(h.Claim.Revision)
		id := h.Container.ID
		switch {
		case revision.volume != "":
			o.volumes = append(o.volumes, volumeRemoval{revision.volume, id})
		case revision.pod != "":
			members := map[core.ContainerID]bool{id: true}
			for _, along := range h.Claim.TakesAlong {
				members[along] = true
			}
			o.pods = append(o.pods, podRemoval{id: revision.pod, infra: id, members: members})
		default:
			needed[id] = len(h.Claim.TakesAlong)
		}
	}
	o.pods = r.confirm(ctx, handles, o.pods, func(id core.ContainerID) { delete(needed, id) })
	levels := make(map[int][]core.ContainerID)
	for _, id := range slices.Sorted(maps.Keys(needed)) {
		levels[needed[id]] = append(levels[needed[id]], id)
	}
	for _, n := range slices.Sorted(maps.Keys(levels)) {
		o.levels = append(o.levels, levels[n])
	}
	return o
}

// confirm asks which containers the pods have now and what they do, and returns the pods that may go:
// neither one that has grown since the claim, whose new containers would go unseen, nor one in which
// something runs again. refused is called with every container of the others.
func (r *removal) confirm(ctx context.Context, handles []core.Handle, pods []podRemoval, refused func(core.ContainerID)) []podRemoval {
	if len(pods) == 0 {
		return nil
	}
	going := make(map[core.ContainerID]bool, len(handles))
	for _, h := range handles {
		going[h.Container.ID] = true
	}
	var may []podRemoval
	present, err := r.look(ctx, pods)
	for _, p := range pods {
		now, there := present[p.id]
		why := err
		for _, id := range slices.Sorted(maps.Keys(now.members)) {
			p.members[id] = true
			switch rec := now.members[id]; {
			case why != nil:
			case !going[id]:
				why = fmt.Errorf("pod %s is kept: container %s joined it since: %w", now.name, id.Short(), core.ErrPlanStale)
			case isLive(rec):
				why = fmt.Errorf("pod %s is kept: container %s: %w", now.name, id.Short(), stillInUse(rec))
			}
		}
		switch {
		case why != nil:
			for id := range p.members {
				refused(id)
				r.outcomes.failOne(id, why)
			}
		case there:
			may = append(may, p)
		}
	}
	return may
}

// presentPod is a pod as it is now.
type presentPod struct {
	name    string
	members map[core.ContainerID]record
}

// look asks for the pods, by ID, and the containers in them. A pod that is gone is left out.
func (r *removal) look(ctx context.Context, pods []podRemoval) (map[string]presentPod, error) {
	listed, err := r.plugin.engine.pods(ctx, r.store)
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool, len(pods))
	for _, p := range pods {
		wanted[p.id] = true
	}
	present := make(map[string]presentPod)
	var ids []core.ContainerID
	for _, p := range listed {
		if !wanted[p.ID] {
			continue
		}
		now := presentPod{name: p.Name, members: make(map[core.ContainerID]record)}
		for _, c := range p.Containers {
			now.members[c.ID] = record{ID: c.ID}
			ids = append(ids, c.ID)
		}
		present[p.ID] = now
	}
	if len(ids) == 0 {
		return present, nil
	}
	found, err := r.plugin.inspect(ctx, r.store, ids)
	if err != nil {
		return nil, err
	}
	for _, now := range present {
		for id := range now.members {
			rec, known := found.records[id]
			switch {
			case known:
				now.members[id] = rec
			case found.absent[id]:
				delete(now.members, id)
			default:
				return nil, fmt.Errorf("look at container %s of pod %s: %w", id.Short(), now.name, found.silence(id))
			}
		}
	}
	return present, nil
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

// pods removes pods of which nothing but the infra container is left. They are looked at once more:
// "podman pod rm" takes stopped containers along, and an infra container even where it runs, if it is
// alone (4.3.1, 5.4.2).
func (r *removal) pods(ctx context.Context, pods []podRemoval) {
	if len(pods) == 0 {
		return
	}
	present, err := r.look(ctx, pods)
	for _, p := range pods {
		if err != nil {
			r.outcomes.failOne(p.infra, err)
			continue
		}
		now, there := present[p.id]
		if !there {
			continue
		}
		var why error
		for id, rec := range now.members {
			switch {
			case id != p.infra:
				why = fmt.Errorf("pod %s is kept: container %s is in it: %w", now.name, id.Short(), core.ErrStillInUse)
			case isLive(rec):
				why = stillInUse(rec)
			}
		}
		if why == nil {
			why = r.plugin.engine.removePod(ctx, r.store, p.id)
		}
		if why != nil {
			r.outcomes.failOne(p.infra, why)
			continue
		}
		r.removed[p.infra] = true
	}
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
