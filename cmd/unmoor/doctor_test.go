package main

import (
	"context"
	"errors"
	"slices"

	"github.com/unmoor/unmoor/core"
)

// The fake as a doctor meets it.

func (f *fake) Examine(ctx context.Context) (*core.Snapshot, *core.Litter, error) {
	s, err := f.Snapshot(ctx)
	litter := f.litter
	return s, &litter, err
}

func (f *fake) Inventories(context.Context, core.StoreInfo, []core.Container) []core.Inventory {
	return f.inventories
}

func (f *fake) MountedLayers(context.Context, []string) ([]core.LayerID, error) {
	return f.mounted, nil
}

func (f *fake) DeleteLayer(_ context.Context, id core.LayerID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	f.litter.Unreferenced = slices.DeleteFunc(f.litter.Unreferenced, func(l core.LitterLayer) bool { return l.Layer.ID == id })
	return f.deleteErr
}

func (f *fake) RemoveDirectory(_ context.Context, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	f.litter.Directories = slices.DeleteFunc(f.litter.Directories, func(l core.LitterDirectory) bool { return l.Path == path })
	return nil
}

func (f *fake) ResetMountCount(context.Context, core.LayerID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	return nil
}

// wrecked is a store with a pod on deleted files, a layer and a directory that belong to nothing.
func wrecked() *fake {
	f := single()
	layer := core.LayerID(id("77aa"))
	f.mounted = []core.LayerID{layer}
	f.observations[layer] = core.Observation{Use: core.UseInUse, Evidence: []core.Evidence{{Source: core.SourceKernel, Kind: core.EvidenceProcess,
		Detail: "root directory in the container", Process: &core.Process{PID: 4711, StartTime: 3, Command: "java -jar shop.jar"}, Time: epoch}}}
	f.inventories = []core.Inventory{{Engine: "crio", Records: []core.Claim{{Container: core.ContainerID(id("0a81")), Ownership: core.OwnershipMine,
		State: core.StateRunning, Use: core.UseInUse, DisplayName: "shop/web/app", Group: "pod shop/web",
		Evidence: []core.Evidence{{Source: "crio", Kind: core.EvidenceProcess, Process: &core.Process{PID: 4711}}}}}}}
	f.litter = core.Litter{Homes: []string{"/store/overlay"},
		Unreferenced: []core.LitterLayer{{Layer: core.Layer{ID: core.LayerID(id("55bb")), Driver: "overlay"}, Since: epoch}},
		Directories:  []core.LitterDirectory{{Container: core.ContainerID(id("66cc")), Path: "/store/overlay-containers/" + id("66cc")}}}
	return f
}

// silenced is one whose engine does not answer.
func silenced() *fake {
	f := wrecked()
	f.inventories = []core.Inventory{{Engine: "crio", Err: errors.New("connect to CRI-O: connection refused")}}
	return f
}
