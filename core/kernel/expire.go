package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// expireAll asks whether the layer's mounts on the host are busy, which shows users that are no
// process: a loop device, say.
func (s *scene) expireAll(t *target) {
	if t.asked {
		return
	}
	t.asked = true
	for _, p := range t.mounts {
		if p.ns.inode != s.host || !p.below || p.ns.parent(p.mount) {
			continue // what has a mount on it is busy by that alone
		}
		busy, err := s.busy(t, p)
		switch {
		case err != nil:
			t.hold(core.EvidenceProbe, t.shown(p.mount.point), "its mount cannot be checked: %v", err)
		case busy:
			t.hold(core.EvidenceProbe, t.shown(p.mount.point), "its mount is busy, by nothing that can be named")
		}
	}
}

// parent is whether another mount is mounted on m.
func (n *namespace) parent(m *mount) bool {
	for k := range n.mounts {
		if x := &n.mounts[k]; x.parent == m.id && x != m {
			return true
		}
	}
	return false
}

// busy asks with umount2(MNT_EXPIRE), whose first call marks an idle mount and does no more. A
// second one would unmount it: so the mark is cleared at once, under a lock that every Unmoor takes.
// A mount that does not answer keeps the lock.
func (s *scene) busy(t *target, p placed) (busy bool, err error) {
	if s.unlocked != nil {
		return false, s.unlocked
	}
	// Not the layer's own directory: where that is a mount point, the lock would be a user.
	lock, err := lockDirectory(filepath.Dir(t.layer.Directory), lockWait)
	if err != nil {
		s.unlocked = err
		return false, err
	}
	var found bool
	err = promptly(func() error {
		defer lock.Close()
		return s.enter(p.ns, func() (err error) {
			found, err = expire(p.mount)
			return err
		})
	})
	if err != nil {
		return false, err
	}
	return found, nil
}

// lockWait is how long others may keep the lock: it is held for milliseconds, unless somebody means
// to be in the way.
const lockWait = 5 * time.Second

// lockDirectory takes the lock on a directory.
func lockDirectory(dir string, most time.Duration) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(most); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || time.Now().After(end) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
	}
}

// expire runs in the mount's namespace.
func expire(m *mount) (busy bool, err error) {
	for try := 0; ; try++ {
		// The look also clears a mark that somebody left.
		h, err := statHandle(unix.AT_FDCWD, m.point)
		if err != nil {
			return false, err
		}
		if h.mnt != 0 && h.mnt != m.id {
			return false, nil // covered by another mount: the plain unmount will tell
		}
		err = unix.Unmount(m.point, unix.MNT_EXPIRE|unix.UMOUNT_NOFOLLOW)
		_, _ = statHandle(unix.AT_FDCWD, m.point) // clears the mark
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case err == nil:
			// Somebody else had marked it in the instant before; it was idle.
			return false, nil
		case !errors.Is(err, unix.EBUSY):
			return false, fmt.Errorf("umount2 %s: %w", m.point, err)
		case try == 4:
			return true, nil
		}
		time.Sleep(time.Millisecond << try) // whoever only passes by is gone then
	}
}
