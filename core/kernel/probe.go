package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// life is whether a superblock owns an upper directory.
type life int

const (
	lifeUnknown life = iota
	lifeNone
	lifeLive
)

// prober asks the kernel whether a live overlay superblock owns an upper directory. It attempts an
// overlay mount that must fail: with the work directory on another mount. The kernel takes the
// upper directory's in-use flag first (EBUSY with index=on) and only then compares the two mounts
// (EINVAL), before it writes anything (Linux, fs/overlayfs/super.c: ovl_get_upper, ovl_get_workdir).
type prober struct {
	once sync.Once
	work *os.File // a tmpfs that is mounted nowhere
	dir  string   // before Linux 5.2: a directory on a tmpfs, and the mount point of the attempt
	err  error
}

func (i *Inspector) prepareProbe() error {
	p := &i.prober
	p.once.Do(func() {
		p.work, p.err = detached("tmpfs")
		switch {
		case errors.Is(p.err, unix.ENOSYS):
			p.dir, p.err = tmpfsDir()
		case p.err == nil:
			p.err = i.calibrate()
		}
	})
	return p.err
}

// calibrate probes an overlay of its own, on the tmpfs, which must be seen.
func (i *Inspector) calibrate() error {
	root := int(i.prober.work.Fd())
	for _, name := range []string{"lower", "upper", "work"} {
		if err := unix.Mkdirat(root, name, 0o700); err != nil {
			return fmt.Errorf("make a directory on the tmpfs: %w", err)
		}
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	at := i.fdPath(i.prober.work)
	for _, option := range [][2]string{{"lowerdir", at + "/lower"}, {"upperdir", at + "/upper"}, {"workdir", at + "/work"}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return nil // as of the creation
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		// Before 6.15 or so an overlay cannot stand on a mount that is in no namespace, and no tmpfs can
		// be an upper directory of an ordinary user's before 5.11: nothing to see.
		i.log.Debug("the probe cannot be tried out", "error", err)
		return nil
	}
	dir, err := os.OpenFile(at+"/upper", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the upper directory: %w", err)
	}
	defer dir.Close()
	if err := i.attempt(dir); !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("the kernel does not tell of a live overlay superblock: %v", err)
	}
	return nil
}

func (p *prober) close() {
	p.once.Do(func() { p.err = os.ErrClosed })
	if p.work != nil {
		p.work.Close() // nothing was written
	}
	if p.dir != "" {
		_ = os.Remove(p.dir) // empty
	}
}

// life probes an upper directory of our own mount namespace.
func (i *Inspector) life(upper string) (life, error) {
	dir, err := os.OpenFile(upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return lifeNone, nil // a superblock that outlived its upper directory has nothing to lose
	}
	if err != nil {
		return lifeUnknown, fmt.Errorf("open the upper directory: %w", err)
	}
	defer dir.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &fs); err != nil {
		return lifeUnknown, fmt.Errorf("statfs %s: %w", upper, err)
	}
	if fs.Flags&unix.ST_RDONLY != 0 {
		// The kernel refuses such an upper directory with EINVAL before it looks at the flag.
		return lifeUnknown, fmt.Errorf("%s is on a read-only mount", upper)
	}
	if err := i.prepareProbe(); err != nil {
		return lifeUnknown, fmt.Errorf("prepare the probe: %w", err)
	}
	// Where the mount cannot be cloned, the kernel says EINVAL before it looks at the flag: of an unbindable
	// mount, say (Linux, fs/namespace.c, clone_private_mount).
	if err := clonable(dir); err != nil {
		return lifeUnknown, fmt.Errorf("clone the mount of %s: %w", upper, err)
	}
	// Another probe of the same directory holds its flag for an instant.
	for try := 0; ; try++ {
		if i.prober.work != nil {
			err = i.attempt(dir)
		} else {
			err = i.attemptMount(dir)
		}
		switch {
		case errors.Is(err, unix.EINVAL):
			return lifeNone, nil
		case !errors.Is(err, unix.EBUSY):
			return lifeUnknown, fmt.Errorf("probe %s for an overlay superblock: %w", upper, err)
		case try == 2:
			return lifeLive, nil
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// clonable is whether the mount that a directory is on can be cloned; before Linux 5.2 it is taken for so.
func clonable(dir *os.File) error {
	fd, err := unix.OpenTree(int(dir.Fd()), "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if errors.Is(err, unix.ENOSYS) {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

var errMounted = errors.New("the mount that must fail succeeded")

func (i *Inspector) fdPath(f *os.File) string {
	return fmt.Sprintf("%s/self/fd/%d", i.procPath, f.Fd())
}

// attempt configures an overlay that is never attached anywhere. Only the last step's error tells
// anything: a path that is refused before it gets a text in front of its number.
func (i *Inspector) attempt(upper *os.File) error {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return notEINVAL("fsopen", err)
	}
	defer unix.Close(fs)
	work := i.fdPath(i.prober.work)
	for _, option := range [][2]string{{"lowerdir", work}, {"upperdir", i.fdPath(upper)}, {"workdir", work}, {"index", "on"}} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return notEINVAL(option[0], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return err
	}
	return errMounted
}

func (i *Inspector) attemptMount(upper *os.File) error {
	work := i.prober.dir
	options := fmt.Sprintf("index=on,lowerdir=%s,upperdir=%s,workdir=%s", work, i.fdPath(upper), work)
	if err := unix.Mount("overlay", work, "overlay", 0, options); err != nil {
		return err
	}
	if err := unix.Unmount(work, unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("%w, and unmount %s: %w", errMounted, work, err)
	}
	return errMounted
}

// notEINVAL hides the numbers that would be taken for an answer.
func notEINVAL(what string, err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %v", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// detached mounts a file system nowhere.
func detached(fs string) (*os.File, error) {
	context, err := unix.Fsopen(fs, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen %s: %w", fs, err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return nil, fmt.Errorf("create a %s: %w", fs, err)
	}
	fd, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fsmount %s: %w", fs, err)
	}
	return os.NewFile(uintptr(fd), fs), nil
}

// tmpfsDir makes a directory on a tmpfs, where no layer lies.
func tmpfsDir() (string, error) {
	for _, parent := range []string{"/run", "/dev/shm"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(parent, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
			continue
		}
		if dir, err := os.MkdirTemp(parent, "unmoor-probe-"); err == nil {
			return filepath.Clean(dir), nil
		}
	}
	return "", errors.New("no tmpfs at /run or /dev/shm to probe from")
}
