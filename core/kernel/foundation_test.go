package kernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// image is the layer of the image that the store's container stands on, with the short name that the
// library gives it. The container's own mount is gone.
func (s *store) image() core.Layer {
	s.t.Helper()
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	dir := filepath.Dir(s.lower)
	s.mkdir(filepath.Join(dir, "merged"), filepath.Join(s.dir, "overlay/l"), filepath.Join(s.dir, "overlay/empty"))
	s.write(filepath.Join(dir, "link"), shortName)
	s.do(os.Symlink("../"+filepath.Base(dir)+"/diff", filepath.Join(s.dir, "overlay/l", shortName)))
	return core.Layer{ID: "image", Directory: dir, MountPoint: filepath.Join(dir, "merged"), Driver: "overlay"}
}

// mountFrom mounts an overlay by paths relative to a directory.
func (s *store) mountFrom(dir, options, at string) {
	s.t.Helper()
	cmd := exec.Command("mount", "-t", "overlay", "-o", options, "overlay", at)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("mount -o %s: %v: %s", options, err, out)
	}
}

// The container of a store that has ours as an additional store, and of one that has our graph root
// with another run root: this store has no record of it.
func TestFoundationOfAnotherStore(t *testing.T) {
	for _, c := range []struct {
		name  string
		lower func(s *store) string
		fuse  bool
	}{
		{"by the short name", func(s *store) string { return filepath.Join(s.dir, "overlay/l", shortName) }, false},
		{"by the ID", func(s *store) string { return s.lower }, false},
		{"below another layer", func(s *store) string {
			return filepath.Join(s.dir, "overlay/empty") + ":" + filepath.Join(s.dir, "overlay/l", shortName)
		}, false},
		{"relative", func(*store) string { return "l/" + shortName }, false},
		{"through FUSE", func(s *store) string { return filepath.Join(s.dir, "overlay/l", shortName) }, true},
	} {
		for _, old := range []bool{false, true} {
			t.Run(c.name+map[bool]string{false: " listmount", true: " mountinfo"}[old], func(t *testing.T) {
				s, other := newStore(t, "overlay"), newStore(t, "overlay")
				layer := s.image()
				other.do(unix.Unmount(other.layer.MountPoint, 0))
				options := "lowerdir=" + c.lower(s) + ",upperdir=" + other.layer.UpperDir + ",workdir=" + other.layer.Directory + "/work"
				i := inspector(t)
				i.noListmount = old
				if o := observe(t, i, layer); o.Use != core.UseIdle {
					t.Fatalf("before: %s", dump(o))
				}
				if c.fuse {
					if out, err := exec.Command("fuse-overlayfs", "-o", options, other.layer.MountPoint).CombinedOutput(); err != nil {
						skip(t, "fuse-overlayfs: "+string(out))
					}
				} else {
					s.mountFrom(filepath.Join(s.dir, "overlay"), options, other.layer.MountPoint)
				}
				// A FUSE server has the layer open.
				if o := observe(t, i, layer); o.Use != core.UseUnknown && (!c.fuse || o.Use != core.UseInUse) {
					t.Fatalf("mounted: %s", dump(o))
				}
				refused(t, i, layer)
				h := start(t, newMountNamespace(), "pivot", other.layer.MountPoint)
				o := observe(t, i, layer)
				if p := core.Processes(o.Evidence); o.Use != core.UseInUse || !c.fuse && (len(p) != 1 || p[0].PID != h.Process.Pid) {
					t.Fatalf("in use: %s", dump(o))
				}
				refused(t, i, layer)
				s.do(unix.Unmount(other.layer.MountPoint, unix.MNT_DETACH)) // its namespace has it still
				if o := observe(t, i, layer); o.Use == core.UseIdle {
					t.Fatalf("in another namespace alone: %s", dump(o))
				}
				refused(t, i, layer)
				// In one call with another layer of the same store.
				all, err := i.Observe(t.Context(), []core.Layer{s.layer, layer})
				s.do(err)
				if all[layer.ID].Use == core.UseIdle || all[s.layer.ID].Use != core.UseIdle {
					t.Fatalf("together: %s %s", dump(all[layer.ID]), dump(all[s.layer.ID]))
				}
				if answer := h.ask(); answer != "ok" {
					t.Error(answer)
				}
				h.stop()
				// Its namespace and its FUSE server end in their own time.
				for end := time.Now().Add(5 * time.Second); observe(t, i, layer).Use != core.UseIdle && time.Now().Before(end); {
					time.Sleep(10 * time.Millisecond)
				}
				released(t, i, layer)
			})
		}
	}
}

