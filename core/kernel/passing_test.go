package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// hop works in a directory and forks and ends all the time, until its etc is gone. After
// the first fork there is no Go runtime any more: nothing but system calls.
func hop(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	fmt.Println("ready")
	runtime.LockOSThread()
	etc := []byte("etc\x00")
	pause := unix.NsecToTimespec(int64(time.Millisecond))
	for range 100000 {
		if pid, _, _ := unix.RawSyscall(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0); pid != 0 {
			break
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_FACCESSAT, ^uintptr(99), uintptr(unsafe.Pointer(&etc[0])), 0); errno != 0 {
			break
		}
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&pause)), 0, 0) // shorter is as good
	}
	_, _, errno := unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	return errno // never
}

// A process that is another one by the time it is looked at.
func TestForksAllTheTime(t *testing.T) {
	s := newStore(t, "vfs")
	i := inspector(t)
	start(t, nil, "hop", s.layer.MountPoint)
	for range 5 {
		if o := observe(t, i, s.layer); o.Use == core.UseIdle {
			t.Fatal(dump(o))
		}
		refused(t, i, s.layer)
	}
	s.do(os.RemoveAll(filepath.Join(s.layer.MountPoint, "etc")))
	for end := time.Now().Add(30 * time.Second); observe(t, i, s.layer).Use != core.UseIdle; {
		if time.Now().After(end) {
			t.Fatal("still in use")
		}
	}
	released(t, i, s.layer)
}

// A busy host is no reason to keep everything.
func TestForksElsewhere(t *testing.T) {
	s := newStore(t, "vfs")
	i := inspector(t)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		skip(t, "busybox is not installed")
	}
	busy := exec.Command(busybox, "sh", "-c", "while :; do "+busybox+" sleep 0.002; done")
	busy.Dir = "/"
	s.do(busy.Start())
	t.Cleanup(func() { _ = busy.Process.Kill(); _ = busy.Wait() })
	// On a machine that others load too, not every look gets through.
	looks, idle := 0, 0
	for end := time.Now().Add(30 * time.Second); idle < 5 && time.Now().Before(end); looks++ {
		if observe(t, i, s.layer).Use == core.UseIdle {
			idle++
		}
	}
	t.Logf("measured: idle %d times of %d while processes come and go", idle, looks)
	if idle < 5 {
		t.Errorf("idle %d times of %d", idle, looks)
	}
}

// Unmoor is in the container that is to go, and others are too.
func TestUnmoorItself(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs", "fuse"} {
		t.Run(driver, func(t *testing.T) {
			s := newStore(t, driver)
			i := inspector(t)
			for _, company := range []bool{false, true} {
				if company {
					t.Chdir("/")
					start(t, nil, "fd", s.layer.MountPoint)
				}
				t.Chdir(filepath.Join(s.layer.MountPoint, "etc"))
				o := observe(t, i, s.layer)
				if o.Use != core.UseUnknown || !strings.Contains(o.Advice, "change directory") || !strings.Contains(dump(o), "unmoor itself") {
					t.Errorf("company %t: %s", company, dump(o))
				}
				refused(t, i, s.layer)
			}
			t.Chdir("/")
		})
	}
}

// serve mounts the layer through FUSE instead, by a server that stays a child of ours.
func (s *store) serve() *exec.Cmd {
	s.t.Helper()
	s.do(unix.Unmount(s.layer.MountPoint, 0))
	program, err := exec.LookPath("fuse-overlayfs")
	if err != nil {
		skip(s.t, "fuse-overlayfs is not installed")
	}
	server := exec.Command(program, "-f", "-o", s.options(), s.layer.MountPoint)
	s.do(server.Start())
	s.t.Cleanup(func() {
		_ = server.Process.Signal(unix.SIGCONT)
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if left, err := s.mountsBelow(); err != nil || len(left) > 0 {
			return server
		}
		if time.Now().After(end) {
			s.t.Fatal("not mounted")
		}
	}
}

// A process that was killed and takes its time: closing a file, it waits for the file's server.
func TestDyingProcess(t *testing.T) {
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			s, slow := newStore(t, driver), newStore(t, "overlay")
			server := slow.serve()
			h := start(t, nil, "cwd", s.layer.MountPoint, filepath.Join(slow.layer.MountPoint, "etc/hello"))
			i := inspector(t)
			t.Cleanup(func() { _ = server.Process.Signal(unix.SIGCONT) }) // before the helper is waited for
			s.do(server.Process.Signal(unix.SIGSTOP))
			s.do(h.Process.Kill())
			for end := time.Now().Add(20 * time.Second); !i.isDying(h.Process.Pid); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it does not die")
				}
			}
			// For as long as it does not end it is a user, and nobody waits for ever.
			if o := observe(t, i, s.layer); o.Use != core.UseInUse || core.Processes(o.Evidence)[0].PID != h.Process.Pid {
				t.Fatalf("server stopped: %s", dump(o))
			}
			refused(t, i, s.layer)
			go func() {
				time.Sleep(dyingTime / 4)
				_ = server.Process.Signal(unix.SIGCONT)
			}()
			if o := observe(t, i, s.layer); o.Use != core.UseIdle {
				t.Errorf("server goes on: %s", dump(o))
			}
		})
	}
}

// A process on a file system whose server is stopped, and which is mounted nowhere any more.
func TestDeadFileSystem(t *testing.T) {
	s, dead := newStore(t, "overlay"), newStore(t, "overlay")
	server := dead.serve()
	h := start(t, nil, "cwd", dead.layer.MountPoint)
	s.do(server.Process.Signal(unix.SIGSTOP))
	s.do(unix.Unmount(dead.layer.MountPoint, unix.MNT_DETACH))
	i := inspector(t)
	begin := time.Now()
	if o := observe(t, i, s.layer); o.Use != core.UseIdle {
		t.Error(dump(o))
	}
	if o := observe(t, i, dead.layer); o.Use == core.UseIdle {
		t.Error(dump(o))
	}
	// A lazily unmounted overlay of unknown user: the dead one may be it.
	f, err := unix.Open(filepath.Join(s.layer.MountPoint, "etc"), unix.O_PATH|unix.O_CLOEXEC, 0)
	s.do(err)
	defer unix.Close(f)
	s.do(unix.Unmount(s.layer.MountPoint, unix.MNT_DETACH))
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	// Whoever made a mount namespace just now, in another test, has a copy of the mount that explains
	// the superblock, until that namespace has its own root.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		o := observe(t, i, s.layer)
		if o.Use == core.UseUnknown && strings.Contains(dump(o), fmt.Sprint(h.Process.Pid)) {
			break
		}
		if time.Now().After(end) {
			t.Fatal(dump(o))
		}
	}
}
