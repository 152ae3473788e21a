package cstore

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// maxItem bounds what is read of an image; real configurations and manifests have some kilobytes.
const maxItem = 8 << 20

// errNoItem: the image has no such item. No engine can do anything with what is not there, or is
// senseless; what could not be read is another matter.
var errNoItem = errors.New("the image has none")

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
		m, err := x.manifest(i)
		if err != nil {
			return err
		}
		if images[i].ManifestList = m.list; m.list {
			images[i].Instances = instances(images, i, m.instances)
		}
	}
	for i := range images {
		if images[i].ManifestList {
			images[i].LabelsKnown = s.imageLabels // It has none.
			continue
		}
		parent, err := x.parent(i, images)
		if err != nil {
			return err
		}
		if parent >= 0 {
			images[i].Parent = images[parent].ID
		}
		if s.imageLabels {
			labels, ok, err := x.labels(i)
			if err != nil {
				return err
			}
			images[i].Labels, images[i].LabelsKnown = maps.Clone(labels), ok
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
func (x *relation) parent(i int, images []core.Image) (int, error) {
	chain := x.records.layers.chain(x.records.images[i].TopLayer)
	if len(chain) == 0 {
		if x.records.images[i].TopLayer != "" {
			return -1, nil // Its layers are lost.
		}
		chain = []string{""}
	}
	for _, layer := range chain {
		for _, candidate := range x.byTop[layer] {
			if candidate == i || images[candidate].ManifestList {
				continue
			}
			child, ok, err := x.history(i)
			if err != nil || !ok {
				return -1, err
			}
			parent, ok, err := x.history(candidate)
			if err != nil {
				return -1, err
			}
			if ok && builtOn(child, parent) {
				return candidate, nil
			}
		}
	}
	return -1, nil
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

// manifest is the manifest of image i; an empty one where it has none, or a senseless one.
func (x *relation) manifest(i int) (manifest, error) {
	c := x.config(i)
	if c.manifest != nil {
		return *c.manifest, nil
	}
	data, err := x.item(i, storage.ImageDigestBigDataKey)
	if err != nil && !errors.Is(err, errNoItem) {
		return manifest{}, err
	}
	var m manifest
	if err == nil {
		if m, err = parseManifest(data); err != nil {
			x.store.logger.Warn("an image's manifest is senseless", "image", x.records.images[i].ID, "error", err)
			m = manifest{}
		}
	}
	c.manifest = &m
	x.fresh[x.key(i)] = c
	return m, nil
}

// history is the history of image i, and whether it has one that makes sense.
func (x *relation) history(i int) ([]historyEntry, bool, error) {
	c := x.config(i)
	if c.history != nil {
		return *c.history, true, nil
	}
	data, err := x.configuration(i)
	if errors.Is(err, errNoItem) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	history, err := parseHistory(data)
	if err != nil {
		x.store.logger.Warn("an image's configuration is senseless", "image", x.records.images[i].ID, "error", err)
		return nil, false, nil
	}
	c = x.config(i)
	c.history = &history
	x.fresh[x.key(i)] = c
	return history, true, nil
}

// labels are the labels of image i, and whether they are known. An image without a manifest has no
// configuration either, and so no labels; one with a manifest that names none (Docker's schema 1) has
// them elsewhere.
func (x *relation) labels(i int) (map[string]string, bool, error) {
	if c := x.config(i); c.labels != nil {
		return *c.labels, true, nil
	}
	image := &x.records.images[i]
	data, err := x.configuration(i)
	var labels map[string]string
	switch {
	case errors.Is(err, errNoItem):
		if slices.Contains(image.BigDataNames, storage.ImageDigestBigDataKey) {
			return nil, false, nil
		}
	case err != nil:
		return nil, false, err
	default:
		if labels, err = parseLabels(data); err != nil {
			x.store.logger.Warn("an image's labels are senseless", "image", image.ID, "error", err)
			return nil, false, nil
		}
	}
	c := x.config(i)
	c.labels = &labels
	x.fresh[x.key(i)] = c
	return labels, true, nil
}

// configuration reads the configuration of image i.
func (x *relation) configuration(i int) ([]byte, error) {
	image := &x.records.images[i]
	name := "sha256:" + image.ID // As engines name it, for the ID is its digest.
	if !slices.Contains(image.BigDataNames, name) {
		m, err := x.manifest(i)
		if err != nil {
			return nil, err
		}
		name = m.config
	}
	return x.item(i, name)
}

// item reads one of the items that engines store with an image.
func (x *relation) item(i int, name string) ([]byte, error) {
	image := &x.records.images[i]
	if name == "" || !slices.Contains(image.BigDataNames, name) {
		return nil, errNoItem
	}
	what := fmt.Sprintf("read %s of image %s", name, core.ImageID(image.ID).Short())
	if size := image.BigDataSizes[name]; size > maxItem {
		return nil, fmt.Errorf("%s: it has %d bytes, and no engine's has more than %d", what, size, maxItem)
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
	err = x.store.guard(what, func() (err error) {
		data, err = lib.ImageBigData(image.ID, name)
		return err
	})
	switch {
	case errors.Is(err, core.ErrImageUnknown): // It was deleted meanwhile.
		return nil, errNoItem
	case errors.Is(err, os.ErrNotExist):
		// The library says so whatever the reason (v1.59.1, store.go, ImageBigData).
		return nil, x.store.lost(image.ID, name)
	}
	return data, err
}

// lost is errNoItem where the file of an item is in no store, and else why it may be there.
func (s *Store) lost(image, name string) error {
	for _, home := range s.homes {
		root := filepath.Dir(trimVFS(home, s.info.GraphDriver))
		path := filepath.Join(root, s.info.GraphDriver+"-images", image, itemFile(name))
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			_ = f.Close() // It was opened to be seen.
			err = fmt.Errorf("%s could not be read", path)
		}
		return s.wrap("read an item of image "+core.ImageID(image).Short(), err)
	}
	return errNoItem
}

// itemFile is the library's name of an item's file (v1.59.1, store.go, makeBigDataBaseName).
func itemFile(name string) string {
	if strings.Trim(name, ".0123456789abcdefghijklmnopqrstuvwxyz") == "" {
		return name
	}
	return "=" + base64.StdEncoding.EncodeToString([]byte(name))
}
