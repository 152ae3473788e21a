package storetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containers/storage"
	"github.com/containers/storage/types"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
)

// Main runs the tests of a package that uses this one. Such a package has
//
//	func TestMain(m *testing.M) { storetest.Main(m) }
//
// since the storage library executes the test binary again for some of its work.
func Main(m *testing.M) {
	if cstore.Reexec() {
		return
	}
	os.Exit(m.Run())
}

// Root skips a test that needs root, and fails it in CI, where root is to be had.
func Root(t testing.TB) {
	t.Helper()
	if os.Getuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("this test needs root, which CI must give it")
	}
	t.Skip("this test needs root")
}

// Fixture is a store of its own for one test.
type Fixture struct {
	Options cstore.Options
	t       testing.TB
	lib     storage.Store
}

// New makes an empty store in a temporary directory. What is mounted there is unmounted at the end.
// options other than the roots and the driver may be preset.
func New(t testing.TB, driver string, preset ...cstore.Options) *Fixture {
	t.Helper()
	Root(t)
	return At(t, t.TempDir(), driver, preset...)
}

// At is New in a directory, which may hold the fixture's store already, of another process say. The
// caller removes it.
func At(t testing.TB, directory, driver string, preset ...cstore.Options) *Fixture {
	t.Helper()
	f := &Fixture{t: t}
	if len(preset) > 0 {
		f.Options = preset[0]
	}
	f.Options.GraphRoot = filepath.Join(directory, "graph")
	f.Options.RunRoot = filepath.Join(directory, "run")
	f.Options.Driver = driver
	t.Cleanup(func() { f.unmount(directory) })
	lib, err := storage.GetStore(types.StoreOptions{
		GraphRoot: f.Options.GraphRoot, RunRoot: f.Options.RunRoot,
		GraphDriverName: driver, GraphDriverOptions: f.Options.DriverOptions,
	})
	if err != nil {
		t.Fatalf("make a store of driver %s in %s: %v", driver, directory, err)
	}
	f.lib = lib
	return f
}

// Open opens the fixture's store.
func (f *Fixture) Open() *cstore.Store {
	f.t.Helper()
	s, err := cstore.Open(context.Background(), f.Options)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// Snapshot reads the fixture's store.
func (f *Fixture) Snapshot() *core.Snapshot {
	f.t.Helper()
	snapshot, err := f.Open().Snapshot(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	return snapshot
}

// Clean fails the test where the store's check finds something.
func (f *Fixture) Clean() {
	f.t.Helper()
	findings, err := f.Open().Check(context.Background())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, finding := range findings {
		f.t.Errorf("check: %s", finding)
	}
}

// unmount ends all mounts below a directory, the deepest first, stacked ones too.
func (f *Fixture) unmount(directory string) {
	f.t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(directory))
	if err != nil {
		f.t.Errorf("look for mounts below %s: %v", directory, err)
		return
	}
	slices.SortStableFunc(mounts, func(a, b *mountinfo.Info) int {
		return strings.Count(b.Mountpoint, "/") - strings.Count(a.Mountpoint, "/")
	})
	for _, m := range mounts {
		if m.Mountpoint == directory {
			continue // The directory's own, its maker's business.
		}
		if err := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			// A process of the test may hold it; detached, it ends with that.
			if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
				f.t.Errorf("unmount %s: %v", m.Mountpoint, err)
			}
		}
	}
}
