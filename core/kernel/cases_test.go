package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

func tContext() context.Context { return context.Background() }

func ignoreTerm() { signal.Ignore(syscall.SIGTERM) }

func inspector(t testing.TB) *Inspector {
	t.Helper()
	i, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	return i
}

func observe(t *testing.T, i *Inspector, layer core.Layer) core.Observation {
	t.Helper()
	all, err := i.Observe(t.Context(), []core.Layer{layer})
	if err != nil {
		t.Fatal(err)
	}
	return all[layer.ID]
}

func dump(o core.Observation) string {
	b, _ := json.MarshalIndent(o, "", " ")
	return string(b)
}

// refused checks that a layer is not released.
func refused(t *testing.T, i *Inspector, layer core.Layer) {
	t.Helper()
	_, err := i.Release(t.Context(), layer)
	var busy *core.BusyError
	if !errors.As(err, &busy) || busy.Observation.Use == core.UseIdle {
		t.Fatalf("released what is in use: %v", err)
	}
}

// released checks that a layer is released, and that nothing is mounted at it then.
func released(t *testing.T, i *Inspector, layer core.Layer) []string {
	t.Helper()
	unmounted, err := i.Release(t.Context(), layer)
	if err != nil {
		t.Fatalf("not released: %v", err)
	}
	near, err := i.readTables(nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := i.newScene(near, nil, []core.Layer{layer}); len(s.targets[0].mounts) > 0 {
		t.Fatalf("still mounted: %+v", s.targets[0].mounts)
	}
	o := observe(t, i, layer)
	// A FUSE server ends in its own time.
	for end := time.Now().Add(30 * time.Second); o.Use != core.UseIdle && time.Now().Before(end); o = observe(t, i, layer) {
		time.Sleep(10 * time.Millisecond)
	}
	if o.Use != core.UseIdle {
		t.Fatalf("released, and yet %s", dump(o))
	}
	return unmounted
}

// Every way in which a process may use a layer: it is named, the layer is kept, and the process
// still sees its files.
func TestProcessesInUse(t *testing.T) {
	ns := newMountNamespace
	for _, c := range []struct {
		name    string
		mode    string
		attr    func() *syscall.SysProcAttr
		unmount int // how the host unmounts it afterwards; -1 not at all
		drivers []string
	}{
		{"a working directory", "cwd", nil, -1, nil},
		{"a working directory after a lazy unmount", "cwd", nil, unix.MNT_DETACH, []string{"overlay", "fuse"}},
		{"an open file", "fd", nil, -1, nil},
		{"a mapped file", "mmap", nil, -1, nil},
		{"a root by chroot", "chroot", nil, -1, nil},
		{"a root by chroot in a private namespace", "chroot", ns, -1, nil},
		{"a root by chroot in a private namespace, unmounted on the host", "chroot", ns, 0, []string{"overlay", "fuse"}},
		{"a root by pivot_root in a private namespace", "pivot", ns, -1, nil},
		{"a root by pivot_root, unmounted on the host", "pivot", ns, 0, []string{"overlay", "fuse"}},
		{"a bind mount of one file", "filebind", ns, -1, nil},
		{"a bind mount of one file, unmounted on the host", "filebind", ns, 0, []string{"overlay", "fuse"}},
		{"a detached mount with an open descriptor", "detached", nil, -1, nil},
		{"a detached mount, unmounted on the host", "detached", nil, 0, []string{"overlay", "fuse"}},
		{"a thread with a working directory of its own", "thread", nil, -1, nil},
	} {
		for _, driver := range []string{"overlay", "vfs", "fuse"} {
			if c.drivers != nil && !slices.Contains(c.drivers, driver) {
				continue
			}
			for kernel, name := range []string{" listmount", " mountinfo", " no mount IDs"} {
				t.Run(driver+" "+c.name+name, func(t *testing.T) {
					s := newStore(t, driver)
					i := inspector(t)
					i.noListmount = kernel > 0
					i.noMountIDs = kernel > 1
					var attr *syscall.SysProcAttr
					if c.attr != nil {
						attr = c.attr()
					}
					outside := filepath.Join(s.dir, "outside")
					s.write(outside, "")
					h := start(t, attr, c.mode, s.layer.MountPoint, outside)
					if c.unmount >= 0 {
						s.do(unix.Unmount(s.layer.MountPoint, c.unmount))
					}
					o := observe(t, i, s.layer)
					detachedFUSE := driver == "fuse" && o.Use == core.UseUnknown && c.unmount == unix.MNT_DETACH
					if o.Use != core.UseInUse && !detachedFUSE {
						t.Fatalf("verdict: %s", dump(o))
					}
					if p := core.Processes(o.Evidence); !detachedFUSE && (len(p) != 1 || p[0].PID != h.Process.Pid || p[0].StartTime == 0) {
						t.Errorf("processes: %s", dump(o))
					}
					refused(t, i, s.layer)
					if answer := h.ask(); answer != "ok" {
						t.Errorf("after the refusal: %s", answer)
					}
					h.stop()
					released(t, i, s.layer)
				})
			}
		}
	}
}

func TestExecutableInLayer(t *testing.T) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		skip(t, "busybox is not installed")
	}
	b, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	for _, driver := range []string{"overlay", "vfs", "fuse"} {
		t.Run(driver, func(t *testing.T) {
			s := newStore(t, driver)
			s.write(filepath.Join(s.layer.MountPoint, "busybox"), string(b))
			cmd := exec.Command(filepath.Join(s.layer.MountPoint, "busybox"), "sleep", "1000")
			cmd.Dir = "/"
			s.do(cmd.Start())
			defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
			i := inspector(t)
			if o := observe(t, i, s.layer); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != cmd.Process.Pid {
				t.Fatal(dump(o))
			}
			refused(t, i, s.layer)
		})
	}
}

