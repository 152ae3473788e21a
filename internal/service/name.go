package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/unmoor/unmoor/core"
)

// names finds containers by what they are called.
type names struct {
	snapshot *core.Snapshot
	owners   core.Owners
	// shown are the owners' names, once they were asked.
	shown map[core.ContainerID]string
}

// container finds the container that a reference means, as Podman does: a full ID, a name in the store's
// records, a unique ID prefix; then a name that only the owner knows. Errors: core.ErrContainerUnknown,
// *core.AmbiguousError, that of ctx.
func (n *names) container(ctx context.Context, reference string) (core.Container, error) {
	c, err := recorded(n.snapshot, reference)
	if !errors.Is(err, core.ErrContainerUnknown) || reference == "" {
		return c, err
	}
	if n.shown == nil {
		shown := make(map[core.ContainerID]string)
		for id, h := range n.owners.Claim(ctx, n.snapshot.Store, n.snapshot.Containers) {
			shown[id] = h.Claim.DisplayName
		}
		if err := ctx.Err(); err != nil {
			return core.Container{}, err
		}
		n.shown = shown
	}
	return only(reference, n.snapshot.Containers, func(c core.Container) bool { return n.shown[c.ID] == reference },
		func(c core.Container) string { return c.ID.Short() })
}

// recorded finds the container that a reference means by the store's records.
func recorded(snapshot *core.Snapshot, reference string) (core.Container, error) {
	if c, ok := snapshot.Container(core.ContainerID(reference)); ok {
		return c, nil
	}
	candidate := func(c core.Container) string {
		if len(c.Names) == 0 {
			return c.ID.Short()
		}
		return c.ID.Short() + " (" + strings.Join(c.Names, ", ") + ")"
	}
	c, err := only(reference, snapshot.Containers, func(c core.Container) bool { return slices.Contains(c.Names, reference) }, candidate)
	if !errors.Is(err, core.ErrContainerUnknown) || reference == "" {
		return c, err
	}
	return only(reference, snapshot.Containers, func(c core.Container) bool { return strings.HasPrefix(string(c.ID), reference) }, candidate)
}

// only is the one container that fits.
func only(reference string, of []core.Container, fits func(core.Container) bool, candidate func(core.Container) string) (core.Container, error) {
	var found []core.Container
	for _, c := range of {
		if fits(c) {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return core.Container{}, fmt.Errorf("%s: %w", reference, core.ErrContainerUnknown)
	case 1:
		return found[0], nil
	}
	ambiguous := &core.AmbiguousError{Reference: reference}
	for _, c := range found {
		ambiguous.Candidates = append(ambiguous.Candidates, candidate(c))
	}
	slices.Sort(ambiguous.Candidates)
	return core.Container{}, ambiguous
}

// imageName is what an image is called: by the name that was asked for, or else its first.
func imageName(i core.Image, asked string) string {
	if asked == "" && len(i.Names) > 0 {
		return i.Names[0]
	}
	return asked
}

func firstName(c core.Container) string {
	if len(c.Names) == 0 {
		return ""
	}
	return c.Names[0]
}

// childrenFirst orders images so that each comes before what it is built on, and a manifest list
// before what it lists.
func childrenFirst(images []core.Image) []core.Image {
	depth := make(map[core.ImageID]int)
	byID := make(map[core.ImageID]core.Image)
	for _, i := range images {
		byID[i.ID] = i
	}
	// A parent is deeper than all that stand on it. Records that go round in a circle end the walk.
	var sink func(id core.ImageID, at int)
	sink = func(id core.ImageID, at int) {
		i, ok := byID[id]
		if !ok || at > len(images) || (at <= depth[id] && at > 0) {
			return
		}
		depth[id] = max(depth[id], at)
		sink(i.Parent, at+1)
		for _, instance := range i.Instances {
			sink(instance, at+1)
		}
	}
	for _, i := range images {
		sink(i.ID, 0)
	}
	ordered := slices.Clone(images)
	slices.SortStableFunc(ordered, func(a, b core.Image) int {
		return cmp.Or(cmp.Compare(depth[a.ID], depth[b.ID]), b.Created.Compare(a.Created))
	})
	return ordered
}
