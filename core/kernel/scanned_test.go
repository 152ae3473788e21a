package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// A mount of an image that is in no namespace any more: no superblock's flag tells of it.
func TestImageLayerDetached(t *testing.T) {
	for _, mode := range []string{"directory", "cwd", "detached"} {
		t.Run(mode, func(t *testing.T) {
			s := newStore(t, "overlay")
			layer := s.image()
			s.do(unix.Mount("overlay", layer.MountPoint, "overlay", unix.MS_RDONLY, "lowerdir="+s.lower+":"+filepath.Join(s.dir, "overlay/empty")))
			h := start(t, nil, mode, layer.MountPoint)
			s.do(unix.Unmount(layer.MountPoint, unix.MNT_DETACH))
			i := inspector(t)
			if o := observe(t, i, layer); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != h.Process.Pid {
				t.Fatal(dump(o))
			}
			refused(t, i, layer)
			if answer := h.ask(); answer != "ok" {
				t.Error(answer)
			}
			h.stop()
			released(t, i, layer)
		})
	}
}

// What the look at every process misses goes for layers of images too, unless they are a user's own.
func TestImageLayerBlind(t *testing.T) {
	s := newStore(t, "overlay")
	layer := s.image()
	for _, c := range []struct {
		name                     string
		blind, hidepid, rootless bool
		want                     core.Use
	}{
		{"all is seen", false, false, false, core.UseIdle},
		{"in a pid namespace", true, false, false, core.UseUnknown},
		{"in a pid namespace, an ordinary user's", true, false, true, core.UseUnknown},
		{"hidepid, an ordinary user's", true, true, true, core.UseIdle},
		{"hidepid, without CAP_SYS_PTRACE", true, true, false, core.UseUnknown},
	} {
		i := inspector(t)
		i.rootless, i.hidepid = c.rootless, c.hidepid
		if c.blind {
			i.blind = "others are hidden"
		}
		if o := observe(t, i, layer); o.Use != c.want || c.blind && c.want != core.UseIdle && !strings.Contains(dump(o), i.blind) {
			t.Errorf("%s: %s", c.name, dump(o))
		}
		if c.want != core.UseIdle {
			refused(t, i, layer)
		}
	}
}

// A FUSE server that we do not see may serve any layer.
func TestHiddenFUSEServer(t *testing.T) {
	s, served := newStore(t, "overlay"), newStore(t, "overlay")
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	served.serve()
	i := inspector(t)
	if o := observe(t, i, s.layer); o.Use != core.UseIdle {
		t.Fatal(dump(o))
	}
	i.blind = "others are hidden"
	if o := observe(t, i, s.layer); o.Use != core.UseUnknown {
		t.Error(dump(o))
	}
	refused(t, i, s.layer)
}

// The layer of a container whose record is lost may be below another store's all the same.
func TestFoundationOfAnOrphan(t *testing.T) {
	s, other := newStore(t, "overlay"), newStore(t, "overlay")
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	other.do(unix.Unmount(other.layer.MountPoint, 0))
	s.mkdir(filepath.Join(s.layer.UpperDir, "etc"))
	s.write(filepath.Join(s.layer.UpperDir, "etc/hello"), hello)
	s.do(unix.Mount("overlay", other.layer.MountPoint, "overlay", 0,
		"lowerdir="+s.layer.UpperDir+",upperdir="+other.layer.UpperDir+",workdir="+other.layer.Directory+"/work"))
	h := start(t, newMountNamespace(), "pivot", other.layer.MountPoint)
	layer := s.layer
	layer.Orphan = true
	i := inspector(t)
	if o := observe(t, i, layer); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != h.Process.Pid {
		t.Error(dump(o))
	}
	refused(t, i, layer)
	if answer := h.ask(); answer != "ok" {
		t.Error(answer)
	}
	h.stop()
	released(t, i, other.layer)
	released(t, i, layer)
}

// A process whose first thread has ended lives on.
func TestDeadFirstThread(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		for _, mode := range []string{"cwd", "fd", "mmap", "pivot"} {
			t.Run(driver+" "+mode, func(t *testing.T) {
				s := newStore(t, driver)
				attr := newMountNamespace()
				if mode != "pivot" {
					attr = nil
				}
				h := startDead(t, attr, mode, s.layer.MountPoint)
				i := inspector(t)
				if first, err := i.stat(h.Process.Pid); err != nil || !first.ended() {
					t.Fatalf("its first thread: %+v %v", first, err)
				}
				o := observe(t, i, s.layer)
				p := core.Processes(o.Evidence)
				if o.Use != core.UseInUse || p[0].PID != h.Process.Pid || !strings.Contains(p[0].Command, "kernel") && !strings.Contains(p[0].Command, "exe") {
					t.Fatal(dump(o))
				}
				refused(t, i, s.layer)
				if answer := h.ask(); answer != "ok" {
					t.Error(answer)
				}
				s.do(i.Terminate(t.Context(), p, time.Second))
				h.stop()
				released(t, i, s.layer)
			})
		}
	}
}

