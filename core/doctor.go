package core

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Doctor looks for damage in a store and around it, and repairs it.
type Doctor struct {
	// Engine removes containers and images the usual way.
	Engine *Engine
	Store  DamagedStore
	Owners Registrars
	Kernel Surveyor
	// Settled is how old a layer that belongs to nothing must be before that counts as damage: one that
	// is just being fetched belongs to nothing either. Zero is DefaultSettled.
	Settled time.Duration
}

// DefaultSettled is the age that containers/storage has for its own check (v1.59.1, check.go,
// LayerUnreferencedMaximumAge).
const DefaultSettled = 24 * time.Hour

// DamagedStore is what a doctor needs of a store beside Store.
type DamagedStore interface {
	Info() StoreInfo
	// Examine reads the store's records, and what lies beside them. Directories are listed before the
	// records are read, so that what an engine makes meanwhile is no litter.
	Examine(ctx context.Context) (*Snapshot, *Litter, error)
	// DeleteLayer deletes a recorded layer that nothing refers to; one that something refers to by now
	// is kept, without error. The caller has made sure that no mount remains at or below its directory.
	DeleteLayer(ctx context.Context, id LayerID) error
	// RemoveDirectory removes a directory of Litter that has no record by now either; one that has is
	// kept, without error. The caller has made sure that no mount remains at or below it.
	RemoveDirectory(ctx context.Context, path string) error
	// ResetMountCount sets the mount count of a layer to 0. The caller has made sure that it is mounted
	// nowhere.
	ResetMountCount(ctx context.Context, id LayerID) error
	// CompleteInterrupted and Conclude are Store's.
	CompleteInterrupted(ctx context.Context) ([]Interrupted, error)
	Conclude(ctx context.Context, first ImageID) error
}

// Registrars are engines that can list what they have.
type Registrars interface {
	Owners
	// Inventories asks every engine that can for all that it has in the store. containers are the
	// store's.
	Inventories(ctx context.Context, store StoreInfo, containers []Container) []Inventory
}

// Surveyor is a kernel that finds what the store does not name.
type Surveyor interface {
	Kernel
	// MountedLayers lists the layers below the store homes that have a mount in some mount namespace,
	// also where their directory is gone.
	MountedLayers(ctx context.Context, homes []string) ([]LayerID, error)
}

// Examine looks for damage. Where there is some it looks once more, since engines go on working: what
// has gone by then was none. It returns the inventories too: of an engine whose inventory has an error
// nothing is said.
func (d *Doctor) Examine(ctx context.Context) ([]Finding, []Inventory, error) {
	first, inventories, err := d.look(ctx)
	if err != nil || len(first) == 0 {
		return nil, inventories, err
	}
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-time.After(secondLook):
	}
	again, inventories, err := d.look(ctx)
	if err != nil {
		return nil, nil, err
	}
	lasting := slices.DeleteFunc(again, func(f Finding) bool {
		return !slices.ContainsFunc(first, func(x Finding) bool { return x.key() == f.key() })
	})
	return lasting, inventories, nil
}

// secondLook is how long after the first look the second one is taken.
const secondLook = 300 * time.Millisecond

// look gathers the facts once: what is mounted before the store's records, so that a container which an engine
// makes meanwhile is rather recorded than not. What an engine records after those were read is in the
// records of the second look.
func (d *Doctor) look(ctx context.Context) ([]Finding, []Inventory, error) {
	_, litter, err := d.Store.Examine(ctx)
	if err != nil {
		return nil, nil, err
	}
	mounted, err := d.Kernel.MountedLayers(ctx, litter.Homes)
	if err != nil {
		return nil, nil, fmt.Errorf("look for mounts of layers: %w", err)
	}
	snapshot, litter, err := d.Store.Examine(ctx)
	if err != nil {
		return nil, nil, err
	}
	e := Examination{Snapshot: snapshot, Litter: litter, Now: time.Now(), Settled: d.Settled}
	if e.Settled == 0 {
		e.Settled = DefaultSettled
	}
	e.Inventories = d.Owners.Inventories(ctx, snapshot.Store, snapshot.Containers)
	e.Holdings = d.Engine.claim(ctx, snapshot.Store, snapshot.Containers)
	for _, id := range mounted {
		if !litter.Recorded[id] {
			e.Ghosts = append(e.Ghosts, litter.ghost(snapshot.Store.GraphDriver, id))
		}
	}
	if e.Observations, err = d.Engine.observe(ctx, snapshot.Containers, e.places()); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	return Diagnose(e), e.Inventories, nil
}

// ghost is where a layer would be that the store does not have.
func (l *Litter) ghost(driver string, id LayerID) Layer {
	for _, u := range l.Unrecorded {
		if u.Layer.ID == id {
			return u.Layer
		}
	}
	layer := Layer{ID: id, Driver: driver, Missing: true, Orphan: true}
	if len(l.Homes) == 0 {
		return layer
	}
	layer.Directory = l.Homes[0] + "/" + string(id)
	layer.MountPoint = layer.Directory
	if driver == "overlay" {
		layer.MountPoint, layer.UpperDir = layer.Directory+"/merged", layer.Directory+"/diff"
	}
	return layer
}

// place is a directory in the terms of the kernel: like a layer without a superblock of its own.
func (l LitterDirectory) place() Layer {
	return Layer{ID: LayerID(l.Path), Driver: "vfs", Directory: l.Path, MountPoint: l.Path}
}
