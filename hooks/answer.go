package hooks

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/unmoor/unmoor/core"
)

// The most that one claim may carry; beyond it the answer is garbage.
const (
	maxEvidence = 1024
	maxRelated  = 65536
	maxText     = 64 << 10
	maxLabels   = 4 << 20 // bytes; engines set no bound, and tools keep whole documents in them
)

// check validates a plugin's whole answer to containers. One flaw and nothing of it counts, since
// a plugin that errs in one place cannot be trusted in another.
func check(name string, containers []core.Container, claims []core.Claim) (map[core.ContainerID]core.Claim, error) {
	if len(claims) > len(containers) {
		return nil, fmt.Errorf("it made %d claims about %d containers", len(claims), len(containers))
	}
	asked := make(map[core.ContainerID]bool, len(containers))
	for _, c := range containers {
		asked[c.ID] = true
	}
	valid := make(map[core.ContainerID]core.Claim, len(claims))
	for _, c := range claims {
		if !asked[c.Container] {
			return nil, fmt.Errorf("it made a claim about container %.64q, which it was not asked about", c.Container)
		}
		if _, doubled := valid[c.Container]; doubled {
			return nil, fmt.Errorf("it made two claims about container %s", c.Container.Short())
		}
		if err := checkClaim(c); err != nil {
			return nil, fmt.Errorf("its claim about container %s %w", c.Container.Short(), err)
		}
		valid[c.Container] = ours(name, c)
	}
	for id := range asked {
		if _, ok := valid[id]; !ok {
			return nil, fmt.Errorf("it made no claim about container %s", id.Short())
		}
	}
	return valid, nil
}

func checkClaim(c core.Claim) error {
	switch c.Ownership {
	case core.OwnershipUnknown, core.OwnershipNotMine, core.OwnershipMine:
	default:
		return errors.New("has an ownership that does not exist")
	}
	switch c.Use {
	case core.UseUnknown, core.UseIdle, core.UseInUse:
	default:
		return errors.New("has a use that does not exist")
	}
	if c.Ownership == core.OwnershipMine && c.State == core.StateNone {
		return errors.New("lacks the state")
	}
	if slices.Contains(c.TakesAlong, "") {
		return errors.New("takes along a container without an ID")
	}
	if slices.Contains(c.ImageVolumes, "") {
		return errors.New("mounts an image without an ID")
	}
	if len(c.Evidence) > maxEvidence || len(c.TakesAlong) > maxRelated || len(c.ImageVolumes) > maxRelated {
		return errors.New("is too long")
	}
	size := len(c.State) + len(c.DisplayName) + len(c.Group) + len(c.Revision)
	for _, e := range c.Evidence {
		size += len(e.Detail) + len(e.Path)
	}
	labels := 0
	for key, value := range c.Labels {
		labels += len(key) + len(value)
	}
	if size > maxText || labels > maxLabels {
		return errors.New("is too long")
	}
	return nil
}

// ours is a valid claim on our terms: a state that we do not know counts as running and so never
// as idle, and a plugin cannot speak for the kernel or for another plugin.
func ours(name string, c core.Claim) core.Claim {
	switch c.State {
	case core.StateNone, core.StateCreated, core.StateRunning, core.StatePaused, core.StateStopped,
		core.StateBuilding, core.StateRemoving:
	default:
		c.State = core.StateRunning
		if c.Use == core.UseIdle {
			c.Use = core.UseUnknown
		}
	}
	c.Evidence = slices.Clone(c.Evidence)
	for i := range c.Evidence {
		c.Evidence[i].Source = name
	}
	c.Labels = maps.Clone(c.Labels)
	c.TakesAlong = slices.DeleteFunc(slices.Clone(c.TakesAlong), func(id core.ContainerID) bool { return id == c.Container })
	return c
}
