package kernel

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// magicCache remembers which superblocks are overlays.
type magicCache struct {
	sync.Mutex
	known map[uint64]*overlayAnswer
}

// overlayAnswer is whether a superblock is an overlay, once that is known. dead is whether it did not
// answer: it may be one, and must not be asked anything again.
type overlayAnswer struct {
	sync.Mutex
	known, is, dead bool
}

// matchDetached attributes an object on a mount that is in no namespace: unmounted lazily, or never
// attached.
func (s *scene) matchDetached(link string, h handle) (found []*target, stray bool) {
	if s.devs[h.dev] {
		return s.matchByFileHandle(link, h)
	}
	if s.superblocks[h.dev] {
		return nil, false // mounted elsewhere too, where its options say that it is of none of the layers
	}
	if is, open := s.isOverlay(link, h.dev); !is {
		return nil, open
	}
	// Where the layers of an overlay are all on one file system, its inode numbers are those of the
	// layers' own files (Documentation/filesystems/overlayfs.rst, "Inode properties").
	if root := s.detachedRoot(link, h); root != 0 {
		for _, t := range s.targets {
			if t.layer.Driver == "overlay" && t.inode == root {
				s.learn(t, h.dev)
				found = append(found, t)
			}
		}
		return found, len(found) == 0
	}
	p, err := s.readlink(link)
	if err != nil {
		return nil, !vanished(err)
	}
	for _, t := range s.targets {
		if t.layer.Driver != "overlay" || t.inode == 0 {
			continue
		}
		below, err := statHandle(unix.AT_FDCWD, path.Join(t.files(), path.Clean("/"+trimDeleted(p))))
		if err == nil && below.ino == h.ino {
			found = append(found, t)
		}
	}
	return found, len(found) == 0
}

// matchByFileHandle finds an object of the layers' own file system on the mount that the layers are
// seen through, and so its path. stray is whether the kernel cannot say.
func (s *scene) matchByFileHandle(link string, h handle) (found []*target, stray bool) {
	object, _, err := unix.NameToHandleAt(int(s.proc.Fd()), link, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return nil, !vanished(err)
	}
	asked := make(map[string]bool)
	for _, t := range s.targets {
		home := filepath.Dir(t.layer.Directory)
		if t.place.dev != h.dev || asked[home] {
			continue
		}
		asked[home] = true
		p, err := s.pathOfHandle(home, object)
		if errors.Is(err, unix.ESTALE) && s.gone(link) {
			continue // the object has no name any more, so it is in nobody's way
		}
		if err != nil {
			stray = true
			continue
		}
		for _, t := range s.targets {
			if _, ok := within(t.hostDir, p); ok && t.place.dev == h.dev && filepath.Dir(t.layer.Directory) == home {
				found = append(found, t)
			}
		}
	}
	return found, stray && len(found) == 0
}

// pathOfHandle is the path of an object from the host's root, by the mount of a directory.
func (s *scene) pathOfHandle(dir string, object unix.FileHandle) (string, error) {
	home, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer home.Close()
	fd, err := unix.OpenByHandleAt(int(home.Fd()), object, unix.O_PATH)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	p, err := s.readlink("self/fd/" + strconv.Itoa(fd))
	return trimDeleted(p), err
}

// gone is whether the object of a link is deleted.
func (s *scene) gone(link string) bool {
	p, err := s.readlink(link)
	return err == nil && trimDeleted(p) != p
}

// learn notes a superblock that only a detached mount shows. It is called with the matching of the
// cheap links alone, which is done by one goroutine.
func (s *scene) learn(t *target, dev uint64) {
	if !s.dear {
		s.claim(t, dev)
	}
}

// isOverlay asks a file system, which may wait for a server that never answers. open is whether it did not
// say.
func (s *scene) isOverlay(link string, dev uint64) (is, open bool) {
	s.overlay.Lock()
	answer := s.overlay.known[dev]
	if answer == nil {
		answer = new(overlayAnswer)
		s.overlay.known[dev] = answer
	}
	s.overlay.Unlock()
	answer.Lock()
	defer answer.Unlock()
	if answer.known {
		return answer.is, answer.dead
	}
	var overlay bool
	err := promptly(func() error {
		// From the host's root, whatever thread this runs on: procfs is held open.
		fd, err := unix.Openat(int(s.proc.Fd()), link, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var fs unix.Statfs_t
		err = unix.Fstatfs(fd, &fs)
		overlay = fs.Type == unix.OVERLAYFS_SUPER_MAGIC
		return err
	})
	switch {
	case errors.Is(err, errNoAnswer):
		answer.known, answer.dead = true, true
	case err != nil:
		// Of this link alone: another one may lead there still.
		return false, !vanished(err)
	default:
		answer.known, answer.is = true, overlay
	}
	return answer.is, answer.dead
}

// detachedRoot climbs from a directory to the root of its mount; 0 where it is no directory.
func (s *scene) detachedRoot(link string, h handle) uint64 {
	fd, err := unix.Openat(int(s.proc.Fd()), link, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	at := h
	for range 4096 {
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			break
		}
		unix.Close(fd)
		fd = up
		above, err := statHandle(fd, "")
		if err != nil || above.dev != at.dev || above == at {
			break
		}
		at = above
	}
	unix.Close(fd)
	return at.ino
}
