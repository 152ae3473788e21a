package cstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// killed runs a child that is to die by its own SIGKILL, and says whether it did: it may have been
// done sooner where it had to die at a moment inside the library.
func killed(t *testing.T, o cstore.Options, verb string, args ...string) bool {
	t.Helper()
	out, err := childCommand(t, o, verb, args...).CombinedOutput()
	if err == nil {
		return false
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("%s: %v: %s", verb, err, out)
	}
	return true
}

// tower makes an image of several layers of its own over a shared one.
func tower(f *storetest.Fixture) (base, app core.ImageID) {
	base = f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"base": "1"}})
	app = base
	var middle []core.ImageID
	for _, file := range []string{"a", "b", "c", "d", "e"} {
		app = f.AddImage(storetest.Image{Base: app, Files: map[string]string{file: strings.Repeat(file, 1000)}})
		middle = append(middle, app)
	}
	s := f.Open()
	for _, id := range middle[:len(middle)-1] {
		_ = deleteImages(context.Background(), s, id) // Seen by the count of images.
	}
	return base, app
}

func TestKilledWhileDeletingAnImage(t *testing.T) {
	if testing.Short() {
		t.Skip("short: one process after the other is killed, at every step")
	}
	for _, driver := range drivers {
		for _, step := range []string{
			"announce", "delete", "complete",
			"replaced:images.json", "replaced:layers.json", "replaced:layers.json:2", "replaced:layers.json:3", "replaced:layers.json:6",
		} {
			for _, again := range []string{"complete", "delete"} {
				t.Run(driver+" at "+step+" then "+again, func(t *testing.T) {
					ctx := context.Background()
					f := storetest.New(t, driver)
					base, app := tower(f)
					if images, layers := len(f.Snapshot().Images), len(layerDirs(t, f)); images != 2 || layers != 6 {
						t.Fatalf("%d images, %d layers", images, layers)
					}
					died := killed(t, f.Options, "delete-image", string(app), moment(f, step))
					if !died && !strings.HasPrefix(step, "replaced:") {
						t.Fatal("it lives")
					}
					s := f.Open()
					_, there := f.Snapshot().Image(app)
					t.Logf("killed: %v; the record is left: %v; layers left: %d", died, there, len(layerDirs(t, f)))
					switch again {
					case "complete":
						completed, err := s.CompleteInterrupted(ctx)
						if err != nil {
							t.Fatal(err)
						}
						switch {
						case !died || there:
							if len(completed) != 0 {
								t.Errorf("completed: %v", completed)
							}
						case len(completed) != 1 || completed[0].Image.ID != app || len(completed[0].Deleted) != 1:
							t.Errorf("completed: %v", completed)
						}
						if there {
							mustImage(t, f.Snapshot(), app)
							if err := deleteImages(ctx, s, app); err != nil {
								t.Fatal(err)
							}
						}
					case "delete":
						err := deleteImages(ctx, s, app)
						if there && err != nil || !there && !errors.Is(err, core.ErrImageUnknown) {
							t.Fatalf("delete again: %v", err)
						}
					}
					if err := s.Conclude(ctx, app); err != nil {
						t.Fatal(err)
					}
					f.Clean()
					mustImage(t, f.Snapshot(), base)
					if layers := layerDirs(t, f); len(layers) != 1 {
						t.Errorf("layers are left: %v", layers)
					}
				})
			}
		}
	}
}

// moment spells out the record file of a step.
func moment(f *storetest.Fixture, step string) string {
	for _, name := range []string{"images", "layers", "containers"} {
		step = strings.Replace(step, ":"+name+".json", ":"+filepath.Join(f.Options.GraphRoot, f.Options.Driver+"-"+name, name+".json"), 1)
	}
	return step
}

