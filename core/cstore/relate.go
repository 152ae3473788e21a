package cstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// maxItem bounds what is read of an image; real configurations and manifests have some kilobytes.
const maxItem = 8 << 20

// errNoItem: the image's record names no such item.
var errNoItem = errors.New("the record names none")

// configKey names an image's contents: an ID may be given anew, to another manifest.
type configKey struct{ image, manifest string }

// imageConfig is what is known of an image beyond its record. A nil field was not read yet.
type imageConfig struct {
	manifest *manifest
	history  *[]historyEntry
	labels   *map[string]string
}

// relate sets of the images what lies between them, their parents and the lists' instances, and their
// labels where they are asked for.
func (s *Store) relate(ctx context.Context, r *records, images []core.Image) error {
	s.configsMu.Lock()
	defer s.configsMu.Unlock()
	x := &relation{store: s, ctx: ctx, records: r, byTop: make(map[string][]int), fresh: make(map[configKey]imageConfig)}
	for i := range r.images {
		x.byTop[r.images[i].TopLayer] = append(x.byTop[r.images[i].TopLayer], i)
	}
	// Only a record without layers can be a list (libimage, manifests.go: a list has none).
	for _, i := range x.byTop[""] {
		images[i].ManifestList = x.manifest(i).list
	}
	for _, i := range x.byTop[""] {
		if images[i].ManifestList {
			images[i].Instances = instances(images, i, x.manifest(i).instances)
		}
	}
	for i := range images {
		if images[i].ManifestList {
			continue
		}
		if parent := x.parent(i, images); parent >= 0 {
			images[i].Parent = images[parent].ID
		}
		if s.imageLabels {
			labels, ok := x.labels(i)
			images[i].Labels, images[i].LabelsUnknown = maps.Clone(labels), !ok
		}
	}
	s.configs = x.fresh // What is gone from the store is forgotten.
	return ctx.Err()
}

// instances finds the images whose manifests a list names.
func instances(images []core.Image, list int, digests []string) []core.ImageID {
	var ids []core.ImageID
	for i := range images {
		if i != list && slices.ContainsFunc(images[i].Digests, func(d string) bool { return slices.Contains(digests, d) }) {
			ids = append(ids, images[i].ID)
		}
	}
	return ids
}

// relation is one run of relate.
type relation struct {
	store   *Store
	ctx     context.Context
	records *records
	// byTop are the images of a top layer.
	byTop map[string][]int
	fresh map[configKey]imageConfig
}

// parent is the image that image i was built on, or -1: of those whose top layer is i's or lies
// below it, and whose history i's continues by one step, the nearest; the same one as Podman's
// (libimage, layer_tree.go, parent). Other images' configurations are read only where their layers
// fit.
func (x *relation) parent(i int, images []core.Image) int {
	chain := x.records.layers.chain(x.records.images[i].TopLayer)
	if len(chain) == 0 {
		if x.records.images[i].TopLayer != "" {
			return -1 // Its layers are lost.
		}
		chain = []string{""}
	}
	for _, layer := range chain {
		for _, candidate := range x.byTop[layer] {
			if candidate == i || images[candidate].ManifestList {
				continue
			}
			child, ok := x.history(i)
			if !ok {
				return -1
			}
			parent, ok := x.history(candidate)
			if ok && builtOn(child, parent) {
				return candidate
			}
		}
	}
	return -1
}

func (x *relation) key(i int) configKey {
	image := &x.records.images[i]
	return configKey{image.ID, string(image.Digest) + " " + string(image.BigDataDigests[storage.ImageDigestBigDataKey])}
}

// config is what is known of image i so far.
func (x *relation) config(i int) imageConfig {
	key := x.key(i)
	c, ok := x.fresh[key]
	if !ok {
		c = x.store.configs[key]
		x.fresh[key] = c
	}
	return c
}

// manifest is the manifest of image i; an empty one where it cannot be read, which is tried again
// for the next snapshot.
func (x *relation) manifest(i int) manifest {
	c := x.config(i)
	if c.manifest != nil {
		return *c.manifest
	}
	data, err := x.item(i, storage.ImageDigestBigDataKey)
	var m manifest
	if err == nil {
		m, err = parseManifest(data)
	}
	if err != nil && !errors.Is(err, errNoItem) {
		x.store.logger.Warn("an image's manifest cannot be read", "image", x.records.images[i].ID, "error", err)
		return manifest{}
	}
	c.manifest = &m
	x.fresh[x.key(i)] = c
	return m
}

// history is the history of image i, and whether it could be read.
func (x *relation) history(i int) ([]historyEntry, bool) {
	c := x.config(i)
	if c.history != nil {
		return *c.history, true
	}
	data, err := x.configuration(i)
	var history []historyEntry
	if err == nil {
		history, err = parseHistory(data)
	}
	if err != nil {
		if !errors.Is(err, errNoItem) {
			x.store.logger.Warn("an image's configuration cannot be read", "image", x.records.images[i].ID, "error", err)
		}
		return nil, false
	}
	c = x.config(i)
	c.history = &history
	x.fresh[x.key(i)] = c
	return history, true
}

// labels are the labels of image i, and whether they could be read. An image without a manifest has no
// configuration either, and so no labels; one with a manifest that names none (Docker's schema 1) has
// them elsewhere.
func (x *relation) labels(i int) (map[string]string, bool) {
	if c := x.config(i); c.labels != nil {
		return *c.labels, true
	}
	image := &x.records.images[i]
	data, err := x.configuration(i)
	var labels map[string]string
	switch {
	case err == nil:
		labels, err = parseLabels(data)
	case errors.Is(err, errNoItem) && !slices.Contains(image.BigDataNames, storage.ImageDigestBigDataKey):
		err = nil
	}
	if err != nil {
		x.store.logger.Warn("an image's labels cannot be read", "image", image.ID, "error", err)
		return nil, false
	}
	c := x.config(i)
	c.labels = &labels
	x.fresh[x.key(i)] = c
	return labels, true
}

// configuration reads the configuration of image i.
func (x *relation) configuration(i int) ([]byte, error) {
	image := &x.records.images[i]
	name := "sha256:" + image.ID // As engines name it, for the ID is its digest.
	if !slices.Contains(image.BigDataNames, name) {
		name = x.manifest(i).config
	}
	return x.item(i, name)
}

// item reads one of the items that engines store with an image.
func (x *relation) item(i int, name string) ([]byte, error) {
	image := &x.records.images[i]
	if name == "" || !slices.Contains(image.BigDataNames, name) {
		return nil, errNoItem
	}
	if size := image.BigDataSizes[name]; size > maxItem {
		return nil, fmt.Errorf("%s has %d bytes", name, size)
	}
	if err := x.ctx.Err(); err != nil {
		return nil, err
	}
	lib, err := x.store.current()
	if err != nil {
		return nil, err
	}
	// Not through Store.call: an item that cannot be read says nothing about the store's records.
	var data []byte
	err = x.store.guard("read "+name+" of image "+image.ID, func() (err error) {
		data, err = lib.ImageBigData(image.ID, name)
		return err
	})
	return data, err
}