// A process in the upper directory itself does not show in the overlay.
func TestProcessBesideTheOverlay(t *testing.T) {
	s := newStore(t, "overlay")
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	s.mkdir(filepath.Join(s.layer.UpperDir, "etc"))
	s.write(filepath.Join(s.layer.UpperDir, "etc/hello"), hello)
	h := start(t, nil, "cwd", s.layer.UpperDir)
	if o := observe(t, inspector(t), s.layer); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != h.Process.Pid {
		t.Fatal(dump(o))
	}
}

// Held by something that is no process: never idle, never released.
func TestHeldWithoutProcess(t *testing.T) {
	for _, c := range []struct {
		name    string
		drivers []string
		hold    func(t *testing.T, s *store) (check func() string)
	}{
		{"a namespace that a bind mount of nsfs keeps", []string{"overlay", "vfs", "fuse"}, func(t *testing.T, s *store) func() string {
			h := start(t, newMountNamespace(), "pivot", s.layer.MountPoint)
			// A namespace may be bound on a private mount only.
			pins := filepath.Join(s.dir, "pins")
			s.mkdir(pins)
			s.bind(pins, pins)
			s.do(unix.Mount("", pins, "", unix.MS_PRIVATE, ""))
			s.write(filepath.Join(pins, "ns"), "")
			s.bind("/proc/"+strconv.Itoa(h.Process.Pid)+"/ns/mnt", filepath.Join(pins, "ns"))
			h.stop()
			return func() string {
				f, err := os.Open(filepath.Join(pins, "ns"))
				s.do(err)
				defer f.Close()
				var b []byte
				s.do(inNamespace(f, func() error { b, err = os.ReadFile("/etc/hello"); return err }))
				return string(b)
			}
		}},
		{"a bind mount on the host of one file", []string{"overlay", "vfs", "fuse"}, func(_ *testing.T, s *store) func() string {
			at := filepath.Join(s.dir, "elsewhere")
			s.write(at, "")
			s.bind(filepath.Join(s.layer.MountPoint, "etc/hello"), at)
			return func() string { b, err := os.ReadFile(at); s.do(err); return string(b) }
		}},
		{"another overlay on top of it", []string{"overlay", "fuse"}, func(_ *testing.T, s *store) func() string {
			at := filepath.Join(s.dir, "top")
			s.mkdir(at, filepath.Join(s.dir, "empty"))
			s.do(unix.Mount("overlay", at, "overlay", 0, "lowerdir="+s.layer.MountPoint+":"+filepath.Join(s.dir, "empty")))
			return func() string { b, err := os.ReadFile(filepath.Join(at, "etc/hello")); s.do(err); return string(b) }
		}},
		{"a loop device on a file of it", []string{"overlay"}, func(t *testing.T, s *store) func() string {
			file := filepath.Join(s.layer.MountPoint, "disk")
			s.do(os.WriteFile(file, make([]byte, 1<<16), 0o600))
			out, err := exec.Command("losetup", "--find", "--show", file).Output()
			if err != nil {
				skip(t, "no loop device to be had")
			}
			device := strings.TrimSpace(string(out))
			t.Cleanup(func() { _ = exec.Command("losetup", "-d", device).Run() })
			return func() string { return hello }
		}},
	} {
		for _, driver := range c.drivers {
			t.Run(driver+" "+c.name, func(t *testing.T) {
				s := newStore(t, driver)
				i := inspector(t)
				check := c.hold(t, s)
				if o := observe(t, i, s.layer); o.Use != core.UseUnknown || len(o.Evidence) == 0 {
					t.Errorf("verdict: %s", dump(o))
				}
				refused(t, i, s.layer)
				if got := check(); got != hello {
					t.Errorf("after the refusal: %q", got)
				}
				if driver != "vfs" {
					// Now without the mount in the layer's directory.
					s.do(unix.Unmount(s.layer.MountPoint, unix.MNT_DETACH))
					if o := observe(t, i, s.layer); o.Use == core.UseIdle {
						t.Errorf("verdict after a lazy unmount: %s", dump(o))
					}
					refused(t, i, s.layer)
				}
			})
		}
	}
}

