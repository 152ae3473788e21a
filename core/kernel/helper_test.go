package kernel

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// deadVariable has a helper end its first thread.
const deadVariable = "UNMOOR_KERNEL_TEST_DEAD"

const helperVariable = "UNMOOR_KERNEL_TEST_HELPER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperVariable); mode != "" {
		if err := help(mode, os.Args[1:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const hello = "hello from the layer"

// help is a process that uses a layer. It says ready, and then for each line that it reads whether
// it still sees its file.
func help(mode string, args []string) error {
	var check func() ([]byte, error)
	switch mode {
	case "sleep":
		check = func() ([]byte, error) { return []byte(hello), nil }
	case "stubborn":
		// SIGTERM is ignored by the parent's disposition: see ignoreTerm.
		ignoreTerm()
		check = func() ([]byte, error) { return []byte(hello), nil }
	case "cwd": // with a file open too, where one is named
		for _, name := range args[1:] {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
		}
		if err := os.Chdir(filepath.Join(args[0], "etc")); err != nil {
			return err
		}
		check = func() ([]byte, error) { return os.ReadFile("hello") }
	case "fd":
		f, err := os.Open(filepath.Join(args[0], "etc/hello"))
		if err != nil {
			return err
		}
		check = func() ([]byte, error) { return io.ReadAll(io.NewSectionReader(f, 0, 1<<10)) }
	case "directory":
		dir, err := unix.Open(filepath.Join(args[0], "etc"), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		check = func() ([]byte, error) {
			fd, err := unix.Openat(dir, "hello", unix.O_RDONLY, 0)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), "hello")
			defer f.Close()
			return io.ReadAll(f)
		}
	case "namespace": // keeps that of another process
		f, err := os.Open("/proc/" + args[0] + "/ns/mnt")
		if err != nil {
			return err
		}
		check = func() ([]byte, error) {
			var b []byte
			err := inNamespace(f, func() (err error) { b, err = os.ReadFile("/etc/hello"); return err })
			return b, err
		}
	case "hidden": // in a mount namespace of its own: an ordinary user from whom procfs hides the others
		if err := errors.Join(private(), unix.Mount("proc", "/proc", "proc", 0, "hidepid=2"), syscall.Setresgid(65534, 65534, 65534),
			syscall.Setresuid(65534, 65534, 65534), unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)); err != nil {
			return err
		}
		return helpNew()
	case "powerless": // in a mount namespace of its own
		if err := private(); err != nil {
			return err
		}
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			return err
		}
		return helpNew()
	case "deep": // its working directory has a path longer than a page
		if err := os.Chdir(args[0]); err != nil {
			return err
		}
		for range 20 {
			name := strings.Repeat("x", 250)
			if err := errors.Join(unix.Mkdir(name, 0o755), unix.Chdir(name)); err != nil {
				return err
			}
		}
		check = func() ([]byte, error) { return []byte(hello), nil }
	case "mmap":
		f, err := os.Open(filepath.Join(args[0], "etc/hello"))
		if err != nil {
			return err
		}
		b, err := unix.Mmap(int(f.Fd()), 0, len(hello), unix.PROT_READ, unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		f.Close()
		check = func() ([]byte, error) { return b, nil }
	case "chroot":
		if err := errors.Join(unix.Chroot(args[0]), unix.Chdir("/")); err != nil {
			return err
		}
		check = func() ([]byte, error) { return os.ReadFile("/etc/hello") }
	case "pivot": // in a mount namespace of its own
		if err := errors.Join(private(), unix.Mount(args[0], args[0], "", unix.MS_BIND, ""),
			unix.Chdir(args[0]), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH), unix.Chdir("/")); err != nil {
			return err
		}
		check = func() ([]byte, error) { return os.ReadFile("/etc/hello") }
	case "filebind": // in a mount namespace of its own
		if err := errors.Join(private(), unix.Mount(filepath.Join(args[0], "etc/hello"), args[1], "", unix.MS_BIND, "")); err != nil {
			return err
		}
		_ = unix.Unmount(args[0], unix.MNT_DETACH) // vfs has no mount
		check = func() ([]byte, error) { return os.ReadFile(args[1]) }
	case "detached":
		tree, err := unix.OpenTree(unix.AT_FDCWD, args[0], unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return err
		}
		check = func() ([]byte, error) {
			fd, err := unix.Openat(tree, "etc/hello", unix.O_RDONLY, 0)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), "hello")
			defer f.Close()
			return io.ReadAll(f)
		}
	case "thread":
		ask, answer := make(chan bool), make(chan error)
		var b []byte
		go func() {
			runtime.LockOSThread()
			err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chdir(filepath.Join(args[0], "etc")))
			for {
				answer <- err
				<-ask
				b, err = os.ReadFile("hello")
			}
		}()
		if err := <-answer; err != nil {
			return err
		}
		check = func() ([]byte, error) { ask <- true; err := <-answer; return b, err }
	case "inherit": // in a mount namespace of its own
		if err := private(); err != nil {
			return err
		}
		check = func() ([]byte, error) { return []byte(hello), nil }
	case "hop":
		return hop(args[0])
	case "observe", "release":
		return helpObserve(mode, args)
	default:
		return fmt.Errorf("no mode %q", mode)
	}
	if os.Getenv(deadVariable) != "" {
		endFirstThread()
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if b, err := check(); err != nil || string(b) != hello {
			fmt.Printf("lost: %q %v\n", b, err)
		} else {
			fmt.Println("ok")
		}
	}
	return nil
}

