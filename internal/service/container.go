package service

import (
	"context"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Container is a container with all that is known of its use.
type Container struct {
	ID core.ContainerID `json:"id"`
	// Names are those in the store, DisplayName is what its owner calls it.
	Names       []string     `json:"names"`
	DisplayName string       `json:"displayName,omitempty"`
	ImageID     core.ImageID `json:"imageId"`
	// Image is the first name of the image; empty where it has none.
	Image   string           `json:"image"`
	LayerID core.LayerID     `json:"layerId"`
	Created time.Time        `json:"created"`
	Holding core.HoldingKind `json:"holding"`
	Owners  []string         `json:"owners"`
	State   core.State       `json:"state,omitempty"`
	Use     core.Use         `json:"use"`
	// Reason is one clause: why the use is what it is. Advice is what to do where the holding is
	// undetermined.
	Reason string `json:"reason"`
	Advice string `json:"advice,omitempty"`
	// Group is the pod or build that it belongs to.
	Group  string `json:"group,omitempty"`
	Mounts int    `json:"mounts"`
	// Size is the bytes of the writable layer; nil where it was not asked for or is not known.
	Size     *int64          `json:"size,omitempty"`
	Evidence []core.Evidence `json:"evidence"`
}

// ContainerQuery chooses containers: all, those of an image, or one.
type ContainerQuery struct {
	// Container and Image are references; where both are set, the container is to be one of the image's.
	Container string
	Image     string
	// Size is whether to measure the writable layers.
	Size bool
}

// Containers tells of each container that the query means, in the store's order, and ends at the first
// error of each. Errors: core.ErrContainerUnknown, core.ErrImageUnknown, *core.AmbiguousError, that of each,
// and what could not be found out.
func (l *Local) Containers(ctx context.Context, q ContainerQuery, each func(Container) error) error {
	snapshot, err := l.Engine.Store.Snapshot(ctx)
	if err != nil {
		return err
	}
	asked := &core.Snapshot{Store: snapshot.Store, Containers: snapshot.Containers}
	if q.Image != "" {
		id, _, err := l.Engine.Store.ResolveImage(ctx, snapshot, q.Image)
		if err != nil {
			return err
		}
		asked.Containers = snapshot.ContainersOf(id)
	}
	if q.Container != "" {
		c, err := (&names{snapshot: asked, owners: l.Engine.Owners}).container(ctx, q.Container)
		if err != nil {
			return err
		}
		asked.Containers = []core.Container{c}
	}
	holders, err := l.survey(ctx, snapshot, asked.Containers)
	if err != nil {
		return err
	}
	for i, c := range holders {
		if q.Size {
			if bytes, err := l.Engine.Store.ContainerSize(ctx, asked.Containers[i]); err == nil {
				c.Size = &bytes
			} // a layer that cannot be read: its size is not known, the rest is
		}
		if err := each(c); err != nil {
			return err
		}
	}
	return ctx.Err() // which would have kept sizes from being known
}

// survey says who owns the containers and whether they are in use, in their order.
func (l *Local) survey(ctx context.Context, snapshot *core.Snapshot, containers []core.Container) ([]Container, error) {
	if len(containers) == 0 {
		return nil, nil
	}
	holders, err := l.Engine.Survey(ctx, snapshot, containers)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all := make([]Container, len(holders))
	for i, h := range holders {
		c, held := h.Container, h.Holding
		all[i] = Container{
			ID: c.ID, Names: append([]string{}, c.Names...), DisplayName: held.Claim.DisplayName,
			ImageID: c.ImageID, LayerID: c.LayerID, Created: c.Created,
			Holding: held.Kind, Owners: append([]string{}, held.Owners...), State: held.Claim.State,
			Use: h.Use, Reason: h.Reason, Group: held.Claim.Group, Mounts: c.Layer.MountCount,
			Evidence: append(append([]core.Evidence{}, held.Claim.Evidence...), h.Observation.Evidence...),
		}
		if held.Kind == core.Undetermined {
			all[i].Advice = held.Advice
		}
		if image, ok := snapshot.Image(c.ImageID); ok {
			all[i].Image = imageName(image, "")
		}
	}
	return all, nil
}

// ContainerNames lists what the store calls its containers, for completion; an ID, cut, stands for one
// without a name. No engine is asked.
func (l *Local) ContainerNames(ctx context.Context) ([]string, error) {
	snapshot, err := l.Engine.Store.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range snapshot.Containers {
		if names = append(names, c.Names...); len(c.Names) == 0 {
			names = append(names, c.ID.Short())
		}
	}
	return names, nil
}
