package cstore

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// volatileFlag is the library's (v1.59.1, store.go).
const volatileFlag = "Volatile"

// Snapshot reads images, containers and layers, at one instant. What is senseless or lost of an image
// beyond its record, such as a damaged configuration, is left out: it has then no parent, or is no
// list; and its labels are unknown, where they are asked for. What is there and cannot be read is an error.
func (s *Store) Snapshot(ctx context.Context) (*core.Snapshot, error) {
	changed := s.changed()
	records, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.snapshot(ctx, records)
	if err != nil {
		return nil, err
	}
	snapshot.Changed = changed
	return snapshot, nil
}

// changed is when one of the directories that hold the layers was changed last; zero where one cannot be
// looked at.
func (s *Store) changed() (last time.Time) {
	for _, home := range s.homes {
		info, err := os.Stat(home)
		switch {
		case errors.Is(err, os.ErrNotExist): // as of an additional store without any
		case err != nil:
			return time.Time{}
		case info.ModTime().After(last):
			last = info.ModTime()
		}
	}
	return last
}

func (s *Store) snapshot(ctx context.Context, r *records) (_ *core.Snapshot, err error) {
	snapshot := &core.Snapshot{Store: s.info, Containers: make([]core.Container, 0, len(r.containers))}
	for i := range r.containers {
		snapshot.Containers = append(snapshot.Containers, s.container(r, &r.containers[i]))
	}
	if snapshot.Images, err = s.images(ctx, r); err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(r.layers.byID)) {
		layer := r.layers.byID[id]
		snapshot.Layers = append(snapshot.Layers, core.StoredLayer{ID: core.LayerID(id), Bytes: recordedSize(layer), ReadOnly: layer.ReadOnly})
	}
	return snapshot, nil
}

// images are the images of the records, in their order, with what lies between them.
func (s *Store) images(ctx context.Context, r *records) ([]core.Image, error) {
	images := make([]core.Image, 0, len(r.images))
	for i := range r.images {
		images = append(images, s.image(r, &r.images[i]))
	}
	return images, s.relate(ctx, r, images)
}

// records are the store's records at one instant.
type records struct {
	images     []storage.Image
	containers []storage.Container
	layers     layers
}

// read lists everything in one call, during which the library holds the locks of layers and images
// together (v1.59.1, store.go, MultiList).
func (s *Store) read(ctx context.Context) (*records, error) {
	var all storage.MultiListResult
	err := s.call(ctx, "read the store's records", func(lib storage.Store) (err error) {
		all, err = lib.MultiList(storage.MultiListOptions{Images: true, Layers: true, Containers: true})
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &records{containers: all.Containers}
	// The store's own records come before those of additional stores. An image that is in both is
	// its own: only that record can be deleted, and afterwards the other one shows.
	seen := make(map[string]bool, len(all.Images))
	for _, image := range all.Images {
		if !seen[image.ID] {
			seen[image.ID] = true
			r.images = append(r.images, image)
		}
	}
	r.layers = indexLayers(all.Layers, r.images, r.containers)
	return r, nil
}

// image finds the record of an image by its full ID, and nil where there is none.
func (r *records) image(id core.ImageID) *storage.Image {
	for i := range r.images {
		if r.images[i].ID == string(id) {
			return &r.images[i]
		}
	}
	return nil
}

// containerOf finds a container of an image, and nil where there is none.
func (r *records) containerOf(id core.ImageID) *storage.Container {
	for i := range r.containers {
		if r.containers[i].ImageID == string(id) {
			return &r.containers[i]
		}
	}
	return nil
}

func (s *Store) image(r *records, record *storage.Image) core.Image {
	image := core.Image{
		ID:       core.ImageID(record.ID),
		Names:    slices.Clone(record.Names),
		Digests:  make([]string, 0, len(record.Digests)),
		Created:  record.Created,
		ReadOnly: record.ReadOnly,
	}
	for _, d := range record.Digests {
		image.Digests = append(image.Digests, d.String())
	}
	image.Size, image.UniqueSize = r.layers.sizes(record)
	image.LayerSizes = r.layers.sizesOf(record)
	if record.TopLayer == "" {
		return image
	}
	image.Layer = s.layer(r.layers, record.TopLayer)
	if top, ok := r.layers.byID[record.TopLayer]; ok {
		image.Stored = top.Created
	}
	for _, mapped := range record.MappedTopLayers {
		if layer, ok := r.layers.byID[mapped]; ok {
			image.Layer.MountCount += layer.MountCount
		}
	}
	if !record.ReadOnly {
		for _, id := range r.layers.own(record) {
			image.OwnLayers = append(image.OwnLayers, s.layer(r.layers, id))
		}
	}
	return image
}

func (s *Store) container(r *records, record *storage.Container) core.Container {
	c := core.Container{
		ID:           core.ContainerID(record.ID),
		Names:        slices.Clone(record.Names),
		ImageID:      core.ImageID(record.ImageID),
		LayerID:      core.LayerID(record.LayerID),
		Created:      record.Created,
		Metadata:     record.Metadata,
		BigDataNames: slices.Clone(record.BigDataNames),
		Layer:        s.layer(r.layers, record.LayerID),
	}
	c.Volatile, _ = record.Flags[volatileFlag].(bool)
	// As the library's ContainerDirectory and ContainerRunDirectory, which make them besides.
	folder := filepath.Join(s.info.GraphDriver+"-containers", record.ID, "userdata")
	c.Directory = filepath.Join(s.info.GraphRoot, folder)
	c.RunDirectory = filepath.Join(s.info.RunRoot, folder)
	c.Layer.UpperDir = upperDir(c.Layer)
	return c
}

// upperDir is the directory with the files of a layer that is written to.
func upperDir(l core.Layer) string {
	if l.Driver != "overlay" || l.Directory == "" {
		return ""
	}
	return filepath.Join(l.Directory, "diff")
}
