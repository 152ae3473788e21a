package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// removeImages takes away the names and images of one removal, in the plan's order, once all its
// containers are gone.
func (x *execution) removeImages(ctx context.Context, r *Result) {
	if !r.OK() {
		return
	}
	untag := make(map[ImageID][]Action)
	var chain []Action
	for _, a := range r.Removal.Actions {
		switch a.Verb {
		case VerbUntag:
			untag[a.Image] = append(untag[a.Image], a)
		case VerbDeleteImage:
			chain = append(chain, a)
		case VerbStop, VerbKill, VerbRemove, VerbUnmount, VerbDeleteContainer:
		}
	}
	if len(chain) > 0 {
		x.deleteChain(ctx, r, chain, untag)
		return
	}
	for _, a := range untag[r.Removal.Image] {
		x.started(a)
		err := ctx.Err()
		if err == nil {
			x.step("untag")
			err = x.Store.RemoveNames(ctx, a.Image, []string{a.Name})
		}
		if err != nil && !errors.Is(err, ErrImageUnknown) {
			x.failFor(r, a, err)
			return
		}
		x.doneFor(r, a)
	}
}

// deleteChain deletes an image and the dangling parents that go after it. All of them are announced
// first: a process that dies leaves word of what it had yet to do.
func (x *execution) deleteChain(ctx context.Context, r *Result, chain []Action, untag map[ImageID][]Action) {
	ids := make([]ImageID, len(chain))
	for i, a := range chain {
		ids[i] = a.Image
	}
	x.started(chain[0])
	deletion, err := x.Store.BeginDeletion(ctx, ids)
	if err != nil {
		x.failFor(r, chain[0], err)
		return
	}
	defer func() {
		if err := deletion.End(ctx); err != nil {
			x.failFor(r, chain[0], err)
		}
	}()
	for i, a := range chain {
		if i > 0 {
			x.started(a)
		}
		err := ctx.Err()
		if err == nil {
			a.Bytes, err = x.deleteImage(ctx, deletion, a.Image, untag[a.Image])
		}
		if err != nil && !errors.Is(err, ErrImageUnknown) {
			x.failFor(r, a, err)
			return
		}
		for _, u := range untag[a.Image] {
			x.doneFor(r, u)
		}
		x.doneFor(r, a)
	}
}

// deleteImage deletes an image after a last look: it must be as the plan took it to be, and nothing may
// use the layers that go with it or be mounted there, for the store deletes through mounts. It returns
// the bytes given free.
func (x *execution) deleteImage(ctx context.Context, deletion Deletion, id ImageID, untag []Action) (int64, error) {
	x.step("look_image")
	snapshot, err := x.Store.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	image, ok := snapshot.Image(id)
	if !ok {
		return 0, ErrImageUnknown
	}
	if err := x.asPlanned(snapshot, image, untag); err != nil {
		return 0, err
	}
	if err := x.noNewVolume(ctx, snapshot, id); err != nil {
		return 0, err
	}
	if len(image.OwnLayers) > 0 {
		x.step("unmount_image")
		if _, err := x.Kernel.Release(ctx, image.OwnLayers...); err != nil {
			var busy *BusyError
			if errors.As(err, &busy) && busy.Container == "" {
				busy.Image = id
			}
			return 0, err
		}
	}
	x.step("delete_image")
	if err := deletion.Delete(ctx, image); err != nil {
		return 0, err
	}
	return max(image.UniqueSize, 0), nil
}

// asPlanned is what has changed in the store about an image since the plan was made.
func (x *execution) asPlanned(snapshot *Snapshot, image Image, untag []Action) error {
	for _, name := range image.Names {
		if !slices.ContainsFunc(untag, func(a Action) bool { return a.Name == name }) {
			return fmt.Errorf("the image was given the name %s meanwhile: %w", name, ErrPlanStale)
		}
	}
	if of := snapshot.ContainersOf(image.ID); len(of) > 0 {
		return fmt.Errorf("container %s of the image was created meanwhile: %w", of[0].ID.Short(), ErrStillInUse)
	}
	if children := snapshot.Children(image.ID); len(children) > 0 {
		return fmt.Errorf("image %s was built on it meanwhile: %w", children[0].Short(), ErrPlanStale)
	}
	planned := x.plan.facts.Snapshot.ListsWith(image.ID)
	for _, list := range snapshot.ListsWith(image.ID) {
		// One that the plan knew was to go first, or is lifted by force.
		if x.plan.Force < ForceIdle || !slices.Contains(planned, list) {
			return fmt.Errorf("the manifest list %s holds it: %w", list.Short(), ErrPlanStale)
		}
	}
	counts := make(map[LayerID]int)
	for _, i := range x.plan.facts.Snapshot.Images {
		for _, layer := range i.layers() {
			counts[layer.ID] = layer.MountCount
		}
	}
	for _, layer := range image.layers() {
		if layer.MountCount > counts[layer.ID] {
			return fmt.Errorf("the image was mounted meanwhile: %w", ErrStillInUse)
		}
	}
	return nil
}

// noNewVolume makes sure that no container which was created since the plan mounts an image as a volume.
// Only its owner knows.
func (x *execution) noNewVolume(ctx context.Context, snapshot *Snapshot, id ImageID) error {
	var created []Container
	for _, c := range snapshot.Containers {
		if _, known := x.plan.facts.Snapshot.Container(c.ID); !known {
			created = append(created, c)
		}
	}
	holdings := x.claim(ctx, x.store, created)
	for _, c := range created {
		h := holdings[c.ID]
		name := label(displayName(c, h), string(c.ID))
		switch {
		case slices.Contains(h.Claim.ImageVolumes, id):
			return fmt.Errorf("container %s was created meanwhile and mounts the image as a volume: %w", name, ErrPlanStale)
		case h.Kind != Unowned && h.Owner() == "":
			return fmt.Errorf("container %s was created meanwhile, and whether it mounts the image as a volume is not known: %w", name, ErrPlanStale)
		}
	}
	return nil
}
