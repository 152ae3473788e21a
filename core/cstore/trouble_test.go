package cstore_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// contents reads all files of a store's records, to compare.
func contents(t *testing.T, f *storetest.Fixture) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(f.Options.GraphRoot, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasSuffix(path, ".lock") {
			var data []byte
			data, err = os.ReadFile(path)
			all[path] = string(data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDamagedRecords(t *testing.T) {
	for _, file := range []string{
		"graph/vfs-containers/containers.json", "graph/vfs-containers/volatile-containers.json",
		"graph/vfs-images/images.json", "graph/vfs-layers/layers.json", "run/vfs-layers/mountpoints.json",
	} {
		for name, data := range map[string]string{
			"garbage":   "no JSON",
			"cut off":   `[{"id":"0123456789abcdef`,
			"an object": `{"id":"x"}`,
			"a number":  `[{"id":3}]`,
			"null":      `[null]`,
			"empty":     ``,
		} {
			if name == "empty" && (strings.Contains(file, "volatile") || strings.Contains(file, "mountpoints")) {
				continue // These are not synced to disk, and empty ones are right after a power cut.
			}
			if name == "null" && strings.Contains(file, "mountpoints") {
				continue // The library takes it for a mount of nothing.
			}
			t.Run(filepath.Base(file)+" "+name, func(t *testing.T) {
				storetest.Root(t)
				directory := t.TempDir()
				f := storetest.At(t, directory, "vfs")
				image := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
				f.AddContainer(image, storetest.Container{})
				f.AddContainer(image, storetest.Container{Volatile: true})
				s := f.Open()
				path := filepath.Join(directory, file)
				if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
					t.Fatal(err)
				}
				before := contents(t, f)

				// A new process, since the library's memory of this one is right.
				out, err := childCommand(t, f.Options, "open").CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.ExitCode() != 3 {
					t.Fatalf("%v: %s", err, out)
				}
				t.Logf("%s", out)
				if text := string(out); !strings.Contains(text, path) || !strings.Contains(text, "store unavailable") ||
					strings.Contains(text, "goroutine") || strings.Count(text, "\n") != 1 {
					t.Errorf("the error is\n%s", text)
				}
				if out, err := childCommand(t, f.Options, "delete-image", string(image)).CombinedOutput(); err == nil {
					t.Errorf("deletion goes on: %s", out)
				}
				if name == "empty" {
					if err := deleteImages(context.Background(), s, image); !errors.Is(err, core.ErrStoreUnavailable) {
						t.Errorf("the open store's word: %v", err)
					}
				}
				after := contents(t, f)
				for path, data := range before {
					if after[path] != data {
						t.Errorf("%s was changed", path)
					}
				}
			})
		}
	}
}

func TestCrashOfTheLibraryEndsTheStore(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "vfs")
	f.AddContainer(f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}}), storetest.Container{})
	var told []error
	options := f.Options
	options.Broken = func(err error) { told = append(told, err) }
	s, err := cstore.Open(ctx, options)
	if err != nil {
		t.Fatal(err)
	}
	// A lock file that cannot be opened makes the library panic with a lock held.
	path := filepath.Join(f.Options.GraphRoot, "vfs-containers", "containers.lock")
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Snapshot(ctx); !errors.Is(err, core.ErrStoreUnavailable) {
			t.Errorf("snapshot: %v", err)
		}
	}
	if _, err := cstore.Open(ctx, f.Options); !errors.Is(err, core.ErrStoreUnavailable) {
		t.Errorf("open: %v", err)
	}
	if len(told) != 1 || !errors.Is(told[0], core.ErrStoreUnavailable) {
		t.Errorf("told were %v", told)
	}
}

func TestMissingConfiguration(t *testing.T) {
	t.Setenv("CONTAINERS_STORAGE_CONF", "/nonexistent/storage.conf")
	_, err := cstore.Open(context.Background(), cstore.Options{GraphRoot: t.TempDir(), RunRoot: t.TempDir(), Driver: "vfs"})
	if !errors.Is(err, core.ErrStoreUnavailable) || !strings.Contains(err.Error(), "/nonexistent/storage.conf") || !strings.Contains(err.Error(), "CONTAINERS_STORAGE_CONF") {
		t.Errorf("open: %v", err)
	}
}