// A process with an open file of the image below, after a lazy unmount: the kernel does not say
// which layer it is of.
func TestStray(t *testing.T) {
	s := newStore(t, "overlay")
	h := start(t, nil, "fd", s.layer.MountPoint)
	s.do(unix.Unmount(s.layer.MountPoint, unix.MNT_DETACH))
	i := inspector(t)
	// A mount namespace that others made just now has a copy of the mount, which explains the superblock.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		o := observe(t, i, s.layer)
		p := core.Processes(o.Evidence)
		if o.Use == core.UseUnknown && len(p) == 1 && p[0].PID == h.Process.Pid {
			break
		}
		if o.Use == core.UseIdle || time.Now().After(end) {
			t.Fatal(dump(o))
		}
	}
	refused(t, i, s.layer)
}

// Mounts that nobody uses: idle, and released.
func TestIdle(t *testing.T) {
	for _, c := range []struct {
		name    string
		drivers []string
		make    func(t *testing.T, s *store)
		mounts  int // that are unmounted
	}{
		{"a mount left behind", []string{"overlay", "fuse"}, func(*testing.T, *store) {}, 1},
		{"nothing mounted", []string{"vfs"}, func(*testing.T, *store) {}, 0},
		{"nothing mounted", []string{"overlay"}, func(t *testing.T, s *store) { s.do(unix.Unmount(s.layer.MountPoint, 0)) }, 0},
		{"a copy that another namespace inherited", []string{"overlay"}, func(t *testing.T, s *store) {
			start(t, newMountNamespace(), "inherit")
		}, 2},
		{"a copy that another namespace inherited", []string{"fuse"}, func(t *testing.T, s *store) {
			start(t, newMountNamespace(), "inherit")
		}, 2},
		{"a copy that is in another namespace alone", []string{"overlay", "fuse"}, func(t *testing.T, s *store) {
			start(t, newMountNamespace(), "inherit")
			s.do(unix.Unmount(s.layer.MountPoint, 0))
		}, 1},
		{"a bind mount of it on itself, mounted twice", []string{"overlay", "fuse", "vfs"}, func(_ *testing.T, s *store) {
			s.bind(s.layer.MountPoint, s.layer.MountPoint)
			s.bind(s.layer.MountPoint, s.layer.MountPoint)
		}, -1},
		{"a second superblock stacked on it", []string{"overlay"}, func(_ *testing.T, s *store) { s.mount() }, 2},
		{"a mount below a covered one", []string{"overlay"}, func(_ *testing.T, s *store) {
			s.bind(s.outside(), filepath.Join(s.layer.MountPoint, "data"))
			s.bind(s.layer.MountPoint, s.layer.MountPoint)
		}, 3},
	} {
		for _, driver := range c.drivers {
			for _, old := range []bool{false, true} {
				t.Run(driver+" "+c.name+" old="+strconv.FormatBool(old), func(t *testing.T) {
					s := newStore(t, driver)
					i := inspector(t)
					i.noListmount = old
					c.make(t, s)
					if o := observe(t, i, s.layer); o.Use != core.UseIdle {
						t.Fatal(dump(o))
					}
					// Others on this machine make mount namespaces too, which inherit copies.
					unmounted := released(t, i, s.layer)
					here := 0
					for _, u := range unmounted {
						if !strings.Contains(u, " in mnt:[") {
							here++
						}
					}
					if c.mounts >= 0 && (len(unmounted) < c.mounts || here > c.mounts) {
						t.Errorf("unmounted: %q", unmounted)
					}
				})
			}
		}
	}
}

