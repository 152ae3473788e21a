package cstore_test

import (
	"context"
	"errors"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// TestMountedMeanwhile: a container that an engine mounts between the snapshot and the deletion is
// kept, and the next attempt begins anew.
func TestMountedMeanwhile(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ctx := context.Background()
			f := storetest.New(t, driver)
			s := f.Open()
			image := f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
			snapshot := func() {
				t.Helper()
				if _, err := s.Snapshot(ctx); err != nil {
					t.Fatal(err)
				}
			}
			at := func(do func()) {
				s.SetStep(func(name string) {
					if name == "delete_container" {
						do()
					}
				})
			}
			kept := func(id core.ContainerID, what string) {
				t.Helper()
				err := s.DeleteContainer(ctx, id)
				if !errors.Is(err, core.ErrStillInUse) || errors.Is(err, core.ErrStoreUnavailable) {
					t.Errorf("%s: %v", what, err)
				}
				mustContainer(t, f.Snapshot(), id)
			}
			deleted := func(id core.ContainerID, what string) {
				t.Helper()
				if err := s.DeleteContainer(ctx, id); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
			c := f.AddContainer(image, storetest.Container{})
			snapshot()
			at(func() { f.Mount(c) })
			kept(c, "mounted at the last moment")
			at(func() {})
			snapshot()
			f.Unmount(c)
			deleted(c, "mounted at the next snapshot, and less now")

			c = f.AddContainer(image, storetest.Container{})
			snapshot()
			f.Mount(c)
			snapshot()
			kept(c, "mounted before another snapshot")
			f.Unmount(c)
			deleted(c, "unmounted since")

			c = f.AddContainer(image, storetest.Container{})
			f.Mount(c)
			snapshot()
			at(func() { f.Mount(c) })
			kept(c, "mounted once more")
			at(func() {})
			f.Unmount(c)
			f.Unmount(c)

			unseen := f.AddContainer(image, storetest.Container{})
			deleted(unseen, "never looked at")
			f.Clean()
		})
	}
}

// BenchmarkDeleteContainer includes the look at the mounts where the containers were looked at.
func BenchmarkDeleteContainer(b *testing.B) {
	for _, looked := range []bool{false, true} {
		name := map[bool]string{false: "unseen", true: "looked at"}[looked]
		b.Run(name, func(b *testing.B) {
			ctx := context.Background()
			f := storetest.New(b, "overlay")
			image := f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
			ids := make([]core.ContainerID, b.N)
			for i := range ids {
				ids[i] = f.AddContainer(image, storetest.Container{})
			}
			s := f.Open()
			if looked {
				if _, err := s.Snapshot(ctx); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for _, id := range ids {
				if err := s.DeleteContainer(ctx, id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
