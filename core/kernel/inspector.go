package kernel

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Options of an Inspector. The zero value is right for a process on the host.
type Options struct {
	// Proc is where procfs is mounted; empty means /proc.
	Proc string
	// Logger is told of what is odd and harmless; nil means nobody is.
	Logger *slog.Logger
	// AllProcessesHere vouches that every process that may use the store is in our own pid
	// namespace, where that is not the initial one: a store that lives and dies with the container
	// that Unmoor runs in. Without it, layers that only a scan of the processes can show idle (vfs,
	// fuse-overlayfs) stay unknown there.
	AllProcessesHere bool
	// Launcher is our parent, where that is a program which we had started ourselves to enter the
	// namespaces of an ordinary user, and which only waits for us. What it has open is from before it
	// entered them, on mounts that cannot be seen from inside, and is not looked at. Zero is none.
	Launcher int
}

// Inspector is the real core.Kernel. Its methods may be called from several goroutines at once.
type Inspector struct {
	proc     *os.File // procfs, opened once: right in every mount namespace and chroot
	procPath string
	log      *slog.Logger
	launcher int

	host uint64 // the inode of the mount namespace that we look through: pid 1's
	own  uint64 // our own
	// hostFile is set where our own view is another one: a mount namespace to enter first.
	hostFile *os.File
	// rootless is whether we lack the initial user namespace's privileges: pid 1 cannot be read.
	rootless bool
	// blind says in one clause why there may be processes that procfs does not show; "" if not.
	blind string
	// hidepid is whether that is since procfs hides the processes of other users.
	hidepid bool

	prober prober
	// fusectl lists the FUSE connections.
	fusectlOnce sync.Once
	fusectl     *os.File
	fusectlErr  error
	// noListmount takes the way of kernels before 6.12, noMountIDs that of kernels before 5.8. For
	// tests.
	noListmount, noMountIDs bool
}

// NamespaceError says that Unmoor runs where it does not see the host's mounts, and cannot look
// there either.
type NamespaceError struct {
	// Own is our mount namespace, as mnt:[inode].
	Own   string
	Cause error
}

func (e *NamespaceError) Error() string {
	return fmt.Sprintf("enter the mount namespace of pid 1 from our own (%s): %v; "+
		"without it the mounts of running containers stay hidden: start unmoor outside of containers and chroots, "+
		"with a unit free of PrivateTmp=, ProtectSystem=, ProtectHome= and the like, "+
		"or privileged and in the host's pid namespace", e.Own, e.Cause)
}

func (e *NamespaceError) Unwrap() error { return e.Cause }

// The inodes of the initial namespaces are fixed (Linux, include/uapi/linux/nsfs.h: PROC_PID_INIT_INO
// and PROC_USER_INIT_INO).
const (
	initialPIDNamespace  = "pid:[4026531836]"
	initialUserNamespace = "user:[4026531837]"
)