// TestKilledWithinAChain kills the deletion of an image with two dangling parents, one of them without a
// layer of its own: whatever was done, the first image's name is answered to and the rest is named until
// it is concluded, and nothing is reported twice.
func TestKilledWithinAChain(t *testing.T) {
	ctx := context.Background()
	for _, driver := range drivers {
		for _, tt := range []struct {
			step          string
			deleted, rest int
		}{
			{"announce", -1, 0}, {"delete", -1, 0}, {"complete", 1, 2}, {"delete:2", 1, 2}, {"complete:2", 2, 1}, {"delete:3", 2, 1}, {"complete:3", 3, 0},
		} {
			t.Run(driver+" at "+tt.step, func(t *testing.T) {
				f := storetest.New(t, driver)
				base := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
				one := f.AddImage(storetest.Image{Base: base, Files: map[string]string{"b": "1"}})
				two := f.AddImage(storetest.Image{Base: one, NoLayer: true})
				app := f.AddImage(storetest.Image{Names: []string{"localhost/app:latest"}, Base: two, Files: map[string]string{"c": "1"}})
				chain := []core.ImageID{app, two, one}
				if !killed(t, f.Options, "delete-image", fmt.Sprintf("%s,%s,%s", app, two, one), tt.step) {
					t.Fatal("it lives")
				}
				s := f.Open()
				_, litter, err := s.Examine(ctx)
				if err != nil || (tt.step != "announce") != slices.Equal(litter.Deletions, []core.ImageID{app}) {
					t.Errorf("examined: %v, %v", litter.Deletions, err)
				}
				for _, when := range []string{"first", "once more"} {
					completed, err := s.CompleteInterrupted(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if tt.deleted < 0 {
						if len(completed) != 0 {
							t.Errorf("%s: completed %+v, and nothing had begun", when, completed)
						}
						continue
					}
					if len(completed) != 1 || completed[0].Image.ID != app || !slices.Equal(completed[0].Image.Names, []string{"localhost/app:latest"}) ||
						!slices.Equal(completed[0].Rest, chain[3-tt.rest:]) {
						t.Fatalf("%s: completed %+v", when, completed)
					}
					want := tt.deleted
					if when == "once more" {
						want = 0
					}
					if len(completed[0].Deleted) != want {
						t.Errorf("%s: deleted %+v", when, completed[0].Deleted)
					}
				}
				// The completing one is killed too.
				if tt.rest == 2 {
					if !killed(t, f.Options, "delete-image", fmt.Sprintf("%s,%s", two, one), "complete") {
						t.Fatal("the second one lives")
					}
					completed, err := s.CompleteInterrupted(ctx)
					if err != nil || len(completed) != 2 {
						t.Fatalf("completed %+v, %v", completed, err)
					}
					for _, c := range completed {
						if !slices.Equal(c.Rest, []core.ImageID{one}) || c.Image.ID == app && len(c.Deleted) != 0 || c.Image.ID == two && len(c.Deleted) != 1 {
							t.Errorf("completed %+v", c)
						}
					}
					if err := s.Conclude(ctx, two); err != nil {
						t.Error(err)
					}
				}
				for _, id := range chain {
					if err := deleteImages(ctx, s, id); err != nil && !errors.Is(err, core.ErrImageUnknown) {
						t.Error(err)
					}
				}
				if err := s.Conclude(ctx, app); err != nil {
					t.Error(err)
				}
				if completed, err := s.CompleteInterrupted(ctx); err != nil || len(completed) > 0 {
					t.Errorf("concluded, and completed %+v, %v", completed, err)
				}
				f.Clean()
				if layers := layerDirs(t, f); len(layers) != 1 {
					t.Errorf("layers are left: %v", layers)
				}
			})
		}
	}
}

// TestRestThatIsNeededAgain: what was to go along and has come into use is not named.
func TestRestThatIsNeededAgain(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "vfs")
	base := f.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
	app := f.AddImage(storetest.Image{Names: []string{"localhost/app:latest"}, Base: base, Files: map[string]string{"b": "1"}})
	if !killed(t, f.Options, "delete-image", fmt.Sprintf("%s,%s", app, base), "complete") {
		t.Fatal("it lives")
	}
	s := f.Open()
	for _, want := range []int{1, 0} {
		completed, err := s.CompleteInterrupted(ctx)
		if err != nil || len(completed) != 1 || len(completed[0].Rest) != want {
			t.Errorf("completed %+v, %v; want %d", completed, err, want)
		}
		f.AddContainer(base, storetest.Container{})
	}
}

func TestKilledWhileCompleting(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "overlay")
	_, app := tower(f)
	killed(t, f.Options, "delete-image", string(app), moment(f, "replaced:images.json"))
	for range 3 {
		killed(t, f.Options, "complete", "layer")
	}
	for range 2 {
		killed(t, f.Options, "complete", moment(f, "replaced:layers.json"))
	}
	if _, err := f.Open().CompleteInterrupted(ctx); err != nil {
		t.Fatal(err)
	}
	if err := f.Open().Conclude(ctx, app); err != nil {
		t.Fatal(err)
	}
	f.Clean()
	if layers := layerDirs(t, f); len(layers) != 1 {
		t.Errorf("layers are left: %v", layers)
	}
}

