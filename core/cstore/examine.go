package cstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

var _ core.DamagedStore = (*Store)(nil)

// layerName is the ID of a layer, and so the name of its directory; the driver has others beside them.
var layerName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Examine reads the store's records, and what lies beside them. Directories are listed before the
// records are read: the library records a layer and a container before it makes their directories
// (v1.59.1, layers.go, create; store.go, ContainerDirectory), so that what is made meanwhile is no litter.
func (s *Store) Examine(ctx context.Context) (*core.Snapshot, *core.Litter, error) {
	litter := &core.Litter{Homes: slices.Clone(s.homes)}
	directories, err := s.containerDirectories()
	if err != nil {
		return nil, nil, err
	}
	unrecorded, err := s.layerDirectories()
	if err != nil {
		return nil, nil, err
	}
	if litter.Deletions, err = s.announced(); err != nil {
		return nil, nil, err
	}
	r, err := s.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	snapshot, err := s.snapshot(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	litter.Recorded = make(map[core.LayerID]bool, len(r.layers.byID))
	for id := range r.layers.byID {
		litter.Recorded[core.LayerID(id)] = true
	}
	for _, l := range unrecorded {
		if !litter.Recorded[l.Layer.ID] {
			litter.Unrecorded = append(litter.Unrecorded, l)
		}
	}
	for _, l := range directories {
		if _, recorded := snapshot.Container(l.Container); !recorded {
			litter.Directories = append(litter.Directories, l)
		}
	}
	load, alive, err := s.loading()
	if err != nil {
		return nil, nil, err
	}
	if load != nil && !alive {
		litter.Load = &core.LitterLoad{Directory: load.Directory}
	}
	for _, id := range r.unreferenced() {
		if load.made(id) {
			if litter.Load != nil {
				litter.Load.Layers = append(litter.Load.Layers, core.LayerID(id))
			}
			continue // It is just being loaded, or goes with the rest of what that load has left.
		}
		layer := core.LitterLayer{Layer: s.layer(r.layers, id), Since: r.layers.byID[id].Created}
		layer.Layer.UpperDir, layer.Layer.Orphan = upperDir(layer.Layer), true
		litter.Unreferenced = append(litter.Unreferenced, layer)
	}
	return snapshot, litter, nil
}

// unreferenced lists the recorded layers of the store itself that neither an image nor a container refers
// to, children before parents.
func (r *records) unreferenced() []string {
	needed := make(map[string]bool)
	need := func(id string) {
		for _, below := range r.layers.chain(id) {
			needed[below] = true
		}
	}
	for i := range r.images {
		for _, id := range tops(&r.images[i]) {
			need(id)
		}
	}
	for i := range r.containers {
		need(r.containers[i].LayerID)
	}
	var ids []string
	depth := make(map[string]int)
	for id, layer := range r.layers.byID {
		if !needed[id] && !layer.ReadOnly {
			ids = append(ids, id)
			depth[id] = len(r.layers.chain(id))
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		if depth[a] != depth[b] {
			return depth[b] - depth[a]
		}
		return strings.Compare(a, b)
	})
	return ids
}

// containerDirectories lists the directories of containers in the graph root and in the run root.
func (s *Store) containerDirectories() ([]core.LitterDirectory, error) {
	var all []core.LitterDirectory
	for _, root := range []string{s.info.GraphRoot, s.info.RunRoot} {
		directory := filepath.Join(root, s.info.GraphDriver+"-containers")
		entries, err := listed(directory)
		if err != nil {
			return nil, s.wrap("look for containers' directories", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				all = append(all, core.LitterDirectory{Container: core.ContainerID(e.Name()), Path: filepath.Join(directory, e.Name())})
			}
		}
	}
	return all, nil
}

// layerDirectories lists the layers' directories in the store's own home.
func (s *Store) layerDirectories() ([]core.LitterLayer, error) {
	entries, err := listed(s.homes[0])
	if err != nil {
		return nil, s.wrap("look for layers' directories", err)
	}
	var all []core.LitterLayer
	for _, e := range entries {
		if !e.IsDir() || !layerName.MatchString(e.Name()) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, s.wrap("look for layers' directories", err)
		}
		layer := core.Layer{ID: core.LayerID(e.Name()), Missing: true, Driver: s.info.GraphDriver, Directory: filepath.Join(s.homes[0], e.Name())}
		layer.MountPoint = layer.Directory
		if layer.Driver == "overlay" {
			layer.MountPoint = filepath.Join(layer.Directory, "merged")
		}
		layer.UpperDir, layer.Orphan = upperDir(layer), true
		all = append(all, core.LitterLayer{Layer: layer, Since: info.ModTime()})
	}
	return all, nil
}