// A host directory bound below an idle container's layer is unmounted, and its data stays.
func TestForeignMount(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs", "fuse"} {
		for _, mounted := range []bool{true, false} {
			t.Run(driver+" mounted="+strconv.FormatBool(mounted), func(t *testing.T) {
				s := newStore(t, driver)
				i := inspector(t)
				if !mounted && driver != "vfs" {
					s.do(unix.Unmount(s.layer.MountPoint, 0))
				}
				precious := filepath.Join(s.dir, "precious")
				at := filepath.Join(s.layer.MountPoint, "data")
				s.mkdir(precious, at)
				s.write(filepath.Join(precious, "data"), "data")
				s.bind(precious, at)
				s.bind(precious, at)
				o := observe(t, i, s.layer)
				if o.Use != core.UseIdle || !slices.ContainsFunc(o.Evidence, func(e core.Evidence) bool {
					return e.Kind == core.EvidenceForeignMount && e.Path == at
				}) {
					t.Fatal(dump(o))
				}
				h := start(t, nil, "sleep")
				_ = h
				released(t, i, s.layer)
				s.do(os.RemoveAll(s.layer.Directory))
				if b, err := os.ReadFile(filepath.Join(precious, "data")); err != nil || string(b) != "data" {
					t.Errorf("the host's data: %q %v", b, err)
				}
			})
		}
	}
}

// A process in the host directory, through the mount below the layer.
func TestForeignMountInUse(t *testing.T) {
	s := newStore(t, "overlay")
	at := filepath.Join(s.layer.MountPoint, "data")
	s.mkdir(filepath.Join(s.dir, "precious/etc"))
	s.write(filepath.Join(s.dir, "precious/etc/hello"), hello)
	s.bind(filepath.Join(s.dir, "precious"), at)
	h := start(t, nil, "cwd", at)
	i := inspector(t)
	if o := observe(t, i, s.layer); o.Use != core.UseInUse {
		t.Fatal(dump(o))
	}
	refused(t, i, s.layer)
	if answer := h.ask(); answer != "ok" {
		t.Error(answer)
	}
}

