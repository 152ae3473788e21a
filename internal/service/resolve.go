package service

import (
	"context"
	"errors"
	"strings"

	"github.com/unmoor/unmoor/core"
)

// job is a request on its way to a plan: what its targets mean in one snapshot.
type job struct {
	*Local
	snapshot *core.Snapshot
	names    *names
	request  core.Request
	// images and containers say how the request's are called.
	images, containers []called
	outcome            *Outcome
	// completed are deletions that an earlier process was killed in, meant those that a reference means.
	completed []core.Interrupted
	meant     map[core.ImageID]bool
}

// called is what a target was asked for by, and its name.
type called struct{ reference, name string }

func (l *Local) job(r Request) *job {
	return &job{Local: l, outcome: new(Outcome), meant: make(map[core.ImageID]bool),
		request: core.Request{Force: r.Force, Grace: l.grace(r.Grace), NoPrune: r.NoPrune, Revision: r.Revision}}
}

// Meaning is what targets mean now.
type Meaning struct {
	// Targets are the full IDs of the images and containers, Along those of the images' containers, which
	// may go with them.
	Targets, Along []string
	Refusals       []Refusal
}

// Resolve finds out what targets mean now.
func (l *Local) Resolve(ctx context.Context, t Targets) (*Meaning, error) {
	j := l.job(Request{})
	if err := j.resolve(ctx, t); err != nil {
		return nil, err
	}
	m := &Meaning{Refusals: j.outcome.Refusals}
	for _, i := range j.request.Images {
		m.Targets = append(m.Targets, string(i.ID))
		for _, c := range j.snapshot.ContainersOf(i.ID) {
			m.Along = append(m.Along, string(c.ID))
		}
	}
	for _, id := range j.request.Containers {
		m.Targets = append(m.Targets, string(id))
	}
	return m, nil
}

// resolve fills the request. What a reference lacks is a refusal; an error is that nothing could be found
// out.
func (j *job) resolve(ctx context.Context, t Targets) error {
	if err := t.Check(); err != nil {
		return err
	}
	snapshot, err := j.Engine.Store.Snapshot(ctx)
	if err != nil {
		return err
	}
	j.snapshot, j.names = snapshot, &names{snapshot: snapshot, owners: j.Engine.Owners}
	images, containers := t.Images, t.Containers
	for _, reference := range t.Either {
		_, err := j.image(ctx, reference)
		// An image whose interrupted deletion was completed just now is what was meant, and no container.
		if errors.Is(err, core.ErrImageUnknown) && !j.completes(ctx, reference) {
			if _, err := j.names.container(ctx, reference); !errors.Is(err, core.ErrContainerUnknown) {
				containers = append(containers[:len(containers):len(containers)], reference)
				continue
			}
		}
		images = append(images[:len(images):len(images)], reference)
	}
	if t.AllImages {
		j.addAllImages()
	}
	for _, reference := range images {
		j.addImage(ctx, reference)
	}
	if t.AllContainers {
		for _, c := range snapshot.Containers {
			j.addContainer(c, firstName(c), c.ID.Short())
		}
	}
	for _, reference := range containers {
		c, err := j.names.container(ctx, reference)
		if err != nil {
			j.refuse(reference, err)
			continue
		}
		name := reference
		if strings.HasPrefix(string(c.ID), reference) {
			name = firstName(c)
		}
		j.addContainer(c, name, reference)
	}
	return ctx.Err() // which would be the refusals'
}

// image finds the image that a reference means.
func (j *job) image(ctx context.Context, reference string) (core.ImageTarget, error) {
	id, name, err := j.Engine.Store.ResolveImage(ctx, j.snapshot, reference)
	return core.ImageTarget{ID: id, Name: name, Reference: reference}, err
}

func (j *job) addImage(ctx context.Context, reference string) {
	target, err := j.image(ctx, reference)
	switch {
	case errors.Is(err, core.ErrImageUnknown) && j.completes(ctx, reference):
	case err != nil:
		j.refuse(reference, err)
	default:
		image, _ := j.snapshot.Image(target.ID)
		j.addTarget(target, imageName(image, target.Name))
	}
}

func (j *job) addAllImages() {
	var images []core.Image
	for _, i := range j.snapshot.Images {
		if !i.ReadOnly {
			images = append(images, i)
		}
	}
	for _, i := range childrenFirst(images) {
		name := imageName(i, "")
		reference := name
		if reference == "" {
			reference = i.ID.Short()
		}
		j.addTarget(core.ImageTarget{ID: i.ID, All: true, Reference: reference}, name)
	}
}

func (j *job) addTarget(t core.ImageTarget, name string) {
	j.request.Images = append(j.request.Images, t)
	j.images = append(j.images, called{t.Reference, name})
}

func (j *job) addContainer(c core.Container, name, reference string) {
	j.request.Containers = append(j.request.Containers, c.ID)
	j.containers = append(j.containers, called{reference, name})
}

func (j *job) refuse(reference string, err error) {
	var ambiguous *core.AmbiguousError
	if errors.As(err, &ambiguous) { // which may have it under the name that it stands for
		err = &core.AmbiguousError{Reference: reference, Candidates: ambiguous.Candidates}
	}
	j.outcome.Refusals = append(j.outcome.Refusals, Refusal{reference, err})
}