func listed(directory string) ([]os.DirEntry, error) {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// announced lists the images whose deletion, with what was to go after them, an earlier process died in.
func (s *Store) announced() ([]core.ImageID, error) {
	if pending, err := s.pending(); err != nil || !pending {
		return nil, err
	}
	unlock, err := s.tryLockIntents()
	if err != nil || unlock == nil {
		return nil, err // A process is at work on what is announced.
	}
	unlock()
	entries, err := listed(s.intentDir())
	if err != nil {
		return nil, s.wrap("look for interrupted deletions", err)
	}
	var ids []core.ImageID
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name(), intentPrefix)
		if id, whole := strings.CutSuffix(id, intentSuffix); ok && whole {
			ids = append(ids, core.ImageID(id))
		}
	}
	return ids, nil
}

// DeleteLayer deletes a recorded layer that nothing refers to, and keeps one that something refers to by
// now. Where something is mounted at or below its directory it refuses with core.ErrStillInUse.
func (s *Store) DeleteLayer(ctx context.Context, id core.LayerID) error {
	r, err := s.read(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(r.unreferenced(), string(id)) {
		return nil
	}
	return s.deleteLayer(ctx, r, id)
}

// RemoveDirectory removes a directory of a layer or a container that has no record.
func (s *Store) RemoveDirectory(ctx context.Context, path string) error {
	what := "remove " + path
	mount, err := mountBelow(path)
	if err != nil {
		return fmt.Errorf("%s: look for mounts below it: %w", what, err)
	}
	if mount != "" {
		return fmt.Errorf("%s: %s is mounted: unmount it and try again: %w", what, mount, core.ErrStillInUse)
	}
	_, litter, err := s.Examine(ctx)
	if err != nil {
		return err
	}
	for _, l := range litter.Directories {
		if l.Path != path {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return s.wrap(what, err)
		}
		return nil
	}
	for _, l := range litter.Unrecorded {
		if l.Layer.Directory != path {
			continue
		}
		// As the library's own repair (v1.59.1, check.go): the driver knows what else belongs to a layer.
		return s.call(ctx, what, func(lib storage.Store) error {
			driver, err := lib.GraphDriver()
			if err != nil {
				return err
			}
			return driver.Remove(string(l.Layer.ID))
		})
	}
	return nil
}

// ResetMountCount sets the mount count of a layer to 0. Where something is mounted at or below its directory
// it refuses with core.ErrStillInUse, since the library would unmount it lazily.
func (s *Store) ResetMountCount(ctx context.Context, id core.LayerID) error {
	what := "reset the mount count of layer " + id.Short()
	r, err := s.read(ctx)
	if err != nil {
		return err
	}
	directory := s.layer(r.layers, string(id)).Directory
	mount, err := mountBelow(directory)
	if err != nil {
		return fmt.Errorf("%s: look for mounts below %s: %w", what, directory, err)
	}
	if mount != "" {
		return fmt.Errorf("%s: %s is mounted: %w", what, mount, core.ErrStillInUse)
	}
	layer := r.layers.byID[string(id)]
	if layer == nil {
		return fmt.Errorf("%s: there is none", what)
	}
	// One by one, and not forced: an engine that mounts it meanwhile adds one, which stays, so that the
	// library does not take that mount away.
	for range layer.MountCount {
		err := s.call(ctx, what, func(lib storage.Store) error {
			_, err := lib.Unmount(string(id), false)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
