package cstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

func TestDeleteContainer(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ctx := context.Background()
			f := storetest.New(t, driver)
			s := f.Open()
			image := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
			gone := f.AddContainer(image, storetest.Container{Names: []string{"gone"}, Files: map[string]string{"x": "1"}})
			kept := f.AddContainer(image, storetest.Container{Names: []string{"kept"}})
			before := mustContainer(t, f.Snapshot(), gone)
			for _, notAnID := range []core.ContainerID{"gone", gone[:12], core.ContainerID(image), ""} {
				if err := s.DeleteContainer(ctx, core.Container{ID: notAnID}); !errors.Is(err, core.ErrContainerUnknown) {
					t.Errorf("delete %q: %v", notAnID, err)
				}
			}
			if err := s.DeleteContainer(ctx, before); err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{before.Directory, before.RunDirectory, before.Layer.Directory} {
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", path, err)
				}
			}
			if err := s.DeleteContainer(ctx, before); !errors.Is(err, core.ErrContainerUnknown) {
				t.Errorf("a second time: %v", err)
			}
			mustContainer(t, f.Snapshot(), kept)
			f.Clean()
		})
	}
}

func TestRemoveNames(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "vfs")
	s := f.Open()
	image := f.AddImage(storetest.Image{Names: []string{"localhost/a:1", "localhost/a:2"}, Files: map[string]string{"a": "1"}})
	other := f.AddImage(storetest.Image{Names: []string{"localhost/b:1"}, Files: map[string]string{"b": "1"}})
	if err := s.RemoveNames(ctx, image, []string{"localhost/a:1", "localhost/b:1", "localhost/never:1"}); err != nil {
		t.Fatal(err)
	}
	snapshot := f.Snapshot()
	if got := mustImage(t, snapshot, image).Names; !slices.Equal(got, []string{"localhost/a:2"}) {
		t.Errorf("names are %v", got)
	}
	if got := mustImage(t, snapshot, other).Names; !slices.Equal(got, []string{"localhost/b:1"}) {
		t.Errorf("the other image's names are %v", got)
	}
	for _, notAnID := range []core.ImageID{"localhost/a:2", image[:12], ""} {
		if err := s.RemoveNames(ctx, notAnID, []string{"localhost/a:2"}); !errors.Is(err, core.ErrImageUnknown) {
			t.Errorf("untag %q: %v", notAnID, err)
		}
	}
}

func TestDeleteImage(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ctx := context.Background()
			f := storetest.New(t, driver)
			s := f.Open()
			base := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
			app := f.AddImage(storetest.Image{Names: []string{"localhost/app:latest"}, Base: base, Files: map[string]string{"b": "1"}})
			list := f.AddList("localhost/list:latest", app)
			container := f.AddContainer(app, storetest.Container{})

			if err := deleteImages(ctx, s, app); !errors.Is(err, core.ErrImageInUse) || !strings.Contains(err.Error(), container.Short()) {
				t.Errorf("delete what a container uses: %v", err)
			}
			for _, notAnID := range []core.ImageID{"localhost/app:latest", app[:12], core.ImageID(container), ""} {
				if err := deleteImages(ctx, s, notAnID); !errors.Is(err, core.ErrImageUnknown) {
					t.Errorf("delete %q: %v", notAnID, err)
				}
			}
			f.Clean() // Refusals leave nothing.
			if err := s.DeleteContainer(ctx, mustContainer(t, f.Snapshot(), container)); err != nil {
				t.Fatal(err)
			}
			// The base's layer is the app's too.
			for i, id := range []core.ImageID{base, list, app} {
				if err := deleteImages(ctx, s, id); err != nil {
					t.Fatal(err)
				}
				if got := len(f.Snapshot().Images); got != 2-i {
					t.Errorf("%d images are left", got)
				}
				f.Clean()
			}
			if err := deleteImages(ctx, s, app); !errors.Is(err, core.ErrImageUnknown) {
				t.Errorf("a second time: %v", err)
			}
			if completed, err := s.CompleteInterrupted(ctx); err != nil || completed != nil {
				t.Errorf("interrupted: %v, %v", completed, err)
			}
			if left := layerDirs(t, f); len(left) != 0 {
				t.Errorf("layers are left: %v", left)
			}
		})
	}
}