// New makes an Inspector that looks through pid 1's mount namespace. The error is a *NamespaceError
// where Unmoor is in another one, or in a chroot, and may not enter it.
func New(o Options) (*Inspector, error) {
	i := &Inspector{procPath: o.Proc, log: o.Logger, launcher: o.Launcher}
	if i.procPath == "" {
		i.procPath = "/proc"
	}
	if i.log == nil {
		i.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	proc, err := os.OpenFile(i.procPath, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open procfs: %w", err)
	}
	i.proc = proc
	if err := i.orient(o); err != nil {
		_ = i.Close() // nothing is held but descriptors
		return nil, err
	}
	return i, nil
}

// orient finds out where we stand.
func (i *Inspector) orient(o Options) error {
	if self, err := i.readlink("self"); err != nil || self != strconv.Itoa(os.Getpid()) {
		return fmt.Errorf("%s is not the procfs of our own pid namespace (self is %q, we are %d)", i.procPath, self, os.Getpid())
	}
	own, err := i.readlink("self/ns/mnt")
	if err != nil {
		return fmt.Errorf("read our own mount namespace: %w", err)
	}
	i.own = nsInode(own)
	i.host = i.own
	if user, err := i.readlink("self/ns/user"); os.Geteuid() != 0 || (err == nil && user != initialUserNamespace) {
		i.rootless = true
	}
	if pid, err := i.readlink("self/ns/pid"); (err != nil || pid != initialPIDNamespace) && !o.AllProcessesHere {
		i.blind = "unmoor is in a pid namespace of its own and does not see the processes of the host"
	}
	if (i.rootless || !i.seesAll()) && i.hidesProcesses() {
		i.hidepid = i.blind == ""
		i.blind = "procfs is mounted with hidepid and hides the processes of others"
	}
	where, err := i.standing()
	if err != nil && i.rootless && i.blind != "" {
		return nil // pid 1 is hidden too; as below
	}
	if err != nil {
		return fmt.Errorf("compare our mounts with those of pid 1: %w", err)
	}
	switch {
	case where == onHost:
		return nil
	case where == chrooted:
		i.hostFile, err = i.open("self/ns/mnt")
	default:
		i.hostFile, err = i.hostNamespace()
	}
	if err == nil {
		err = i.onHost(func() error {
			link, err := i.readlink("thread-self/ns/mnt")
			i.host = nsInode(link)
			return err
		})
	}
	if err == nil {
		i.log.Info("looking through the mount namespace of pid 1", "own", own, "host", nsName(i.host))
		return nil
	}
	if i.hostFile != nil {
		i.hostFile.Close() // only read from
		i.hostFile = nil
	}
	i.host = i.own
	if i.rootless {
		// Another user's pid 1 is never readable. A rootless store lives in the mount namespace that
		// its library re-executed us in; what others hold shows in the probe.
		return nil
	}
	return &NamespaceError{Own: own, Cause: err}
}

type standing int

const (
	onHost standing = iota
	chrooted
	elsewhere
)

// standing compares our mounts with those of pid 1. mountinfo is the one file that everybody may
// read, and no two live mounts of the whole system have the same ID.
func (i *Inspector) standing() (standing, error) {
	own, err := i.mountinfo("self")
	if err != nil {
		return elsewhere, err
	}
	host, err := i.mountinfo("1")
	if err != nil {
		return elsewhere, err
	}
	ids := make(map[uint64]bool, len(host))
	for _, m := range host {
		ids[m.id] = true
	}
	same := false
	for _, m := range own {
		same = same || ids[m.id]
	}
	switch {
	case !same:
		return elsewhere, nil
	case rootMount(own) == 0 || rootMount(own) != rootMount(host):
		return chrooted, nil
	}
	return onHost, nil
}

// rootMount is the ID of the mount that a process has as its root; 0 where its root is a directory
// within a mount.
func rootMount(mounts []mount) (id uint64) {
	for _, m := range mounts {
		if m.point == "/" {
			id = m.id // the last one covers the others
		}
	}
	return id
}

// hostNamespace opens the mount namespace of pid 1. Where pid 1 itself may not be opened, another
// process of its namespace serves: kernel threads are in it.
func (i *Inspector) hostNamespace() (*os.File, error) {
	namespace, first := i.open("1/ns/mnt")
	if first == nil {
		return namespace, nil
	}
	host, err := i.mountinfo("1")
	if err != nil {
		return nil, err
	}
	mounts, err := i.mountinfo("2")
	if err == nil && rootMount(mounts) != 0 && rootMount(mounts) == rootMount(host) {
		return i.open("2/ns/mnt")
	}
	return nil, first
}

// seesAll is whether we have CAP_SYS_PTRACE, from which procfs hides nothing.
func (i *Inspector) seesAll() bool {
	b, err := i.read("self/status")
	if err != nil {
		return false
	}
	effective, ok := statusMask(b, "CapEff")
	return ok && effective&(1<<unix.CAP_SYS_PTRACE) != 0
}

// hidesProcesses is whether procfs may hide processes of other users from us.
func (i *Inspector) hidesProcesses() bool {
	f, err := i.open("self/mountinfo")
	if err != nil {
		return true
	}
	defer f.Close()
	mounts, err := readMountinfo(f)
	if err != nil {
		return true
	}
	h, err := i.handle("")
	if err != nil {
		return true
	}
	for _, m := range mounts {
		if m.dev == h.dev && strings.Contains(m.options, "hidepid=") &&
			!strings.Contains(m.options, "hidepid=0") && !strings.Contains(m.options, "hidepid=off") {
			return true
		}
	}
	return false
}

// Close gives back the descriptors. The Inspector must not be used any more.
func (i *Inspector) Close() error {
	i.prober.close()
	i.fusectlOnce.Do(func() { i.fusectlErr = os.ErrClosed })
	if i.fusectl != nil {
		i.fusectl.Close() // only read from
	}
	if i.hostFile != nil {
		i.hostFile.Close() // only read from
	}
	return i.proc.Close()
}

// onHost runs f where paths and mounts are those of pid 1.
func (i *Inspector) onHost(f func() error) error {
	if i.hostFile == nil {
		return f()
	}
	return inNamespace(i.hostFile, f)
}

// inNamespace runs f on a thread of its own that has entered a mount namespace; its root is then
// that namespace's.
func inNamespace(namespace *os.File, f func() error) error {
	result := make(chan error, 1)
	go enterAndRun(namespace, f, result)
	return <-result
}

func enterAndRun(namespace *os.File, f func() error, result chan<- error) {
	// Never unlocked: the thread ends with the goroutine, since nothing else may run on it.
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The first thread cannot end, and /proc/self is its view: it must stay where it is. While
		// this goroutine keeps it, the other one gets another thread.
		again := make(chan error)
		go enterAndRun(namespace, f, again)
		err := <-again
		runtime.UnlockOSThread()
		result <- err
		return
	}
	result <- func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare the root directory: %w", err)
		}
		if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("setns: %w", err)
		}
		return f()
	}()
}

