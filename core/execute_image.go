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
	names := make(map[ImageID][]Action)
	deleted := make(map[ImageID]bool)
	next := make(map[ImageID]ImageID)
	var last ImageID
	for _, a := range r.Removal.Actions {
		switch a.Verb {
		case VerbUntag:
			names[a.Image] = append(names[a.Image], a)
		case VerbDeleteImage:
			deleted[a.Image] = true
			next[last], last = a.Image, a.Image
		case VerbStop, VerbKill, VerbRemove, VerbUnmount, VerbDeleteContainer:
		}
	}
	for _, a := range r.Removal.Actions {
		if a.Verb != VerbDeleteImage && (a.Verb != VerbUntag || deleted[a.Image]) {
			continue
		}
		x.started(a)
		err := ctx.Err()
		switch {
		case err != nil:
		case a.Verb == VerbUntag:
			x.step("untag")
			err = x.Store.RemoveNames(ctx, a.Image, []string{a.Name})
		default:
			a.Bytes, err = x.deleteImage(ctx, a.Image, next[a.Image], names[a.Image])
		}
		if err != nil && !errors.Is(err, ErrImageUnknown) {
			r.Failed = append(r.Failed, Failure{a, err})
			x.tell(Progress{Phase: PhaseFailed, Action: a, Err: err})
			return
		}
		if a.Verb == VerbDeleteImage {
			for _, untag := range names[a.Image] {
				x.doneFor(r, untag)
			}
		}
		x.doneFor(r, a)
	}
}

// deleteImage deletes an image after a last look: nothing may have been added to it since the plan
// was made, and nothing may be mounted on the layers that go with it, for the store deletes through
// mounts. It returns the bytes given free.
func (x *execution) deleteImage(ctx context.Context, id, next ImageID, untag []Action) (int64, error) {
	snapshot, err := x.Store.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	image, ok := snapshot.Image(id)
	if !ok {
		return 0, ErrImageUnknown
	}
	for _, name := range image.Names {
		if !slices.ContainsFunc(untag, func(a Action) bool { return a.Name == name }) {
			return 0, fmt.Errorf("the image was given the name %s meanwhile: %w", name, ErrPlanStale)
		}
	}
	if of := snapshot.ContainersOf(id); len(of) > 0 {
		return 0, fmt.Errorf("container %s of the image was created meanwhile: %w", of[0].ID.Short(), ErrStillInUse)
	}
	if children := snapshot.Children(id); len(children) > 0 {
		return 0, fmt.Errorf("image %s was built on it meanwhile: %w", children[0].Short(), ErrPlanStale)
	}
	for _, layer := range image.OwnLayers {
		x.step("unmount_image")
		if _, err := x.Kernel.Release(ctx, layer); err != nil {
			return 0, err
		}
	}
	x.step("delete_image")
	if err := x.Store.DeleteImage(ctx, id, next); err != nil {
		return 0, err
	}
	return max(image.UniqueSize, 0), nil
}
