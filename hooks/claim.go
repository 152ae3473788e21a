package hooks

import (
	"context"
	"slices"
	"sync"

	"github.com/unmoor/unmoor/core"
)

// Claim asks every plugin about the containers, all plugins side by side, in one batch each.
func (r *Registry) Claim(ctx context.Context, store core.StoreInfo, containers []core.Container) map[core.ContainerID]core.Holding {
	holdings := make(map[core.ContainerID]core.Holding, len(containers))
	if len(containers) == 0 {
		return holdings
	}
	members := r.asked()
	votes := make([]vote, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { votes[i] = m.vote(ctx, store, containers) })
	}
	wg.Wait()
	for _, c := range containers {
		holdings[c.ID] = hold(c, votes)
	}
	return holdings
}

// vote is what asking one plugin came to: claims that hold, or a fault.
type vote struct {
	entry  Entry
	engine string
	claims map[core.ContainerID]core.Claim
	fault  *fault
}

func (m *member) vote(ctx context.Context, store core.StoreInfo, containers []core.Container) vote {
	store.GraphOptions = slices.Clone(store.GraphOptions)
	copies := cloneContainers(containers)
	var valid map[core.ContainerID]core.Claim
	_, f := try(ctx, m, m.settings().ClaimTimeout, func(ctx context.Context) ([]core.Claim, error) {
		return m.plugin.Claim(ctx, store, copies)
	}, func(claims []core.Claim) (err error) {
		valid, err = check(m.name, containers, claims)
		return err
	})
	v := vote{entry: m.settings(), engine: m.engine(), fault: f} // with the hints that it has just told of
	if f == nil {
		v.claims = valid
	}
	return v
}

// cloneContainers gives a plugin containers of its own, so that nothing it does to them, even after
// it was abandoned, reaches another one.
func cloneContainers(containers []core.Container) []core.Container {
	copies := slices.Clone(containers)
	for i := range copies {
		copies[i].Names = slices.Clone(copies[i].Names)
		copies[i].BigDataNames = slices.Clone(copies[i].BigDataNames)
	}
	return copies
}

// hold makes one container's holding of all the votes. Doubt outweighs a claim: a container that
// one plugin claims and that another one, which does not answer, may own too is undetermined.
// Otherwise a plugin could take another one's container while that one is down. A plugin without hints,
// one that never answered say, may own what nobody claims.
func hold(c core.Container, votes []vote) core.Holding {
	var doubts, vague, claimed, ignored []vote
	for _, v := range votes {
		switch {
		case v.fault == nil:
			switch v.claims[c.ID].Ownership {
			case core.OwnershipMine:
				claimed = append(claimed, v)
			case core.OwnershipNotMine:
			case core.OwnershipUnknown:
				fallthrough
			default:
				doubts = append(doubts, v)
			}
		case v.entry.Required:
			doubts = append(doubts, v)
		case v.fault.kind != faultCanceled && v.entry.WhenUnavailable == Ignore:
			if fits(v.entry.Hints, c) {
				ignored = append(ignored, v)
			}
		case !tell(v.entry.Hints):
			vague = append(vague, v)
		case fits(v.entry.Hints, c):
			doubts = append(doubts, v)
		}
	}
	if len(claimed) == 0 {
		doubts = append(doubts, vague...)
	}
	switch {
	case len(claimed) > 1:
		return contested(claimed)
	case len(doubts) > 0:
		return undetermined(c, doubts, claimed)
	case len(claimed) == 1:
		return core.Holding{Kind: core.Owned, Owners: names(claimed), Claim: claimed[0].claims[c.ID],
			Reason: ignoredNote(ignored)}
	}
	return core.Holding{Kind: core.Unowned, Reason: ignoredNote(ignored)}
}

func names(votes []vote) []string {
	all := make([]string, len(votes))
	for i, v := range votes {
		all[i] = v.entry.Name
	}
	slices.Sort(all)
	return all
}