// A layer of an image, mounted read-only.
func TestImageLayer(t *testing.T) {
	s := newStore(t, "overlay")
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	image := filepath.Dir(s.lower)
	layer := core.Layer{ID: "image", Directory: image, MountPoint: filepath.Join(image, "merged"), Driver: "overlay"}
	s.mkdir(layer.MountPoint, filepath.Join(s.dir, "empty"))
	i := inspector(t)
	if o := observe(t, i, layer); o.Use != core.UseIdle {
		t.Fatal(dump(o))
	}
	s.do(unix.Mount("overlay", layer.MountPoint, "overlay", unix.MS_RDONLY, "lowerdir="+s.lower+":"+filepath.Join(s.dir, "empty")))
	if o := observe(t, i, layer); o.Use != core.UseIdle {
		t.Fatal(dump(o))
	}
	for _, mode := range []string{"cwd", "fd"} {
		h := start(t, nil, mode, layer.MountPoint)
		if o := observe(t, i, layer); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != h.Process.Pid {
			t.Fatal(dump(o))
		}
		refused(t, i, layer)
		h.stop()
	}
	h := start(t, newMountNamespace(), "pivot", layer.MountPoint)
	s.do(unix.Unmount(layer.MountPoint, 0))
	if o := observe(t, i, layer); o.Use != core.UseInUse {
		t.Fatal(dump(o))
	}
	refused(t, i, layer)
	h.stop()
	released(t, i, layer)
}

// Any rootless engine on the host keeps a mount namespace in a user namespace of its own, with locked
// copies of what was mounted when it was made.
func TestCopyInAnotherUserNamespace(t *testing.T) {
	for _, propagation := range []string{"slave", "private"} {
		t.Run(propagation, func(t *testing.T) {
			s := newStore(t, "overlay")
			c := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--propagation", propagation,
				"sh", "-c", "echo ready; exec sleep 1000")
			out, err := c.StdoutPipe()
			s.do(err)
			s.do(c.Start())
			t.Cleanup(func() {
				_ = c.Process.Kill()
				_ = c.Wait()
			})
			if _, err := out.Read(make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
			i := inspector(t)
			if o := observe(t, i, s.layer); o.Use != core.UseIdle {
				t.Fatal(dump(o))
			}
			released(t, i, s.layer)
			if _, err := os.Stat(s.layer.MountPoint); err != nil {
				t.Error(err)
			}
		})
	}
}

// The server of a container's mount has the image's layers open, and goes with the container.
func TestFUSEServerIsNoUserOfLowerLayers(t *testing.T) {
	s := newStore(t, "fuse")
	image := filepath.Dir(s.lower)
	layer := core.Layer{ID: "image", Directory: image, MountPoint: filepath.Join(image, "merged"), Driver: "overlay"}
	seen, err := inspector(t).Observe(t.Context(), []core.Layer{s.layer, layer})
	if err != nil {
		t.Fatal(err)
	}
	for id, o := range seen {
		if o.Use != core.UseIdle {
			t.Errorf("%s: %s", id, dump(o))
		}
	}
}

// Two stores that hold the same image have layers of the same ID, and the library names them relative
// to its home where the options would be too long.
func TestSameImageInAnotherStore(t *testing.T) {
	s, other := newStore(t, "overlay"), newStore(t, "overlay")
	layers := make([]core.Layer, 2)
	for k, s := range []*store{s, other} {
		s.do(unix.Unmount(s.layer.MountPoint, 0))
		image := filepath.Dir(s.lower)
		layers[k] = core.Layer{ID: "image", Directory: image, MountPoint: filepath.Join(image, "merged"), Driver: "overlay"}
		s.mkdir(layers[k].MountPoint, filepath.Join(s.dir, "overlay/empty"))
	}
	home := filepath.Dir(layers[1].Directory)
	relative := exec.Command("mount", "-t", "overlay", "-o", "ro,lowerdir="+filepath.Base(layers[1].Directory)+"/diff:empty",
		"overlay", layers[1].MountPoint)
	relative.Dir = home
	if out, err := relative.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	h := start(t, nil, "cwd", layers[1].MountPoint)
	i := inspector(t)
	if o := observe(t, i, layers[1]); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != h.Process.Pid {
		t.Fatal(dump(o))
	}
	if o := observe(t, i, layers[0]); o.Use != core.UseIdle || len(o.Evidence) > 0 {
		t.Fatal(dump(o))
	}
	released(t, i, layers[0])
	refused(t, i, layers[1])
	h.stop()
}

