package cstore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// DeleteContainer deletes a container's record, its directories and its layer; a record that a crash
// left without a layer too. core.ErrContainerUnknown where there is none. The caller has made sure
// that no mount remains at or below the layer directory: the library deletes through mounts.
// core.ErrStillInUse where an engine has mounted the container since c was looked at.
//
// That is looked up just before the library waits for the store's lock, and the library gives no way
// to look once it has it: an engine that gets the lock in between still mounts unseen.
func (s *Store) DeleteContainer(ctx context.Context, c core.Container) error {
	return s.call(ctx, "delete container "+c.ID.Short(), func(lib storage.Store) error {
		// The library takes names and prefixes for IDs.
		record, err := lib.Container(string(c.ID))
		if err != nil {
			return err
		}
		if record.ID != string(c.ID) {
			return storage.ErrContainerUnknown
		}
		s.at("delete_container")
		count, err := lib.Mounted(record.LayerID)
		// Without its layer there is only the record to delete.
		if err != nil && !errors.Is(err, storage.ErrLayerUnknown) {
			return err
		}
		if count > c.Layer.MountCount {
			return fmt.Errorf("it was mounted meanwhile: %w", core.ErrStillInUse)
		}
		return lib.DeleteContainer(record.ID)
	})
}

// RemoveNames takes names away from an image and leaves the others. Names that are gone, or have
// gone to another image, are ignored. Errors: core.ErrImageUnknown, core.ErrReadOnly.
func (s *Store) RemoveNames(ctx context.Context, id core.ImageID, names []string) error {
	records, err := s.read(ctx)
	if err != nil {
		return err
	}
	image := records.image(id)
	if image == nil {
		return fmt.Errorf("untag image %s: %w", id.Short(), core.ErrImageUnknown)
	}
	// The library would copy the record out of the additional store (v1.59.1, store.go, updateNames).
	if image.ReadOnly {
		return fmt.Errorf("untag image %s: %w", id.Short(), core.ErrReadOnly)
	}
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !slices.Contains(image.Names, name) })
	if len(names) == 0 {
		return nil
	}
	return s.call(ctx, "untag image "+id.Short(), func(lib storage.Store) error {
		err := lib.RemoveNames(string(id), names)
		if errors.Is(err, storage.ErrLayerUnknown) { // The library's last word for an ID that is nothing at all.
			return storage.ErrImageUnknown
		}
		return err
	})
}