// Containers of the store itself: its records say more. When the image goes, none may be left.
func TestFoundationOfOwnContainer(t *testing.T) {
	for _, how := range []string{"absolute", "relative"} {
		t.Run(how, func(t *testing.T) {
			s := newStore(t, "overlay")
			layer := s.image()
			options := "lowerdir=" + filepath.Join(s.dir, "overlay/l", shortName) + ",upperdir=" + s.layer.UpperDir + ",workdir=" + s.layer.Directory + "/work"
			if how == "relative" {
				options = strings.ReplaceAll(options, s.dir+"/overlay/", "")
			}
			s.mountFrom(filepath.Join(s.dir, "overlay"), options, s.layer.MountPoint)
			h := start(t, newMountNamespace(), "pivot", s.layer.MountPoint)
			i := inspector(t)
			all, err := i.Observe(t.Context(), []core.Layer{s.layer, layer})
			s.do(err)
			if all[s.layer.ID].Use != core.UseInUse || all[layer.ID].Use != core.UseIdle {
				t.Fatalf("with it: %s %s", dump(all[s.layer.ID]), dump(all[layer.ID]))
			}
			if o := observe(t, i, layer); o.Use != core.UseIdle {
				t.Fatalf("without it: %s", dump(o))
			}
			refused(t, i, layer)
			h.stop()
			released(t, i, s.layer)
			released(t, i, layer)
		})
	}
}

// A copy of a store has the same IDs and short names.
func TestFoundationOfACopy(t *testing.T) {
	s, other := newStore(t, "overlay"), newStore(t, "overlay")
	layer, theirs := s.image(), other.image()
	other.mountFrom(filepath.Join(other.dir, "overlay"), "lowerdir=l/"+shortName+",upperdir="+filepath.Base(other.layer.Directory)+"/diff,workdir="+
		filepath.Base(other.layer.Directory)+"/work", other.layer.MountPoint)
	i := inspector(t)
	if o := observe(t, i, layer); o.Use != core.UseIdle {
		t.Error(dump(o))
	}
	released(t, i, layer)
	refused(t, i, theirs)
}

// What is ours stays ours, wherever it is seen and whatever its paths say.
func TestDisown(t *testing.T) {
	for _, c := range []struct {
		name     string
		relative bool
		arrange  func(s, other *store, layer core.Layer, mount func(home string)) (at string)
	}{
		{"through a bind mount of the store", true, bound},
		{"through a bind mount of the store", false, bound},
		{"bound elsewhere and unmounted here", true, carried("elsewhere")},
		{"bound elsewhere and unmounted here", false, carried("elsewhere")},
		{"bound to another store's and unmounted here", true, carried("")},
		{"bound to another store's and unmounted here", false, carried("")},
	} {
		t.Run(c.name+map[bool]string{true: " relative", false: " absolute"}[c.relative], func(t *testing.T) {
			s, other := newStore(t, "overlay"), newStore(t, "overlay")
			layer := s.image()
			other.image()
			at := c.arrange(s, other, layer, func(home string) {
				id := filepath.Base(layer.Directory)
				options := "ro,lowerdir=" + id + "/diff:empty"
				if !c.relative {
					options = "ro,lowerdir=" + filepath.Join(home, id, "diff") + ":" + filepath.Join(home, "empty")
				}
				s.mountFrom(home, options, filepath.Join(home, id, "merged"))
			})
			h := start(t, newMountNamespace(), "pivot", at)
			i := inspector(t)
			if o := observe(t, i, layer); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != h.Process.Pid {
				t.Error(dump(o))
			}
			refused(t, i, layer)
			if answer := h.ask(); answer != "ok" {
				t.Error(answer)
			}
		})
	}
}

func bound(s, _ *store, layer core.Layer, mount func(home string)) string {
	home := filepath.Join(s.dir, "bound/overlay")
	s.mkdir(home)
	s.bind(filepath.Join(s.dir, "overlay"), home)
	mount(home)
	return filepath.Join(home, filepath.Base(layer.Directory), "merged")
}

func carried(to string) func(s, other *store, layer core.Layer, mount func(home string)) string {
	return func(s, other *store, layer core.Layer, mount func(home string)) string {
		mount(filepath.Join(s.dir, "overlay"))
		at := filepath.Join(s.dir, to, filepath.Base(layer.Directory), "merged")
		if to == "" {
			at = filepath.Join(other.dir, "overlay", filepath.Base(layer.Directory), "merged")
		}
		s.mkdir(at)
		s.bind(layer.MountPoint, at)
		s.do(unix.Unmount(layer.MountPoint, 0))
		return at
	}
}

// Somebody else keeps the lock that MNT_EXPIRE is asked under.
func TestLockHeld(t *testing.T) {
	s := newStore(t, "overlay")
	lock, err := lockDirectory(filepath.Dir(s.layer.Directory), time.Second)
	s.do(err)
	i := inspector(t)
	o := observe(t, i, s.layer)
	if o.Use != core.UseUnknown || !strings.Contains(dump(o), "lock ") {
		t.Error(dump(o))
	}
	s.do(lock.Close())
	if o := observe(t, i, s.layer); o.Use != core.UseIdle {
		t.Error(dump(o))
	}
}