func TestNothingToUse(t *testing.T) {
	i := inspector(t)
	dir := t.TempDir()
	for _, layer := range []core.Layer{
		{ID: "no directory", Missing: true, Driver: "overlay"},
		{ID: "gone", Missing: true, Driver: "overlay", Directory: dir + "/overlay/x", MountPoint: dir + "/overlay/x/merged", UpperDir: dir + "/overlay/x/diff"},
		{ID: "gone vfs", Missing: true, Driver: "vfs", Directory: dir + "/vfs/dir/x", MountPoint: dir + "/vfs/dir/x"},
	} {
		if o := observe(t, i, layer); o.Use != core.UseIdle {
			t.Errorf("%s: %s", layer.ID, dump(o))
		}
		if _, err := i.Release(t.Context(), layer); err != nil {
			t.Errorf("%s: %v", layer.ID, err)
		}
	}
	layer := core.Layer{ID: "other", Driver: "btrfs", Directory: dir}
	if o := observe(t, i, layer); o.Use != core.UseUnknown {
		t.Error(dump(o))
	}
	refused(t, i, layer)
}

// A process that is gone or another one by the time it would be named is not named.
func TestEndsDuringTheScan(t *testing.T) {
	s := newStore(t, "vfs")
	i := inspector(t)
	h := start(t, nil, "cwd", s.layer.MountPoint)
	procs, _, err := i.scanProcesses(t.Context())
	s.do(err)
	tables, err := i.readTables(procs)
	s.do(err)
	h.stop()
	scene := i.newScene(tables, procs, []core.Layer{s.layer})
	scene.cheap()
	s.do(scene.deep(t.Context()))
	if users := scene.targets[0].users; len(users) > 0 {
		t.Errorf("named: %+v", users)
	}
	// The pid now belongs to a process that does something else.
	other := start(t, nil, "sleep")
	for k := range procs {
		if procs[k].pid == h.Process.Pid {
			procs[k].pid, procs[k].dir = other.Process.Pid, strconv.Itoa(other.Process.Pid)
		}
	}
	scene = i.newScene(tables, procs, []core.Layer{s.layer})
	scene.cheap()
	if users := scene.targets[0].users; len(users) > 0 {
		t.Errorf("named: %+v", users)
	}
}

