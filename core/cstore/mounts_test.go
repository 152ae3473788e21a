package cstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// TestMountedMeanwhile: a container that an engine mounts between the look at it and the deletion is kept.
func TestMountedMeanwhile(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ctx := context.Background()
			f := storetest.New(t, driver)
			s := f.Open()
			image := f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
			look := func(id core.ContainerID) core.Container { return mustContainer(t, f.Snapshot(), id) }
			id := f.AddContainer(image, storetest.Container{})
			for _, before := range []int{0, 1} {
				c := look(id)
				if c.Layer.MountCount != before {
					t.Fatalf("the mount count is %d", c.Layer.MountCount)
				}
				s.SetStep(func(string) { f.Mount(id) })
				if err := s.DeleteContainer(ctx, c); !errors.Is(err, core.ErrStillInUse) || errors.Is(err, core.ErrStoreUnavailable) {
					t.Errorf("mounted %d times, and once more at the last moment: %v", before, err)
				}
				look(id)
			}
			s.SetStep(nil)
			c := look(id)
			f.Unmount(id)
			f.Unmount(id)
			if err := s.DeleteContainer(ctx, c); err != nil {
				t.Errorf("less mounted than before: %v", err)
			}
			f.Clean()
		})
	}
}

// TestImageChangedMeanwhile: what has changed about an image since the look at it keeps it.
func TestImageChangedMeanwhile(t *testing.T) {
	for _, driver := range drivers {
		for name, change := range map[string]struct {
			do   func(t *testing.T, f *storetest.Fixture, base, app core.ImageID)
			want error
		}{
			"given a name": {func(t *testing.T, f *storetest.Fixture, _, app core.ImageID) { f.Tag(app, "localhost/more:latest") }, core.ErrPlanStale},
			"mounted":      {func(t *testing.T, f *storetest.Fixture, _, app core.ImageID) { f.MountImage(app) }, core.ErrStillInUse},
			"a container": {func(t *testing.T, f *storetest.Fixture, _, app core.ImageID) {
				f.AddContainer(app, storetest.Container{})
			}, core.ErrImageInUse},
			// The layers that it shared go with it now, and nobody has looked at them.
			"the last of its layers": {func(t *testing.T, f *storetest.Fixture, base, _ core.ImageID) { f.DeleteRecord(base) }, core.ErrPlanStale},
			"a stray mount": {func(t *testing.T, f *storetest.Fixture, _, app core.ImageID) {
				point := filepath.Join(mustImage(t, f.Snapshot(), app).Layer.Directory, "stray")
				if err := errors.Join(os.Mkdir(point, 0o700), unix.Mount(t.TempDir(), point, "", unix.MS_BIND, "")); err != nil {
					t.Fatal(err)
				}
			}, core.ErrStillInUse},
		} {
			t.Run(driver+" "+name, func(t *testing.T) {
				if driver == "vfs" && name == "mounted" {
					t.Skip("vfs mounts nothing, and counts nothing for an image")
				}
				ctx := context.Background()
				f := storetest.New(t, driver)
				s := f.Open()
				base := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
				app := f.AddImage(storetest.Image{Names: []string{"localhost/app:latest"}, Base: base, Files: map[string]string{"b": "1"}})
				d, err := s.BeginDeletion(ctx, []core.ImageID{app})
				if err != nil {
					t.Fatal(err)
				}
				image := mustImage(t, f.Snapshot(), app)
				s.SetStep(func(name string) {
					if name == "delete" {
						change.do(t, f, base, app)
					}
				})
				if err := d.Delete(ctx, image); !errors.Is(err, change.want) {
					t.Errorf("deleted: %v", err)
				}
				mustImage(t, f.Snapshot(), app)
				if err := d.End(ctx); err != nil {
					t.Error(err)
				}
				if completed, err := s.CompleteInterrupted(ctx); err != nil || len(completed) > 0 {
					t.Errorf("refused, and announced all the same: %+v, %v", completed, err)
				}
			})
		}
	}
}

// BenchmarkDeleteContainer includes the look at the mount count.
func BenchmarkDeleteContainer(b *testing.B) {
	ctx := context.Background()
	f := storetest.New(b, "overlay")
	image := f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
	for range b.N {
		f.AddContainer(image, storetest.Container{})
	}
	s := f.Open()
	containers := f.Snapshot().Containers
	b.ResetTimer()
	for _, c := range containers {
		if err := s.DeleteContainer(ctx, c); err != nil {
			b.Fatal(err)
		}
	}
}
