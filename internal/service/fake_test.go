package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
)

var errBoom = errors.New("boom")

// fake is a store, its owners and a kernel in memory, in which nothing is in use. What the embedded
// interfaces are asked and it does not answer is a panic.
type fake struct {
	core.Store
	core.DamagedStore
	core.Owners
	mu       sync.Mutex
	snapshot core.Snapshot
	// shown are the owners' names of containers.
	shown map[core.ContainerID]string
	// completed are interrupted deletions; concluded are those that were ended.
	completed []core.Interrupted
	concluded []core.ImageID
	// snapshotErr is from the given snapshot on, counted from 0.
	snapshotErr  error
	snapshotFrom int
	snapshots    int
	completeErr  error
	litter       core.Litter
	examineErr   error
	examineFrom  int
	examines     int
	// deleteErr is the answer to the deletion of an image.
	deleteErr error
}

func (f *fake) local() *Local {
	engine := &core.Engine{Store: f, Owners: f, Kernel: f}
	return &Local{Engine: engine, Doctor: &core.Doctor{Engine: engine, Store: f, Owners: f, Kernel: f}}
}

func (f *fake) image(id string, names ...string) {
	f.snapshot.Images = append(f.snapshot.Images, core.Image{ID: core.ImageID(id), Names: names, Layer: core.Layer{ID: core.LayerID("l" + id)},
		LayerSizes: map[core.LayerID]int64{core.LayerID("l" + id): 100}})
}

func (f *fake) container(id string, names ...string) {
	f.snapshot.Containers = append(f.snapshot.Containers, core.Container{ID: core.ContainerID(id), Names: names, LayerID: core.LayerID("l" + id),
		Layer: core.Layer{ID: core.LayerID("l" + id)}})
}

func (f *fake) Info() core.StoreInfo { return core.StoreInfo{GraphRoot: "/store"} }

func (f *fake) Snapshot(context.Context) (*core.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.snapshots++; f.snapshotErr != nil && f.snapshots > f.snapshotFrom {
		return nil, f.snapshotErr
	}
	return &core.Snapshot{Store: f.Info(), Images: slices.Clone(f.snapshot.Images), Containers: slices.Clone(f.snapshot.Containers)}, nil
}

func (f *fake) ResolveImage(_ context.Context, s *core.Snapshot, reference string) (core.ImageID, string, error) {
	if reference == "boom" {
		return "", "", errBoom
	}
	var found []core.ImageID
	for _, i := range s.Images {
		if slices.Contains(i.Names, reference) {
			return i.ID, reference, nil
		}
		if strings.HasPrefix(string(i.ID), reference) {
			found = append(found, i.ID)
		}
	}
	switch len(found) {
	case 0:
		return "", "", fmt.Errorf("%s: %w", reference, core.ErrImageUnknown)
	case 1:
		return found[0], "", nil
	}
	return "", "", &core.AmbiguousError{Reference: "the full name", Candidates: []string{"a", "b"}}
}

func (f *fake) CompleteInterrupted(context.Context) ([]core.Interrupted, error) {
	return f.completed, f.completeErr
}

func (f *fake) Conclude(_ context.Context, id core.ImageID) error {
	f.concluded = append(f.concluded, id)
	return nil
}

func (f *fake) ContainerSize(context.Context, core.Container) (int64, error) { return 1, nil }

func (f *fake) DeleteContainer(_ context.Context, gone core.Container) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.snapshot.Containers = slices.DeleteFunc(f.snapshot.Containers, func(c core.Container) bool { return c.ID == gone.ID })
	return nil
}

func (f *fake) BeginDeletion(context.Context, []core.ImageID) (core.Deletion, error) {
	return fakeDeletion{f}, nil
}

type fakeDeletion struct{ *fake }

func (d fakeDeletion) Delete(_ context.Context, gone core.Image) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.deleteErr != nil {
		return d.deleteErr
	}
	d.snapshot.Images = slices.DeleteFunc(d.snapshot.Images, func(i core.Image) bool { return i.ID == gone.ID })
	return nil
}

func (fakeDeletion) End(context.Context) error { return nil }

func (f *fake) Claim(_ context.Context, _ core.StoreInfo, containers []core.Container) map[core.ContainerID]core.Holding {
	all := make(map[core.ContainerID]core.Holding)
	for _, c := range containers {
		all[c.ID] = core.Holding{Kind: core.Unowned, Claim: core.Claim{DisplayName: f.shown[c.ID]}}
	}
	return all
}

func (f *fake) Pins(_ context.Context, _ core.StoreInfo, images []core.Image, _ []core.Container) map[core.ImageID]core.Pin {
	all := make(map[core.ImageID]core.Pin)
	for _, i := range images {
		all[i.ID] = core.Pin{Pinned: core.PinnedNo}
	}
	return all
}

func (f *fake) Inventories(context.Context, core.StoreInfo, []core.Container) []core.Inventory {
	return []core.Inventory{{Engine: "crio", Err: errBoom}}
}

func (f *fake) Observe(_ context.Context, layers []core.Layer) (map[core.LayerID]core.Observation, error) {
	all := make(map[core.LayerID]core.Observation)
	for _, l := range layers {
		all[l.ID] = core.Observation{Use: core.UseIdle}
	}
	return all, nil
}

func (f *fake) Release(context.Context, ...core.Layer) ([]string, error) { return nil, nil }

func (f *fake) Terminate(context.Context, []core.Process, time.Duration) error { return nil }

func (f *fake) MountedLayers(context.Context, []string) ([]core.LayerID, error) { return nil, nil }

func (f *fake) Examine(ctx context.Context) (*core.Snapshot, *core.Litter, error) {
	if f.examines++; f.examineErr != nil && f.examines > f.examineFrom {
		return nil, nil, f.examineErr
	}
	s, err := f.Snapshot(ctx)
	litter := f.litter
	return s, &litter, err
}

func (f *fake) DeleteLayer(_ context.Context, id core.LayerID) error {
	f.litter.Unreferenced = slices.DeleteFunc(f.litter.Unreferenced, func(l core.LitterLayer) bool { return l.Layer.ID == id })
	return nil
}