// Unmoor in a mount namespace, or a chroot, of its own.
func TestOtherView(t *testing.T) {
	run := func(t *testing.T, s *store, attr *syscall.SysProcAttr, mode string, layer core.Layer, chroot ...string) (h *helper) {
		b, err := json.Marshal(layer)
		s.do(err)
		return start(t, attr, mode, append([]string{string(b)}, chroot...)...)
	}
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver+" in a private mount namespace", func(t *testing.T) {
			s := newStore(t, driver)
			if driver == "overlay" {
				s.do(unix.Unmount(s.layer.MountPoint, 0))
			}
			unmoor := run(t, s, newMountNamespace(), "observe", s.layer)
			release := run(t, s, newMountNamespace(), "release", s.layer)
			s.mount() // which they do not see
			h := start(t, nil, "cwd", s.layer.MountPoint)
			if got := unmoor.ask(); !strings.Contains(got, `"in_use"`) || !strings.Contains(got, strconv.Itoa(h.Process.Pid)) {
				t.Fatal(got)
			}
			if got := release.ask(); !strings.Contains(got, "in use") {
				t.Fatal(got)
			}
			h.stop()
			s.bind(s.outside(), filepath.Join(s.layer.MountPoint, "data"))
			release = run(t, s, newMountNamespace(), "release", s.layer)
			if got := release.ask(); !strings.HasSuffix(got, "<nil>") || !strings.Contains(got, "/data") {
				t.Fatal(got)
			}
		})
		t.Run(driver+" in a chroot", func(t *testing.T) {
			s := newStore(t, driver)
			s.mkdir(filepath.Join(s.dir, "proc"))
			s.do(unix.Mount("proc", filepath.Join(s.dir, "proc"), "proc", 0, ""))
			layer := s.layer
			for _, p := range []*string{&layer.Directory, &layer.MountPoint, &layer.UpperDir} {
				*p = strings.TrimPrefix(*p, s.dir)
			}
			h := start(t, nil, "fd", s.layer.MountPoint)
			if got := run(t, s, nil, "observe", layer, s.dir).ask(); !strings.Contains(got, `"in_use"`) || !strings.Contains(got, strconv.Itoa(h.Process.Pid)) {
				t.Fatal(got)
			}
			h.stop()
			if got := run(t, s, nil, "observe", layer, s.dir).ask(); !strings.Contains(got, `"idle"`) {
				t.Fatal(got)
			}
			if got := run(t, s, nil, "release", layer, s.dir).ask(); !strings.HasSuffix(got, "<nil>") || strings.Contains(got, s.dir) {
				t.Fatal(got)
			}
		})
	}
	t.Run("in a user namespace", func(t *testing.T) {
		s := newStore(t, "overlay")
		root := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
		attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: root, GidMappings: root}
		h := start(t, newMountNamespace(), "chroot", s.layer.MountPoint)
		s.do(unix.Unmount(s.layer.MountPoint, 0))
		// It sees neither the process nor its mount: not idle.
		if got := run(t, s, attr, "observe", s.layer).ask(); !strings.Contains(got, `"unknown"`) {
			t.Error(got)
		}
		h.stop()
		if got := run(t, s, attr, "observe", s.layer).ask(); !strings.Contains(got, `"idle"`) {
			t.Error(got)
		}
	})
}

func TestTerminate(t *testing.T) {
	i := inspector(t)
	describe := func(pid int) core.Process {
		p, ok := i.describe(pid, func() bool { return true })
		if !ok {
			t.Fatal("not described")
		}
		return p
	}
	const grace = 2 * time.Second // the polite one's, on a loaded machine too
	polite, stubborn := start(t, nil, "sleep"), start(t, nil, "stubborn")
	begin := time.Now()
	if err := i.Terminate(t.Context(), []core.Process{describe(polite.Process.Pid), describe(stubborn.Process.Pid)}, grace); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < grace || took > grace+20*time.Second {
		t.Errorf("took %v", took)
	}
	for h, want := range map[*helper]syscall.Signal{polite: syscall.SIGTERM, stubborn: syscall.SIGKILL} {
		_ = h.Wait()
		if got := h.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != want {
			t.Errorf("ended by %v, want %v", got, want)
		}
	}
	// A pid that is another process's by now.
	other := start(t, nil, "sleep")
	recycled := describe(other.Process.Pid)
	recycled.StartTime--
	if err := i.Terminate(t.Context(), []core.Process{recycled}, time.Second); err != nil {
		t.Error(err)
	}
	if answer := other.ask(); answer != "ok" {
		t.Errorf("the other process: %s", answer)
	}
	for name, p := range map[string]core.Process{
		"init": {PID: 1, StartTime: 1}, "itself": {PID: os.Getpid(), StartTime: 1}, "no start time": {PID: other.Process.Pid},
	} {
		if err := i.Terminate(t.Context(), []core.Process{describe(other.Process.Pid), p}, time.Second); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if s, err := i.stat(2); err == nil && s.flags&kernelThread != 0 {
		if err := i.Terminate(t.Context(), []core.Process{{PID: 2, StartTime: s.startTime}}, time.Second); err == nil && s.startTime != 0 {
			t.Error("a kernel thread: no error")
		}
	}
	if answer := other.ask(); answer != "ok" {
		t.Errorf("the other process: %s", answer)
	}
}
