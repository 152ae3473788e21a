package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
)

// Explanation is everything that stands in the way of removing an image or a container.
type Explanation struct {
	// One of Image and Container is set.
	Image     core.ImageID
	Container core.ContainerID
	// Name is what it is called, Names are all that it has.
	Name  string
	Names []string
	// LeastForce removes it; none where nothing but the command itself is needed, and where Lifted is
	// false no force does.
	LeastForce core.Force
	Lifted     bool
	// Blockers are everything that stands in the way without force, idle containers included.
	Blockers []core.Blocker
	// Holders are the containers among them, with all that is known.
	Holders []Container
}

// Explain asks about one image or, where there is none of that name, container: as for a removal of it
// without force. Errors: core.ErrContainerUnknown where it is neither, *core.AmbiguousError, and what could
// not be found out.
func (l *Local) Explain(ctx context.Context, reference string) (*Explanation, error) {
	snapshot, err := l.Engine.Store.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	e := &Explanation{Names: []string{}, Blockers: []core.Blocker{}, Holders: []Container{}}
	var request core.Request
	id, name, err := l.Engine.Store.ResolveImage(ctx, snapshot, reference)
	switch {
	case err == nil:
		image, _ := snapshot.Image(id)
		e.Image, e.Name, e.Names = id, imageName(image, name), append(e.Names, image.Names...)
		request.Images = []core.ImageTarget{{ID: id, All: true, Reference: reference}}
	case errors.Is(err, core.ErrImageUnknown):
		c, err := (&names{snapshot: snapshot, owners: l.Engine.Owners}).container(ctx, reference)
		if err != nil {
			return nil, err
		}
		e.Container, e.Name, e.Names = c.ID, firstName(c), append(e.Names, c.Names...)
		request.Containers = []core.ContainerID{c.ID}
	default:
		return nil, err
	}
	plan, err := l.Engine.Plan(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("find out what holds %s: %w", reference, err)
	}
	for _, r := range plan.Removals {
		e.Blockers = append(e.Blockers, r.Blockers...)
	}
	var hard int
	e.LeastForce, hard = LeastForce(e.Blockers)
	e.Lifted = hard == 0
	holders, err := l.survey(ctx, snapshot, e.concerned(snapshot))
	if err != nil {
		return nil, fmt.Errorf("find out what holds %s: %w", reference, err)
	}
	e.Holders = append(e.Holders, holders...)
	return e, nil
}

// concerned are the containers that are in the way, and the one that was asked about.
func (e *Explanation) concerned(snapshot *core.Snapshot) []core.Container {
	var containers []core.Container
	seen := make(map[core.ContainerID]bool)
	add := func(id core.ContainerID) {
		if c, ok := snapshot.Container(id); ok && !seen[id] {
			seen[id] = true
			containers = append(containers, c)
		}
	}
	add(e.Container)
	for _, b := range e.Blockers {
		add(b.Container)
	}
	return containers
}

// LeastForce is the least force that lifts all the blockers that a force lifts, and how many none does.
func LeastForce(blockers []core.Blocker) (least core.Force, hard int) {
	for _, b := range blockers {
		if b.LiftedBy == core.ForceNone {
			hard++
		}
		least = max(least, b.LiftedBy)
	}
	return least, hard
}