func TestUnknownDriver(t *testing.T) {
	_, err := cstore.Open(context.Background(), cstore.Options{GraphRoot: t.TempDir(), RunRoot: t.TempDir(), Driver: "floppy"})
	if !errors.Is(err, core.ErrStoreUnavailable) || !strings.Contains(err.Error(), "floppy") {
		t.Errorf("open: %v", err)
	}
}

func TestNoPermission(t *testing.T) {
	storetest.Root(t)
	directory := t.TempDir()
	// The test's own directories are its user's alone.
	for d := directory; strings.HasPrefix(d, filepath.Clean(os.TempDir())+"/"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := storetest.At(t, directory, "vfs")
	f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
	// A copy that another user can execute.
	self := filepath.Join(directory, "self")
	binary, err := os.Executable()
	if err == nil {
		var data []byte
		if data, err = os.ReadFile(binary); err == nil {
			err = os.WriteFile(self, data, 0o755)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	runtime := t.TempDir()
	if err := os.Chown(runtime, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	cmd := childCommand(t, f.Options, "open")
	cmd.Path, cmd.Args[0] = self, self
	cmd.Env = append(cmd.Env, "UNMOOR_TEST_SELF="+self, "HOME="+directory, "XDG_RUNTIME_DIR="+runtime)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	t.Logf("%s", out)
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(string(out), "no permission") || strings.Contains(string(out), "goroutine") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFullDisk(t *testing.T) {
	storetest.Root(t)
	ctx := context.Background()
	directory := t.TempDir()
	if err := unix.Mount("tmpfs", directory, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(directory, 0); err != nil {
			t.Error(err)
		}
	})
	f := storetest.At(t, directory, "overlay")
	image := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
	container := f.AddContainer(image, storetest.Container{})
	spare := f.AddImage(storetest.Image{Names: []string{"localhost/spare:latest"}, Files: map[string]string{"b": "1"}})
	s := f.Open()
	before := contents(t, f)

	filler := filepath.Join(directory, "filler")
	full, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = full.Write(block)
	}
	full.Close()
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}

	for name, do := range map[string]func() error{
		"delete container": func() error { return s.DeleteContainer(ctx, core.Container{ID: container}) },
		"delete image":     func() error { return deleteImages(ctx, s, spare) },
		"untag":            func() error { return s.RemoveNames(ctx, spare, []string{"localhost/spare:latest"}) },
	} {
		for range 2 { // The second time must not say that it is gone.
			err := do()
			t.Log(err)
			if !errors.Is(err, core.ErrStoreUnavailable) || !strings.Contains(err.Error(), "free some space") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	snapshot, err := s.Snapshot(ctx)
	if err != nil || len(snapshot.Images) != 2 || len(snapshot.Containers) != 1 || snapshot.Containers[0].Layer.Missing {
		t.Errorf("on the full disk: %+v, %v", snapshot, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for path, data := range contents(t, f) {
		if was, ok := before[path]; ok && was != data {
			t.Errorf("%s was changed", path)
		}
	}
	if err := deleteAll(ctx, s); err != nil {
		t.Fatal(err)
	}
	f.Clean()
}

func TestReadOnlyFileSystem(t *testing.T) {
	storetest.Root(t)
	directory := t.TempDir()
	if err := unix.Mount("tmpfs", directory, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(directory, 0); err != nil {
			t.Error(err)
		}
	})
	f := storetest.At(t, directory, "vfs")
	f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
	if err := unix.Mount("", directory, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	out, err := childCommand(t, f.Options, "open").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "read-only") || strings.Contains(string(out), "goroutine") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestCanceled(t *testing.T) {
	f := storetest.New(t, "vfs")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := f.Open()
	_, snapshotErr := s.Snapshot(ctx)
	_, openErr := cstore.Open(ctx, f.Options)
	for name, err := range map[string]error{"snapshot": snapshotErr, "open": openErr, "delete": s.DeleteContainer(ctx, core.Container{ID: "x"})} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