// endFirstThread ends the first thread of a process, and no other.
func endFirstThread() {
	for range 100 {
		ended := make(chan bool)
		go func() {
			runtime.LockOSThread()
			if unix.Gettid() == os.Getpid() {
				close(ended)
				_, _, _ = unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0) // never returns
			}
			ended <- true
			time.Sleep(time.Hour) // keeps this thread, so that the next one gets another
		}()
		if _, other := <-ended; !other {
			break
		}
	}
	for range 1000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", os.Getpid()))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// A working directory whose path is too long for the kernel to tell.
func TestPathTooLong(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			s := newStore(t, driver)
			h := start(t, nil, "deep", s.layer.MountPoint)
			i := inspector(t)
			o := observe(t, i, s.layer)
			if driver == "overlay" && o.Use != core.UseInUse || driver == "vfs" && o.Use != core.UseUnknown {
				t.Error(dump(o))
			}
			if !strings.Contains(dump(o), fmt.Sprint(h.Process.Pid)) {
				t.Errorf("not named: %s", dump(o))
			}
			refused(t, i, s.layer)
			h.stop()
			if driver == "overlay" { // elsewhere another test's may be as deep
				released(t, i, s.layer)
			}
		})
	}
}

// A FUSE file system that is its user's alone says nothing to anybody else, and is nobody's layer.
func TestPrivateFUSE(t *testing.T) {
	s, vfs := newStore(t, "overlay"), newStore(t, "vfs")
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		skip(t, "fuse-overlayfs is not installed")
	}
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	s.do(os.Chmod(s.dir, 0o755))
	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		skip(t, err.Error())
	}
	defer device.Close()
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	s.do(unix.Mount("fuse", s.layer.MountPoint, "fuse.fuse-overlayfs", 0,
		fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d", device.Fd(), nobody.Uid, nobody.Gid)))
	server := exec.Command(program, "-f", "-o", s.options(), "/dev/fd/3")
	server.ExtraFiles = []*os.File{device}
	s.do(server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	if _, err := os.Stat(filepath.Join(s.layer.MountPoint, "etc")); !errors.Is(err, unix.EACCES) {
		t.Fatalf("not private: %v", err)
	}
	user := exec.Command("sh", "-c", "cd "+s.layer.MountPoint+"/etc && exec 5<hello && echo ready && exec sleep 1000")
	user.Dir = "/"
	user.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	out, err := user.StdoutPipe()
	s.do(err)
	s.do(user.Start())
	t.Cleanup(func() {
		_ = user.Process.Kill()
		_ = user.Wait()
	})
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	i := inspector(t)
	if o := observe(t, i, vfs.layer); o.Use != core.UseIdle {
		t.Error(dump(o))
	}
	// Of the layer itself it is a user.
	if o := observe(t, i, s.layer); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != user.Process.Pid {
		t.Error(dump(o))
	}
}

// Whoever is in a locked copy of the mount, in another user namespace: it is not detached.
func TestLockedCopyInUse(t *testing.T) {
	s := newStore(t, "overlay")
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		skip(t, "busybox is not installed")
	}
	c := exec.Command("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private",
		busybox, "sh", "-c", "exec 5<etc/hello; cd /; echo ready; exec "+busybox+" sleep 1000")
	c.Dir = s.layer.MountPoint
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
	refused(t, i, s.layer)
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fd/5", c.Process.Pid)); err != nil || string(b) != hello {
		t.Errorf("after the refusal: %q %v", b, err)
	}
	if _, err := os.Stat(s.layer.MountPoint); err != nil {
		t.Error(err)
	}
}

// The probe cannot tell of a directory on a mount that cannot be cloned.
func TestProbeUnbindable(t *testing.T) {
	s := newStore(t, "overlay")
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	home := filepath.Join(s.dir, "overlay")
	s.bind(home, home)
	s.do(unix.Mount("", home, "", unix.MS_UNBINDABLE, ""))
	i := inspector(t)
	if life, err := i.life(s.layer.UpperDir); life != lifeUnknown || err == nil {
		t.Errorf("%v %v", life, err)
	}
	s.do(unix.Mount("", home, "", unix.MS_PRIVATE, ""))
	if life, err := i.life(s.layer.UpperDir); life != lifeNone || err != nil {
		t.Errorf("%v %v", life, err)
	}
}

