package buildah

import (
	"context"
	"fmt"

	"github.com/unmoor/unmoor/core"
)

// Remove lets the core delete the containers from the store, as nothing else belongs to them: a
// buildah rm is openBuilder, which reads buildah.json, and store.DeleteContainer, no more
// (containers/buildah, delete.go, Builder.Delete, and cmd/buildah/rm.go, v1.28.2 and v1.39.3; the
// symlinks that Builder.Delete also removed before 1.0 are gone). buildah.json lies in the
// container's directory and goes with it. Buildah keeps no list of its own: buildah containers reads
// the store's (buildah.go, OpenAllBuilders).
//
// A container that is in use now is refused with core.ErrStillInUse, and so is one that may be,
// unless the claim said so when the plan was made.
func (p *Plugin) Remove(ctx context.Context, store core.StoreInfo, handles []core.Handle) []core.Outcome {
	outcomes := make([]core.Outcome, len(handles))
	containers := make([]core.Container, len(handles))
	for i, h := range handles {
		containers[i] = h.Container
		outcomes[i].Container = h.Container.ID
	}
	verdicts, err := p.judge(ctx, store, containers)
	for i, h := range handles {
		switch {
		case err != nil:
			outcomes[i].Err = fmt.Errorf("look at container %s: %w", h.Container.ID.Short(), err)
		case !claimed(h):
			outcomes[i].Err = errNotOurs
		case absent(h.Container):
		case verdicts[i].claim.Ownership != core.OwnershipMine:
			outcomes[i].Err = fmt.Errorf("container %s is not Buildah's any more: %w", h.Container.ID.Short(), core.ErrNotOwner)
		case verdicts[i].claim.Use == core.UseInUse,
			verdicts[i].claim.Use == core.UseUnknown && h.Claim.Use != core.UseUnknown:
			outcomes[i].Err = stillInUse(h.Container, verdicts[i])
		}
	}
	return outcomes
}