// helpNew says what becomes of an Inspector here.
func helpNew() error {
	i, err := New(Options{})
	fmt.Println("ready")
	bufio.NewScanner(os.Stdin).Scan()
	if err != nil {
		var namespace *NamespaceError
		fmt.Printf("namespace=%t %v\n", errors.As(err, &namespace), err)
		return nil
	}
	fmt.Printf("hidepid=%t rootless=%t %s\n", i.hidepid, i.rootless, i.blind)
	return i.Close()
}

func private() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }

// helpObserve is Unmoor itself where it is started in another view: args are the layer as JSON and a
// directory to chroot to.
func helpObserve(mode string, args []string) error {
	var layer core.Layer
	if err := json.Unmarshal([]byte(args[0]), &layer); err != nil {
		return err
	}
	if len(args) > 1 {
		if err := errors.Join(unix.Chroot(args[1]), unix.Chdir("/")); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	in.Scan()
	i, err := New(Options{})
	if err != nil {
		return err
	}
	if mode == "release" {
		unmounted, err := i.Release(tContext(), layer)
		fmt.Println(unmounted, err)
		return nil
	}
	o, err := i.Observe(tContext(), []core.Layer{layer})
	if err != nil {
		return err
	}
	b, err := json.Marshal(o[layer.ID])
	fmt.Println(string(b))
	return err
}

// helper is a running helper process.
type helper struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// start starts a helper and waits until it is ready.
func start(t *testing.T, attr *syscall.SysProcAttr, mode string, args ...string) *helper {
	t.Helper()
	return startWith(t, attr, helperVariable+"="+mode, args...)
}

// startDead starts a helper whose first thread has ended.
func startDead(t *testing.T, attr *syscall.SysProcAttr, mode string, args ...string) *helper {
	t.Helper()
	t.Setenv(deadVariable, "yes")
	return startWith(t, attr, helperVariable+"="+mode, args...)
}

func startWith(t *testing.T, attr *syscall.SysProcAttr, mode string, args ...string) *helper {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), mode)
	cmd.SysProcAttr = attr
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helper{Cmd: cmd, in: in, out: bufio.NewScanner(out)}
	h.out.Buffer(nil, 1<<20)
	t.Cleanup(h.stop)
	if line := h.line(); line != "ready" {
		t.Fatalf("helper %s: %s", mode, line)
	}
	return h
}

func (h *helper) line() string {
	if !h.out.Scan() {
		return "ended"
	}
	return h.out.Text()
}

// ask sends a line and returns the answer.
func (h *helper) ask() string {
	if _, err := io.WriteString(h.in, "check\n"); err != nil {
		return err.Error()
	}
	return h.line()
}

func (h *helper) stop() {
	if h.ProcessState == nil {
		_ = h.Process.Kill()
		_ = h.Wait()
	}
}

func newMountNamespace() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
}

// needsRoot skips a test that cannot run; in CI that is a failure.
func needsRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "needs root to mount")
	}
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI must be able to run this: %s", why)
	}
	t.Skip(why)
}