func TestCalibrate(t *testing.T) {
	needsRoot(t)
	i := inspector(t)
	if err := i.prepareProbe(); err != nil {
		t.Fatal(err)
	}
}

// A namespace is read through another process where the first one has ended.
func TestNamespaceThroughAnother(t *testing.T) {
	s := newStore(t, "overlay")
	i := inspector(t)
	i.noListmount = true
	h := start(t, newMountNamespace(), "pivot", s.layer.MountPoint)
	p := i.scanProcess(h.Process.Pid, 0)
	dead := p
	dead.pid, dead.dir = 1<<22+1, "4194305" // beyond any pid
	tables, err := i.readTables([]process{dead, p})
	s.do(err)
	if n := tables.byInode[p.ns]; n == nil || len(n.mounts) == 0 || len(tables.hidden) > 0 {
		t.Fatalf("not read: %q", tables.hidden)
	}
	s.do(i.enter(tables.byInode[p.ns], func() error { return nil }))
}

// A cancelled call says so, and is no word about the layer.
func TestCancelled(t *testing.T) {
	s := newStore(t, "overlay")
	i := inspector(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if o, err := i.Observe(ctx, []core.Layer{s.layer}); err == nil {
		t.Errorf("observed: %+v", o)
	}
	if unmounted, err := i.Release(ctx, s.layer); err == nil {
		t.Errorf("released: %q", unmounted)
	}
}

// One look for all the layers of an image; where something is in the way, one after the other.
func TestReleaseOfSeveral(t *testing.T) {
	i := inspector(t)
	images := idleLayers(t, 12)
	for k := range images {
		images[k].UpperDir = ""
	}
	if !i.freeTogether(t.Context(), images) {
		t.Error("not free")
	}
	if unmounted, err := i.Release(t.Context(), images...); len(unmounted) > 0 || err != nil {
		t.Errorf("%q %v", unmounted, err)
	}
	left, held := newStore(t, "overlay").layer, newStore(t, "overlay").layer
	start(t, nil, "cwd", held.MountPoint)
	unmounted, err := i.Release(t.Context(), images[0], left, held)
	var busy *core.BusyError
	if len(unmounted) < 1 || !errors.As(err, &busy) || busy.Observation.Use != core.UseInUse {
		t.Errorf("%q %v", unmounted, err)
	}
}

// A mount namespace that nothing but a descriptor of another process keeps.
func TestNamespaceKeptByDescriptor(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old=%t", old), func(t *testing.T) {
			s := newStore(t, "overlay")
			h := start(t, newMountNamespace(), "pivot", s.layer.MountPoint)
			keeper := start(t, nil, "namespace", fmt.Sprint(h.Process.Pid))
			s.do(unix.Unmount(s.layer.MountPoint, 0))
			h.stop()
			i := inspector(t)
			i.noListmount = old
			if o := observe(t, i, s.layer); o.Use != core.UseUnknown || old && !strings.Contains(dump(o), fmt.Sprint(keeper.Process.Pid)) {
				t.Error(dump(o))
			}
			refused(t, i, s.layer)
			if answer := keeper.ask(); answer != "ok" {
				t.Error(answer)
			}
			keeper.stop()
			released(t, i, s.layer)
		})
	}
}

// A mount namespace that a bind mount keeps, without listmount.
func TestNamespacePinned(t *testing.T) {
	s := newStore(t, "overlay")
	h := start(t, newMountNamespace(), "pivot", s.layer.MountPoint)
	pins := filepath.Join(s.dir, "pins")
	s.mkdir(pins)
	s.bind(pins, pins)
	s.do(unix.Mount("", pins, "", unix.MS_PRIVATE, ""))
	s.write(filepath.Join(pins, "ns"), "")
	s.bind(fmt.Sprintf("/proc/%d/ns/mnt", h.Process.Pid), filepath.Join(pins, "ns"))
	h.stop()
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	i := inspector(t)
	i.noListmount = true
	if o := observe(t, i, s.layer); o.Use != core.UseUnknown || !strings.Contains(dump(o), "kept without a process") {
		t.Error(dump(o))
	}
	refused(t, i, s.layer)
	s.do(unix.Unmount(filepath.Join(pins, "ns"), 0))
	released(t, i, s.layer)
}

// Where Unmoor cannot look, it says so at once; what an ordinary user never sees is no reason to refuse.
func TestNewWhereOthersAreHidden(t *testing.T) {
	needsRoot(t)
	if got := start(t, newMountNamespace(), "hidden").ask(); !strings.HasPrefix(got, "hidepid=true rootless=true procfs") {
		t.Error(got)
	}
	if got := start(t, newMountNamespace(), "powerless").ask(); !strings.HasPrefix(got, "namespace=true ") {
		t.Error(got)
	}
}