// open opens a file of procfs by its path there.
func (i *Inspector) open(name string) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(i.proc.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: i.procPath + "/" + name, Err: err}
		}
		return os.NewFile(uintptr(fd), i.procPath+"/"+name), nil
	}
}

// read reads a file of procfs whole.
func (i *Inspector) read(name string) ([]byte, error) {
	f, err := i.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// names lists a directory of procfs.
func (i *Inspector) names(name string) ([]string, error) {
	f, err := i.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// readlink reads a link of procfs.
func (i *Inspector) readlink(name string) (string, error) {
	var buf [4096]byte
	n, err := unix.Readlinkat(int(i.proc.Fd()), name, buf[:])
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: i.procPath + "/" + name, Err: err}
	}
	return string(buf[:n]), nil
}

// handle is an object of a file system as the kernel numbers it, on the mount through which it is
// seen.
type handle struct {
	dev, ino uint64
	mnt      uint64 // mountinfo's mount ID; 0 where the kernel does not say (before 5.8)
}

// handle follows a link of procfs. It never waits for a network or FUSE server. The inode number is 0 where
// the file system does not tell us.
func (i *Inspector) handle(name string) (handle, error) {
	h, err := statMasked(int(i.proc.Fd()), name, unix.STATX_INO|unix.STATX_MNT_ID)
	if errors.Is(err, unix.EACCES) {
		// Of a FUSE file system that is its user's alone: it says no more than its device and the mount
		// (Linux, fs/fuse/dir.c, fuse_getattr). Where procfs refuses, it does so again.
		h, err = statMasked(int(i.proc.Fd()), name, 0)
		h.ino = 0
	}
	if i.noMountIDs {
		h.mnt = 0
	}
	return h, err
}

// statHandle is statHandle with all that a handle has.
func statHandle(dir int, name string) (handle, error) {
	return statMasked(dir, name, unix.STATX_INO|unix.STATX_MNT_ID)
}

func statMasked(dir int, name string, mask int) (handle, error) {
	flags := unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	if err := unix.Statx(dir, name, flags, mask, &st); err != nil {
		return handle{}, err
	}
	h := handle{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		h.mnt = st.Mnt_id
	}
	return h, nil
}

// nsInode reads the inode out of "mnt:[4026531832]"; 0 if it is something else.
func nsInode(link string) uint64 {
	rest, ok := strings.CutPrefix(link, "mnt:[")
	if !ok {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(rest, "]"), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func nsName(inode uint64) string { return fmt.Sprintf("mnt:[%d]", inode) }