// store is a layer of a store of its own.
type store struct {
	t      *testing.T
	dir    string
	driver string // overlay, vfs or fuse
	layer  core.Layer
	lower  string
}

var stores atomic.Int64

// imageName and shortName are those of the image's layer in all stores of this process: two stores that have
// the same image have them in common, and another run of these tests at the same time does not.
var (
	imageName = fmt.Sprintf("bead%060x", os.Getpid())
	shortName = fmt.Sprintf("BEAD%022X", os.Getpid())
)

// newStore makes a layer, mounted where its driver mounts.
func newStore(t *testing.T, driver string) *store {
	t.Helper()
	needsRoot(t)
	dir, err := os.MkdirTemp("/var/tmp", "unmoor-kernel-")
	if err != nil {
		t.Fatal(err)
	}
	s := &store{t: t, dir: dir, driver: driver}
	t.Cleanup(s.clean)
	id := fmt.Sprintf("%064x", stores.Add(1)<<32|int64(os.Getpid()))
	if driver == "vfs" {
		at := filepath.Join(dir, "vfs/dir", id)
		s.layer = core.Layer{ID: core.LayerID(id), Directory: at, MountPoint: at, Driver: "vfs"}
		s.lower = at
	} else {
		at := filepath.Join(dir, "overlay", id)
		s.layer = core.Layer{ID: core.LayerID(id), Directory: at, MountPoint: filepath.Join(at, "merged"),
			UpperDir: filepath.Join(at, "diff"), Driver: "overlay"}
		s.lower = filepath.Join(dir, "overlay", imageName, "diff")
		s.mkdir(s.layer.MountPoint, s.layer.UpperDir, filepath.Join(at, "work"))
	}
	s.mkdir(filepath.Join(s.lower, "etc"), filepath.Join(s.lower, "data"))
	s.write(filepath.Join(s.lower, "etc/hello"), hello)
	s.mount()
	return s
}

func (s *store) mkdir(dirs ...string) {
	s.t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *store) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) options() string {
	return fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s/work", s.lower, s.layer.UpperDir, s.layer.Directory)
}

func (s *store) mount() {
	s.t.Helper()
	switch s.driver {
	case "overlay":
		s.do(unix.Mount("overlay", s.layer.MountPoint, "overlay", 0, s.options()))
	case "fuse":
		program, err := exec.LookPath("fuse-overlayfs")
		if err != nil {
			skip(s.t, "fuse-overlayfs is not installed")
		}
		if out, err := exec.Command(program, "-o", s.options(), s.layer.MountPoint).CombinedOutput(); err != nil {
			s.t.Fatalf("fuse-overlayfs: %v: %s", err, out)
		}
	}
}

func (s *store) bind(from, to string) {
	s.t.Helper()
	s.do(unix.Mount(from, to, "", unix.MS_BIND, ""))
}

func (s *store) do(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// outside is a directory with a file in it, apart from the layer, to be bind-mounted. It is the
// test's own: a directory of the machine is never put where something is deleted.
func (s *store) outside() string {
	s.t.Helper()
	dir := filepath.Join(s.dir, "outside")
	s.mkdir(dir)
	s.write(filepath.Join(dir, "precious"), hello)
	return dir
}

// clean takes every mount below the store away, and then the store. While a mount remains, or that
// cannot be told, nothing is deleted.
func (s *store) clean() {
	for range 50 {
		left, err := s.mountsBelow()
		if err != nil {
			s.t.Errorf("clean up: %v; %s is left behind", err, s.dir)
			return
		}
		if len(left) == 0 {
			if err := os.RemoveAll(s.dir); err != nil {
				s.t.Errorf("clean up: %v", err)
			}
			return
		}
		for k := len(left) - 1; k >= 0; k-- {
			// What fails is found again by the next look.
			_ = unix.Unmount(left[k], unix.MNT_DETACH)
		}
	}
	s.t.Errorf("clean up: mounts remain below %s, which is left behind", s.dir)
}

// mountsBelow reads the mount table on its own, not with what is under test.
func (s *store) mountsBelow() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var below []string
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], s.dir+"/") {
			below = append(below, f[4])
		}
	}
	return below, nil
}