// TestCanceledDelete: a deletion that waits for another process can be called off, one that has begun
// is completed.
func TestCanceledDelete(t *testing.T) {
	f := storetest.New(t, "vfs")
	s := f.Open()
	base := f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
	app := f.AddImage(storetest.Image{Names: []string{"localhost/app:latest"}, Base: base, Files: map[string]string{"b": "1"}})
	container := f.AddContainer(base, storetest.Container{})
	c := mustContainer(t, f.Snapshot(), container)
	dir := filepath.Join(f.Options.GraphRoot, "unmoor")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := deleteImages(ctx, s, app); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "wait for another deletion") {
		t.Errorf("canceled while another process deletes: %v", err)
	}
	mustImage(t, f.Snapshot(), app)
	if err := s.DeleteContainer(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("canceled before: %v", err)
	}
	mustContainer(t, f.Snapshot(), container)
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}

	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	s.SetStep(func(string) { cancel() })
	if err := deleteImages(ctx, s, app); err != nil || ctx.Err() == nil {
		t.Errorf("canceled once it had begun: %v (%v)", err, ctx.Err())
	}
	ctx, cancel = context.WithCancel(context.Background())
	defer cancel()
	s.SetStep(func(string) { cancel() })
	if err := s.DeleteContainer(ctx, c); err != nil || ctx.Err() == nil {
		t.Errorf("container, canceled once it had begun: %v (%v)", err, ctx.Err())
	}
	if snapshot := f.Snapshot(); len(snapshot.Images) != 1 || len(snapshot.Containers) != 0 {
		t.Errorf("left: %d images, %d containers", len(snapshot.Images), len(snapshot.Containers))
	}
	f.Clean()
}

// layerDirs lists the directories of layers.
func layerDirs(t *testing.T, f *storetest.Fixture) []string {
	t.Helper()
	home := filepath.Join(f.Options.GraphRoot, f.Options.Driver)
	if f.Options.Driver == "vfs" {
		home = filepath.Join(home, "dir")
	}
	entries, err := os.ReadDir(home)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, e := range entries {
		if len(e.Name()) == 64 {
			dirs = append(dirs, e.Name())
		}
	}
	return dirs
}

func TestDeleteImageWithLostLayer(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "vfs")
	base := f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
	app := f.AddImage(storetest.Image{Names: []string{"localhost/app:latest"}, Base: base, Files: map[string]string{"b": "1"}})
	top := mustImage(t, f.Snapshot(), app).Layer.ID
	// As a crash of another tool leaves it: the record of the layer gone.
	path := filepath.Join(f.Options.GraphRoot, "vfs-layers", "layers.json")
	edit(t, path, string(top), strings.Repeat("f", 64))
	s := f.Open()
	if i := mustImage(t, f.Snapshot(), app); !i.Layer.Missing || i.Size != -1 {
		t.Errorf("image is %+v", i)
	}
	if err := deleteImages(ctx, s, app); err != nil {
		t.Errorf("delete: %v", err)
	}
	if len(f.Snapshot().Images) != 1 {
		t.Error("the record is left")
	}
}

// edit replaces text in a record file, with its time of change, by which the library sees it.
func edit(t *testing.T, path, from, to string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), from) {
		t.Fatalf("%s has no %s", path, from)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(data), from, to)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// One Store deletes containers from several goroutines, as a removal of many does. The race detector
