package cstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// deletion deletes the images of one announcement. Whoever has it holds the lock.
type deletion struct {
	store  *Store
	unlock func()
	// intent has the images of the chain that are there; it is nil where none is.
	intent *intent
	// deleted are the images that are gone whole, broken whether one is gone and left layers.
	deleted map[core.ImageID]bool
	broken  bool
}

// BeginDeletion waits until no other process deletes images, completes what one died in that concerns
// the chain, and announces the chain. ctx ends the wait. End ends it all.
func (s *Store) BeginDeletion(ctx context.Context, chain []core.ImageID) (core.Deletion, error) {
	unlock, err := s.lockIntents(ctx)
	if err != nil {
		return nil, err
	}
	d := &deletion{store: s, unlock: unlock, deleted: make(map[core.ImageID]bool)}
	if d.intent, err = s.begin(ctx, chain); err != nil {
		unlock()
		return nil, err
	}
	return d, nil
}

func (s *Store) begin(ctx context.Context, chain []core.ImageID) (*intent, error) {
	// Before a new announcement takes the place of an old one. One that cannot be read is no matter of
	// this chain; the next completion reports it.
	old, _ := s.intents()
	for _, i := range old {
		if slices.ContainsFunc(i.Images, func(i intentImage) bool { return slices.Contains(chain, i.Image.ID) }) {
			if _, _, err := s.complete(ctx, i); err != nil {
				return nil, err
			}
		}
	}
	records, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	i, err := s.intend(ctx, records, chain)
	if err != nil || i == nil {
		return nil, err
	}
	s.at("announce")
	return i, s.announce(i)
}

// Delete deletes the record of an image of the chain and the layers that nothing else uses. image is
// the image as it was last looked at: what has changed since keeps it. The library gives no way to look
// once it has the store's lock: what gets it just before is not seen. Errors: core.ErrImageUnknown,
// core.ErrImageInUse, core.ErrReadOnly, core.ErrPlanStale, core.ErrStillInUse. A deletion that has begun
// is not broken off.
func (d *deletion) Delete(ctx context.Context, image core.Image) error {
	what := "delete image " + image.ID.Short()
	ctx = context.WithoutCancel(ctx)
	d.store.at("delete")
	records, err := d.store.read(ctx)
	if err != nil {
		return err
	}
	if err := d.store.unchanged(records, image); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	at := -1
	if d.intent != nil {
		at = slices.IndexFunc(d.intent.Images, func(i intentImage) bool { return i.Image.ID == image.ID })
	}
	if at < 0 {
		return fmt.Errorf("%s: it was not announced: %w", what, core.ErrPlanStale)
	}
	err = d.store.call(ctx, what, func(lib storage.Store) error {
		_, err := lib.DeleteImage(string(image.ID), true)
		if errors.Is(err, storage.ErrLayerUnknown) {
			// The record is gone; a layer of it lies in an additional store or was lost before, and
			// the library left it at that. What remains is completed below.
			return nil
		}
		return err
	})
	d.store.at("complete")
	// Also after an error: it may have come when the record was gone already.
	records, readErr := d.store.read(ctx)
	if readErr == nil && records.has(image.ID) {
		return err // Nothing was deleted.
	}
	if readErr == nil {
		readErr = d.store.deleteOrphans(ctx, records, &d.intent.Images[at])
	}
	if err = errors.Join(err, readErr); err != nil {
		d.broken = true
		return err
	}
	d.deleted[image.ID] = true
	return nil
}

// End drops the announcement and the lock. What is left of the chain stays announced where ctx has ended,
// so that the same request goes on with it, and so does everything where a deletion broke.
func (d *deletion) End(ctx context.Context) error {
	defer d.unlock()
	switch {
	case d.intent == nil || d.broken:
		return nil
	case ctx.Err() != nil && d.deleted[d.intent.first()] && len(d.deleted) < len(d.intent.Images):
		d.intent.Done = true
		return d.store.announce(d.intent)
	}
	return d.store.drop(d.intent)
}

// unchanged is the reason why an image may not be deleted as it was looked at.
func (s *Store) unchanged(r *records, image core.Image) error {
	if err := deletable(r, image.ID); err != nil {
		return err
	}
	record := r.image(image.ID)
	if !slices.Equal(record.Names, image.Names) {
		return fmt.Errorf("its names are [%s] now: %w", strings.Join(record.Names, " "), core.ErrPlanStale)
	}
	var directories []string
	for _, id := range r.layers.own(record) {
		at := slices.IndexFunc(image.OwnLayers, func(l core.Layer) bool { return string(l.ID) == id })
		if at < 0 {
			return fmt.Errorf("layer %s goes with it now: %w", core.LayerID(id).Short(), core.ErrPlanStale)
		}
		layer := s.layer(r.layers, id)
		if layer.MountCount > image.OwnLayers[at].MountCount {
			return fmt.Errorf("it was mounted meanwhile: %w", core.ErrStillInUse)
		}
		directories = append(directories, layer.Directory)
	}
	// The library deletes through mounts.
	mount, err := mountBelow(directories...)
	if err != nil {
		return fmt.Errorf("look for mounts of its layers: %w", err)
	}
	if mount != "" {
		return fmt.Errorf("%s is mounted: %w", mount, core.ErrStillInUse)
	}
	return nil
}

// has is whether a record is there in the store itself.
func (r *records) has(id core.ImageID) bool {
	image := r.image(id)
	return image != nil && !image.ReadOnly
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

// intend makes the announcement of those of a chain that the records have; nil where they have none.
func (s *Store) intend(ctx context.Context, r *records, chain []core.ImageID) (*intent, error) {
	images, err := s.images(ctx, r)
	if err != nil {
		return nil, err
	}
	i := &intent{Version: 1}
	for _, id := range chain {
		at := slices.IndexFunc(images, func(i core.Image) bool { return i.ID == id && !i.ReadOnly })
		if at < 0 {
			continue
		}
		announced := intentImage{Image: images[at]}
		announced.Image.OwnLayers = nil // Layers says more.
		for _, layer := range r.layers.all(&r.images[at]) {
			announced.Layers = append(announced.Layers, intentLayer{core.LayerID(layer), r.layers.byID[layer].Created})
		}
		i.Images = append(i.Images, announced)
	}
	if len(i.Images) == 0 {
		return nil, nil
	}
	return i, nil
}