func TestKilledWhileDeletingContainers(t *testing.T) {
	for _, driver := range drivers {
		for _, step := range []string{"delete_container", "replaced:layers.json", "replaced:layers.json:2", "replaced:containers.json"} {
			t.Run(driver+" at "+step, func(t *testing.T) {
				ctx := context.Background()
				f := storetest.New(t, driver)
				image := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"base": "1"}})
				for range 2 {
					f.AddContainer(image, storetest.Container{})
				}
				killed(t, f.Options, "delete-containers", moment(f, step))
				s := f.Open()
				snapshot := f.Snapshot()
				missing := 0
				for _, c := range snapshot.Containers {
					if c.Layer.Missing {
						missing++
					}
					if _, err := s.ContainerSize(ctx, c); err != nil {
						t.Error(err)
					}
				}
				t.Logf("%d records are left, %d of them without layer", len(snapshot.Containers), missing)
				findings, err := s.Check(ctx)
				if err != nil || len(findings) < missing {
					t.Errorf("check: %v, %v", findings, err)
				}
				if err := deleteAll(ctx, s); err != nil {
					t.Fatal(err)
				}
				f.Clean()
			})
		}
	}
}

// interrupted leaves a deletion with orphan layers behind.
func interrupted(t *testing.T, f *storetest.Fixture) core.ImageID {
	t.Helper()
	for range 10 {
		_, app := tower(f)
		if killed(t, f.Options, "delete-image", string(app), moment(f, "replaced:images.json")) && len(layerDirs(t, f)) > 1 {
			return app
		}
		if err := deleteAll(context.Background(), f.Open()); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no child died between the record and the layers")
	return ""
}

func TestCompleteKeepsWhatCameIntoUse(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "vfs")
	app := interrupted(t, f)
	// Somebody builds on the orphan top layer: the announcement's layers are not all free any more.
	var top string
	for _, id := range layerDirs(t, f) {
		if !slices.ContainsFunc(f.Snapshot().Images, func(i core.Image) bool { return string(i.Layer.ID) == id }) {
			top = id
		}
	}
	user := f.AddImageOver(top, "localhost/new:latest")
	completed, err := f.Open().CompleteInterrupted(ctx)
	if err != nil || len(completed) != 1 || completed[0].Image.ID != app {
		t.Errorf("completed: %v, %v", completed, err)
	}
	if mustImage(t, f.Snapshot(), user).Layer.Missing {
		t.Error("the layer of an image was deleted")
	}
	if err := f.Open().Conclude(ctx, app); err != nil {
		t.Fatal(err)
	}
	f.Clean()
}

func TestCompleteRefusesMounts(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "overlay")
	interrupted(t, f)
	host := t.TempDir()
	write(t, filepath.Join(host, "data"), 10)
	for _, id := range layerDirs(t, f) {
		if slices.ContainsFunc(f.Snapshot().Images, func(i core.Image) bool { return string(i.Layer.ID) == id }) {
			continue
		}
		point := filepath.Join(f.Options.GraphRoot, "overlay", id, "stray")
		if err := os.Mkdir(point, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(host, point, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Unmount(point, unix.MNT_DETACH) }()
	}
	_, err := f.Open().CompleteInterrupted(ctx)
	if !errors.Is(err, core.ErrStillInUse) || !strings.Contains(err.Error(), host) && !strings.Contains(err.Error(), "stray") {
		t.Errorf("completed over mounts: %v", err)
	}
	if _, err := os.Stat(filepath.Join(host, "data")); err != nil {
		t.Error(err)
	}
}

func TestDamagedAnnouncement(t *testing.T) {
	ctx := context.Background()
	f := storetest.New(t, "vfs")
	app := interrupted(t, f)
	path := filepath.Join(f.Options.GraphRoot, "unmoor", "delete-damaged.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	completed, err := f.Open().CompleteInterrupted(ctx)
	if err == nil || !strings.Contains(err.Error(), path) || len(completed) != 1 || completed[0].Image.ID != app {
		t.Errorf("completed: %v, %v", completed, err)
	}
	if i := completed[0].Image; i.Size <= 0 || i.UniqueSize <= 0 {
		t.Errorf("the image was %+v", i)
	}
}

func TestLiveDeletionIsNotInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	f := storetest.New(t, "vfs")
	_, app := tower(f)
	s := f.Open()
	s.SetStep(func(name string) {
		if name != "delete" {
			return
		}
		// The announcement is there and its process lives: another one waits.
		cancel()
		var out bytes.Buffer
		other := childCommand(t, f.Options, "complete")
		other.Stderr = &out
		if err := other.Start(); err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() {
			if err := other.Wait(); err != nil {
				t.Errorf("%v: %s", err, &out)
			}
		})
		if _, err := f.Open().CompleteInterrupted(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("a live deletion was taken for an interrupted one: %v", err)
		}
	})
	if err := deleteImages(context.Background(), s, app); err != nil {
		t.Fatal(err)
	}
	f.Clean()
}
