package cstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// TestExamine: what belongs to nothing is found and can be removed, and what belongs to something cannot.
func TestExamine(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ctx := context.Background()
			f := storetest.New(t, driver)
			image := f.AddImage(storetest.Image{Names: []string{"localhost/app:latest"}, Files: map[string]string{"a": "1"}})
			container := f.AddContainer(image, storetest.Container{})
			s := f.Open()
			snapshot, litter, err := s.Examine(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if len(litter.Unreferenced)+len(litter.Unrecorded)+len(litter.Directories)+len(litter.Deletions) > 0 {
				t.Errorf("a sound store has the litter %+v", litter)
			}
			if len(snapshot.Containers) != 1 || !litter.Recorded[snapshot.Containers[0].LayerID] || len(litter.Recorded) != 2 {
				t.Errorf("%d containers, %d layers", len(snapshot.Containers), len(litter.Recorded))
			}

			parent := f.AddLayer("")
			child := f.AddLayer(parent)
			stray := strings.Repeat("ab", 32)
			layerHome := filepath.Join(f.Options.GraphRoot, driver)
			if driver == "vfs" {
				layerHome = filepath.Join(layerHome, "dir")
			}
			directories := []string{
				filepath.Join(layerHome, stray),
				filepath.Join(f.Options.GraphRoot, driver+"-containers", stray),
				filepath.Join(f.Options.RunRoot, driver+"-containers", stray),
			}
			for _, d := range directories {
				if err := os.MkdirAll(filepath.Join(d, "userdata"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if _, litter, err = s.Examine(ctx); err != nil {
				t.Fatal(err)
			}
			var layers, found []string
			for _, l := range litter.Unreferenced {
				layers = append(layers, string(l.Layer.ID))
				if l.Since.IsZero() || l.Layer.Directory == "" {
					t.Errorf("%+v", l)
				}
			}
			if !slices.Equal(layers, []string{child, parent}) {
				t.Errorf("unreferenced are %v, want %v", layers, []string{child, parent})
			}
			for _, l := range litter.Unrecorded {
				found = append(found, l.Layer.Directory)
			}
			for _, l := range litter.Directories {
				found = append(found, l.Path)
			}
			if !slices.Equal(found, directories) {
				t.Errorf("stray are %v, want %v", found, directories)
			}

			// What is mounted is never removed through.
			data := t.TempDir()
			if err := os.WriteFile(filepath.Join(data, "precious"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, d := range directories {
				point := filepath.Join(d, "userdata")
				if err := unix.Mount(data, point, "", unix.MS_BIND, ""); err != nil {
					t.Fatal(err)
				}
				if err := s.RemoveDirectory(ctx, d); !errors.Is(err, core.ErrStillInUse) {
					t.Errorf("removal of %s with a mount: %v", d, err)
				}
				if err := unix.Unmount(point, 0); err != nil {
					t.Fatal(err)
				}
				if err := s.RemoveDirectory(ctx, d); err != nil {
					t.Error(err)
				}
				if _, err := os.Stat(d); !os.IsNotExist(err) {
					t.Errorf("%s is still there: %v", d, err)
				}
			}
			if _, err := os.Stat(filepath.Join(data, "precious")); err != nil {
				t.Error(err)
			}
			// What has a record is kept, whatever the caller believes.
			kept := snapshot.Containers[0]
			for _, d := range []string{kept.Layer.Directory, filepath.Dir(kept.Directory)} {
				if err := s.RemoveDirectory(ctx, d); err != nil {
					t.Error(err)
				}
			}
			for _, id := range []core.LayerID{kept.LayerID, snapshot.Images[0].Layer.ID} {
				if err := s.DeleteLayer(ctx, id); err != nil {
					t.Error(err)
				}
			}
			for _, id := range []string{child, parent, parent} {
				if err := s.DeleteLayer(ctx, core.LayerID(id)); err != nil {
					t.Error(err)
				}
			}
			f.Clean()
			if err := s.DeleteContainer(ctx, mustContainer(t, f.Snapshot(), container)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestResetMountCount: of a layer that is not mounted, and of no other.
func TestResetMountCount(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "overlay")
	image := f.AddImage(storetest.Image{Names: []string{"localhost/app:latest"}, Files: map[string]string{"a": "1"}})
	id := f.AddContainer(image, storetest.Container{})
	merged := f.Mount(id)
	s := f.Open()
	count := func() int {
		c, _ := f.Snapshot().Container(id)
		return c.Layer.MountCount
	}
	c, _ := f.Snapshot().Container(id)
	if err := s.ResetMountCount(ctx, c.LayerID); !errors.Is(err, core.ErrStillInUse) || count() != 1 {
		t.Errorf("of a mounted layer: %v, count %d", err, count())
	}
	if err := unix.Unmount(merged, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.ResetMountCount(ctx, c.LayerID); err != nil || count() != 0 {
		t.Errorf("%v, count %d", err, count())
	}
	if err := s.ResetMountCount(ctx, "nosuch"); err == nil {
		t.Error("of no layer")
	}
}
