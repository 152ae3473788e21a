package cstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containers/storage"
	"github.com/moby/sys/mountinfo"

	"github.com/unmoor/unmoor/core"
)

// DeleteImage deletes an image's record and the layers that nothing else uses. Where an earlier
// process died in that, it deletes the layers that are left and reports success. ctx ends the wait
// for another process's deletion; once that is over, this one is not broken off. Where next is not
// empty, the announcement stays until the deletion of that image begins. Errors:
// core.ErrImageUnknown, core.ErrImageInUse, core.ErrReadOnly.
func (s *Store) DeleteImage(ctx context.Context, id, next core.ImageID) error {
	what := "delete image " + id.Short()
	records, err := s.read(ctx)
	if err != nil {
		return err
	}
	// What cannot be deleted is refused before anything is written.
	if err := deletable(records, id); err != nil {
		pending, pendingErr := s.pending()
		if pendingErr != nil {
			return pendingErr
		}
		if !pending || !errors.Is(err, core.ErrImageUnknown) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	unlock, err := s.lockIntents(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	ctx = context.WithoutCancel(ctx)
	// Before a new announcement takes the place of an old one.
	completed, completeErr := s.completeLocked(ctx, id)
	records, err = s.read(ctx)
	if err != nil {
		return err
	}
	if err := deletable(records, id); err != nil {
		if errors.Is(err, core.ErrImageUnknown) && len(completed) > 0 && completeErr == nil {
			return nil
		}
		return errors.Join(fmt.Errorf("%s: %w", what, err), completeErr)
	}
	i, err := s.intend(ctx, records, id)
	if err != nil {
		return err
	}
	i.Next = next
	s.at("announce")
	if err := s.announce(i); err != nil {
		return err
	}
	if err := s.begun(id); err != nil {
		return err
	}
	s.at("delete")
	err = s.call(ctx, what, func(lib storage.Store) error {
		_, err := lib.DeleteImage(string(id), true)
		if errors.Is(err, storage.ErrLayerUnknown) {
			// The record is gone; a layer of it lies in an additional store or was lost before, and
			// the library left it at that. What remains is completed below.
			return nil
		}
		return err
	})
	s.at("complete")
	// Also after an error: it may have come when the record was gone already. If the record is still
	// there, nothing was deleted, and only the announcement goes.
	_, completeErr = s.complete(ctx, i)
	return errors.Join(err, completeErr)
}

// deletable is the reason why an image's record cannot be deleted.
func deletable(r *records, id core.ImageID) error {
	image := r.image(id)
	switch {
	case image == nil:
		return core.ErrImageUnknown
	case image.ReadOnly:
		return core.ErrReadOnly
	}
	if c := r.containerOf(id); c != nil {
		return fmt.Errorf("%w %s", core.ErrImageInUse, core.ContainerID(c.ID).Short())
	}
	return nil
}

// intend makes the announcement of the deletion of an image, which the records have.
func (s *Store) intend(ctx context.Context, r *records, id core.ImageID) (*intent, error) {
	images, err := s.images(ctx, r)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(images, func(i core.Image) bool { return i.ID == id })
	record := &r.images[at]
	i := &intent{Version: 1, Image: images[at]}
	i.Image.OwnLayers = nil // Layers says more.
	for _, layer := range r.layers.all(record) {
		i.Layers = append(i.Layers, intentLayer{core.LayerID(layer), r.layers.byID[layer].Created})
	}
	return i, nil
}

// CompleteInterrupted ends image deletions that a killed process left half-done. It returns the
// images whose record was gone and whose layers are deleted now, as they were, with names and parent.
// Deletions of processes that live are waited for.
func (s *Store) CompleteInterrupted(ctx context.Context) ([]core.Interrupted, error) {
	if pending, err := s.pending(); err != nil || !pending {
		return nil, err
	}
	unlock, err := s.lockIntents(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s.completeLocked(ctx, "")
}

// completeLocked completes the deletions that are announced: of one image, or of all where id is
// empty.
func (s *Store) completeLocked(ctx context.Context, id core.ImageID) ([]core.Interrupted, error) {
	intents, err := s.intents()
	if id != "" {
		err = nil // Another image's announcement is no matter of this one.
	}
	var completed []core.Interrupted
	errs := []error{err}
	for _, i := range intents {
		if id != "" && i.Image.ID != id {
			continue
		}
		done, err := s.complete(ctx, i)
		errs = append(errs, err)
		if done {
			completed = append(completed, core.Interrupted{Image: i.Image, Next: i.Next})
		}
	}
	return completed, errors.Join(errs...)
}

// complete brings a deletion to its end, and says whether the record was gone. Where the record is
// there, the deletion had not begun, for the library deletes the record first, or the image has come
// back since. The announcement goes last. The caller holds the lock.
func (s *Store) complete(ctx context.Context, i *intent) (done bool, err error) {
	records, err := s.read(ctx)
	if err != nil {
		return false, err
	}
	if image := records.image(i.Image.ID); image != nil && !image.ReadOnly {
		return false, s.drop(i)
	}
	for _, layer := range i.Layers {
		if !records.layers.orphan(records, layer) {
			continue
		}
		if err := s.deleteLayer(ctx, records, layer.ID); err != nil {
			return false, fmt.Errorf("complete the deletion of image %s: %w", i.Image.ID.Short(), err)
		}
	}
	if i.Next != "" && records.dangles(i.Next) {
		return true, nil
	}
	i.Next = ""
	return true, s.drop(i)
}

// begun drops the announcements that only wait for the deletion of this image, which has its own now.
func (s *Store) begun(id core.ImageID) error {
	// One that cannot be read is no matter of this image; the next completion reports it.
	intents, _ := s.intents()
	for _, i := range intents {
		if i.Next == id {
			if err := s.drop(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// dangles is whether an image is there that has no name, and nothing on it.
func (r *records) dangles(id core.ImageID) bool {
	image := r.image(id)
	if image == nil || image.ReadOnly || len(image.Names) > 0 || r.containerOf(id) != nil {
		return false
	}
	for _, top := range tops(image) {
		if len(r.layers.children[top]) > 0 || r.layers.tops[top] > 1 {
			return false
		}
	}
	return true
}

// orphan is whether a layer is there, the same one, and nothing refers to it.
func (l layers) orphan(r *records, wanted intentLayer) bool {
	record, ok := l.byID[string(wanted.ID)]
	if !ok || record.ReadOnly || !record.Created.Equal(wanted.Created) {
		return false
	}
	if len(l.children[record.ID]) > 0 || l.tops[record.ID] > 0 {
		return false
	}
	for i := range r.containers {
		if r.containers[i].LayerID == record.ID {
			return false
		}
	}
	return true
}

// deleteLayer deletes a layer that nothing refers to, and takes it out of the records. A layer that
// has come into use meanwhile is kept.
func (s *Store) deleteLayer(ctx context.Context, r *records, id core.LayerID) error {
	what := "delete layer " + id.Short()
	// No one has made sure that nothing is mounted here, and the library deletes through mounts.
	directory := s.layer(r.layers, string(id)).Directory
	mount, err := mountBelow(directory)
	if err != nil {
		return fmt.Errorf("%s: look for mounts below %s: %w", what, directory, err)
	}
	if mount != "" {
		return fmt.Errorf("%s: %s is mounted: unmount it and try again: %w", what, mount, core.ErrStillInUse)
	}
	s.at("layer")
	err = s.call(ctx, what, func(lib storage.Store) error {
		err := lib.DeleteLayer(string(id))
		for _, kept := range []error{
			storage.ErrLayerHasChildren, storage.ErrLayerUsedByImage, storage.ErrLayerUsedByContainer,
			storage.ErrLayerUnknown, storage.ErrNotALayer,
		} {
			if errors.Is(err, kept) {
				return nil
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	r.layers.forget(string(id))
	return nil
}

// forget takes a layer out of its parent's children.
func (l layers) forget(id string) {
	parent := l.byID[id].Parent
	var rest []string
	for _, child := range l.children[parent] {
		if child != id {
			rest = append(rest, child)
		}
	}
	l.children[parent] = rest
	delete(l.byID, id)
}

// mountBelow finds a mount at or below a directory in this mount namespace.
func mountBelow(directory string) (string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(directory))
	if err != nil || len(mounts) == 0 {
		return "", err
	}
	return mounts[0].Mountpoint, nil
}
