package cstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// CompleteInterrupted ends image deletions that a killed process left half-done, and says what is left
// of their chains. Deletions of processes that live are waited for. Each stays announced, and is returned
// again with nothing new deleted, until Conclude. What a load has left that was killed goes too.
func (s *Store) CompleteInterrupted(ctx context.Context) ([]core.Interrupted, error) {
	loadErr := s.clearInterruptedLoad(ctx)
	if pending, err := s.pending(); err != nil || !pending {
		return nil, errors.Join(loadErr, err)
	}
	unlock, err := s.lockIntents(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	intents, err := s.intents()
	errs := []error{loadErr, err}
	var completed []core.Interrupted
	for _, i := range intents {
		interrupted, begun, err := s.complete(ctx, i)
		errs = append(errs, err)
		if begun && err == nil {
			completed = append(completed, interrupted)
		}
	}
	return completed, errors.Join(errs...)
}

// Conclude ends the announcement of an interrupted deletion that is completed: what is left of its chain
// was deleted too, or is to stay. It is named by its first image; one that is gone is ignored.
func (s *Store) Conclude(ctx context.Context, id core.ImageID) error {
	unlock, err := s.lockIntents(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	intents, _ := s.intents() // As in begin.
	for _, i := range intents {
		if i.first() == id && i.Done {
			return s.drop(i)
		}
	}
	return nil
}

// complete brings a deletion to its end, and says whether it had begun. Where the record of the first is
// there, it had not, for the library deletes the record before the layers, or the image has come back
// since. The caller holds the lock, and no process works on it.
func (s *Store) complete(ctx context.Context, i *intent) (interrupted core.Interrupted, begun bool, err error) {
	records, err := s.read(ctx)
	if err != nil {
		return interrupted, false, err
	}
	interrupted.Image = i.Images[0].Image
	for n := range i.Images {
		if image := &i.Images[n]; !i.Done && !records.has(image.Image.ID) {
			if err := s.deleteOrphans(ctx, records, image); err != nil {
				return interrupted, true, err
			}
			interrupted.Deleted = append(interrupted.Deleted, image.Image)
		}
	}
	if records.has(i.first()) {
		return interrupted, false, s.drop(i)
	}
	if interrupted.Rest, err = s.rest(ctx, records, i); err != nil || i.Done {
		return interrupted, true, err
	}
	i.Done = true
	return interrupted, true, s.announce(i)
}

// rest lists the images of a chain after the first that are there and dangle, once those before them are
// gone.
func (s *Store) rest(ctx context.Context, r *records, i *intent) ([]core.ImageID, error) {
	images, err := s.images(ctx, r)
	if err != nil {
		return nil, err
	}
	snapshot := core.Snapshot{Images: images}
	var rest []core.ImageID
	for _, announced := range i.Images[1:] {
		image, there := snapshot.Image(announced.Image.ID)
		if !there {
			continue
		}
		built := slices.DeleteFunc(snapshot.Children(image.ID), func(id core.ImageID) bool { return slices.Contains(rest, id) })
		if image.ReadOnly || !image.Dangling() || len(built) > 0 || r.containerOf(image.ID) != nil {
			break
		}
		rest = append(rest, image.ID)
	}
	return rest, nil
}

// deleteOrphans deletes what a deletion of an image has left of its layers.
func (s *Store) deleteOrphans(ctx context.Context, r *records, image *intentImage) error {
	for _, layer := range image.Layers {
		if !r.layers.orphan(r, layer) {
			continue
		}
		if err := s.deleteLayer(ctx, r, layer.ID); err != nil {
			return fmt.Errorf("complete the deletion of image %s: %w", image.Image.ID.Short(), err)
		}
	}
	return nil
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