// cannot look on: whoever has the library's lock for reading reads a field that the next reader sets
// to what it is (v1.59.1, pkg/lockfile/lockfile.go, AssertLocked and lock), and the library says so.
func TestDeletesOfOneStore(t *testing.T) {
	if raceDetector {
		t.Skip("the storage library reads LockFile.locked beside a write of the same value")
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			ctx := context.Background()
			f := storetest.New(t, driver)
			image := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
			kept := f.AddContainer(image, storetest.Container{Names: []string{"kept"}})
			const workers, each = 4, 5
			var all [workers][]core.ContainerID
			for w := range all {
				for range each {
					all[w] = append(all[w], f.AddContainer(image, storetest.Container{Volatile: w%2 == 0}))
				}
			}
			s, before := f.Open(), f.Snapshot()
			var group errgroup.Group
			for _, mine := range all {
				group.Go(func() error {
					for _, id := range mine {
						if err := s.DeleteContainer(ctx, mustContainer(t, before, id)); err != nil {
							return fmt.Errorf("delete %s: %w", id, err)
						}
						// The others' records are read meanwhile.
						if _, err := s.Snapshot(ctx); err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Error(err)
			}
			if left := f.Snapshot().Containers; len(left) != 1 || left[0].ID != kept {
				t.Errorf("not the one that was kept is left: %v", left)
			}
			f.Clean()
		})
	}
}

func TestConcurrentDeletes(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			f := storetest.New(t, driver)
			var base core.ImageID
			for i := range 5 {
				base = f.AddImage(storetest.Image{Names: []string{fmt.Sprint("localhost/i:", i)}, Base: base, Files: map[string]string{fmt.Sprint(i): "1"}})
				for range 3 {
					f.AddContainer(base, storetest.Container{})
				}
			}
			first, second := childCommand(t, f.Options, "delete-all"), childCommand(t, f.Options, "delete-all")
			var out [2]strings.Builder
			first.Stderr, second.Stderr = &out[0], &out[1]
			if err := errors.Join(first.Start(), second.Start()); err != nil {
				t.Fatal(err)
			}
			if err := deleteAll(context.Background(), f.Open()); err != nil {
				t.Error(err)
			}
			for i, err := range []error{first.Wait(), second.Wait()} {
				if err != nil {
					t.Errorf("process %d: %v: %s", i, err, &out[i])
				}
			}
			f.Clean()
			if left := layerDirs(t, f); len(left) != 0 {
				t.Errorf("layers are left: %v", left)
			}
		})
	}
}

func TestContainerSize(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "overlay")
	image := f.AddImage(storetest.Image{Files: map[string]string{"big": strings.Repeat("x", 1<<20)}})
	id := f.AddContainer(image, storetest.Container{})
	merged := f.Mount(id)
	size := func() int64 {
		t.Helper()
		bytes, err := f.Open().ContainerSize(ctx, mustContainer(t, f.Snapshot(), id))
		if err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	empty := size()
	if empty > 1<<16 {
		t.Errorf("an empty layer has %d bytes", empty)
	}
	write(t, filepath.Join(merged, "dir", "file"), 1<<16)
	if err := os.Link(filepath.Join(merged, "dir", "file"), filepath.Join(merged, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(merged, "root")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(merged, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	sparse := filepath.Join(merged, "sparse")
	write(t, sparse, 1)
	if err := os.Truncate(sparse, 1<<30); err != nil {
		t.Fatal(err)
	}
	one := size()
	if grown := one - empty; grown < 1<<16 || grown > 1<<16+1<<15 {
		t.Errorf("64 KiB in two links add %d bytes", grown)
	}
	// A directory of the host, on the same file system, bound below the layer directory.
	host := t.TempDir()
	write(t, filepath.Join(host, "data"), 1<<20)
	point := filepath.Join(mustContainer(t, f.Snapshot(), id).Layer.UpperDir, "dir")
	if err := unix.Mount(host, point, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if bound := size(); bound >= one {
		t.Errorf("with a mount the size is %d, without %d", bound, one)
	}
	if err := unix.Unmount(point, 0); err != nil {
		t.Fatal(err)
	}
	missing := core.Container{Layer: core.Layer{Directory: filepath.Join(f.Options.GraphRoot, "overlay", "none"), Driver: "overlay"}}
	if bytes, err := f.Open().ContainerSize(ctx, missing); bytes != 0 || err != nil {
		t.Errorf("without a layer: %d, %v", bytes, err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := f.Open().ContainerSize(canceled, mustContainer(t, f.Snapshot(), id)); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func write(t *testing.T, path string, bytes int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(strings.Repeat("x", bytes)); err != nil {
		t.Fatal(err)
	}
	// Blocks are given out when the file is written back.
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}
