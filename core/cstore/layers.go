package cstore

import (
	"os"
	"path/filepath"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// layers are the records of all layers, and what refers to them.
type layers struct {
	// byID holds the store's own record where an additional store has the layer too.
	byID map[string]*storage.Layer
	// children are the layers on top of one, in the store itself.
	children map[string][]string
	// tops counts the writable images whose top layer, or a mapped copy of it, a layer is.
	tops map[string]int
	// containers are the layers of containers.
	containers map[string]bool
	// users counts the images that a layer belongs to, at whatever depth.
	users map[string]int
}

func indexLayers(all []storage.Layer, images []storage.Image, containers []storage.Container) layers {
	l := layers{
		byID:       make(map[string]*storage.Layer, len(all)),
		children:   make(map[string][]string),
		tops:       make(map[string]int),
		users:      make(map[string]int),
		containers: make(map[string]bool, len(containers)),
	}
	for i := range containers {
		l.containers[containers[i].LayerID] = true
	}
	for i := range all {
		layer := &all[i]
		if _, twice := l.byID[layer.ID]; twice {
			continue
		}
		l.byID[layer.ID] = layer
		if !layer.ReadOnly && layer.Parent != "" {
			l.children[layer.Parent] = append(l.children[layer.Parent], layer.ID)
		}
	}
	for i := range images {
		image := &images[i]
		for _, id := range l.chain(image.TopLayer) {
			l.users[id]++
		}
		if image.ReadOnly {
			continue
		}
		for _, id := range tops(image) {
			l.tops[id]++
		}
	}
	return l
}

// tops are an image's top layer and the copies of it for other ID mappings, each once.
func tops(image *storage.Image) []string {
	var ids []string
	seen := map[string]bool{"": true}
	for _, id := range append([]string{image.TopLayer}, image.MappedTopLayers...) {
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}

// chain lists a layer and the layers that it lies on, as far as they are recorded.
func (l layers) chain(id string) []string {
	var chain []string
	seen := make(map[string]bool)
	for id != "" && !seen[id] {
		layer, ok := l.byID[id]
		if !ok {
			break
		}
		seen[id] = true
		chain = append(chain, id)
		id = layer.Parent
	}
	return chain
}

// all lists every layer of an image that lies in the store itself, children before parents.
func (l layers) all(image *storage.Image) []string {
	var ids []string
	add := func(id string) {
		if layer, ok := l.byID[id]; ok && !layer.ReadOnly {
			ids = append(ids, id)
		}
	}
	for _, id := range tops(image) {
		if id != image.TopLayer {
			add(id)
		}
	}
	for _, id := range l.chain(image.TopLayer) {
		add(id)
	}
	return ids
}

// own lists the layers that the library deletes together with an image that has no container any more
// (v1.59.1, store.go, DeleteImage): the mapped copies of its top layer, and from the top layer downwards all up to the
// first that another image or another layer needs.
func (l layers) own(image *storage.Image) []string {
	var ids []string
	going := make(map[string]bool)
	mine := make(map[string]bool)
	for _, id := range tops(image) {
		mine[id] = true
	}
	used := func(id string) bool {
		others := l.tops[id]
		if mine[id] {
			others--
		}
		if others > 0 {
			return true
		}
		below := []string{id}
		if id == image.TopLayer {
			below = tops(image)
		}
		for _, b := range below {
			for _, child := range l.children[b] {
				if !going[child] && !l.containers[child] {
					return true
				}
			}
		}
		return false
	}
	for _, id := range l.all(image) {
		mapped := mine[id] && id != image.TopLayer
		if !mapped && used(id) {
			break
		}
		going[id] = true
		ids = append(ids, id)
	}
	return ids
}

// sizes are the bytes of all the layers of an image, and of those that no other image has; -1 where
// a record does not tell.
func (l layers) sizes(image *storage.Image) (size, unique int64) {
	if image.TopLayer != "" && l.byID[image.TopLayer] == nil {
		return -1, -1
	}
	for _, id := range l.chain(image.TopLayer) {
		layer := l.byID[id]
		bytes := recordedSize(layer)
		if _, known := l.byID[layer.Parent]; layer.Parent != "" && !known {
			bytes = -1 // The chain is broken off.
		}
		size = sum(size, bytes)
		if l.users[id] == 1 {
			unique = sum(unique, bytes)
		}
	}
	return size, unique
}

// sizesOf are the bytes of each layer of an image, the mapped copies of its top layer included.
func (l layers) sizesOf(image *storage.Image) map[core.LayerID]int64 {
	sizes := make(map[core.LayerID]int64)
	for _, id := range append(tops(image), l.chain(image.TopLayer)...) {
		if layer, ok := l.byID[id]; ok {
			sizes[core.LayerID(id)] = recordedSize(layer)
		}
	}
	return sizes
}

// recordedSize is -1 where the record does not tell (v1.59.1, layers.go, UncompressedSize).
func recordedSize(layer *storage.Layer) int64 {
	if layer.UncompressedDigest == "" && layer.TOCDigest == "" || layer.UncompressedSize < 0 {
		return -1
	}
	return layer.UncompressedSize
}

func sum(a, b int64) int64 {
	if a < 0 || b < 0 {
		return -1
	}
	return a + b
}

// layer says where the driver keeps a layer.
func (s *Store) layer(l layers, id string) core.Layer {
	layer := core.Layer{ID: core.LayerID(id), Driver: s.info.GraphDriver}
	if record, ok := l.byID[id]; ok {
		layer.MountCount = record.MountCount
	} else {
		layer.Missing = true
	}
	if id == "" || filepath.Base(id) != id {
		return layer // Nothing can be said of a directory.
	}
	switch s.info.GraphDriver {
	case "overlay":
		home := s.home(id)
		layer.Directory = filepath.Join(home, id)
		layer.MountPoint = filepath.Join(layer.Directory, "merged")
		if s.additional(home) {
			// Not in the additional store, which may be shared (v1.59.1, overlay.go, getMergedDir).
			layer.MountPoint = filepath.Join(resolved(filepath.Join(s.info.RunRoot, "overlay")), id, "merged")
		}
	case "vfs":
		layer.Directory = filepath.Join(s.home(id), id)
		layer.MountPoint = layer.Directory
	}
	return layer
}

// home is the directory that holds a layer, looked for as the driver does: in the store itself
// first. A layer that is nowhere belongs there.
func (s *Store) home(id string) string {
	if len(s.homes) > 1 {
		for _, home := range s.homes {
			if _, err := os.Lstat(filepath.Join(home, id)); err == nil {
				return home
			}
		}
	}
	return s.homes[0]
}

// additional is whether the driver takes a home for another store's. It does so with the image store
// too, from the point of view of the graph root.
func (s *Store) additional(home string) bool { return home != s.homes[0] }
