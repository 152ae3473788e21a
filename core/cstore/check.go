package cstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containers/storage"
)

// Check lists what is wrong with the store, one finding a line; nothing for a clean one. Besides the
// library's own check of records, items and unreferenced layers, however young, it finds what that
// does not: containers without a layer, directories of containers that are gone, and deletions that
// were interrupted. It is meant for a store that no engine is working on, since a layer that is being
// fetched counts as unreferenced.
func (s *Store) Check(ctx context.Context) ([]string, error) {
	var findings []string
	add := func(format string, args ...any) { findings = append(findings, fmt.Sprintf(format, args...)) }
	records, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	// The library does not know that an image refers to the mapped copies of its top layer.
	mapped := make(map[string]bool)
	for i := range records.images {
		for _, id := range records.images[i].MappedTopLayers {
			mapped[id] = true
		}
	}
	var report storage.CheckReport
	err = s.call(ctx, "check the store", func(lib storage.Store) (err error) {
		var young time.Duration
		report, err = lib.Check(&storage.CheckOptions{
			LayerUnreferencedMaximumAge: &young, LayerData: true, ImageData: true, ContainerData: true,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, group := range []map[string][]error{report.Layers, report.ROLayers, report.Images, report.ROImages, report.Containers} {
		for id, errs := range group {
			for _, err := range errs {
				if !mapped[id] || !errors.Is(err, storage.ErrLayerUnreferenced) {
					add("%v", err)
				}
			}
		}
	}
	containers := make(map[string]bool)
	for i := range records.containers {
		c := &records.containers[i]
		containers[c.ID] = true
		if records.layers.byID[c.LayerID] == nil {
			add("container %s: its layer %s is missing", c.ID, c.LayerID)
		}
	}
	for _, root := range []string{s.info.GraphRoot, s.info.RunRoot} {
		directory := filepath.Join(root, s.info.GraphDriver+"-containers")
		entries, err := os.ReadDir(directory)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, s.wrap("check the store", err)
		}
		for _, e := range entries {
			if e.IsDir() && !containers[e.Name()] {
				add("directory %s belongs to no container", filepath.Join(directory, e.Name()))
			}
		}
	}
	pending, err := s.pending()
	if err != nil {
		return nil, err
	}
	if pending {
		add("directory %s: an image's deletion was interrupted", s.intentDir())
	}
	slices.Sort(findings)
	return slices.Compact(findings), nil
}
