package kernel

import (
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A superblock says of its directories how who mounted them named them. What that means is told by
// looking from where it is mounted.

// origin is the object that an overlay's option names, seen from one of its mounts. The library names
// directories relative to its home, two above where it mounts. ok is false where it cannot be told.
func (s *scene) origin(n *namespace, m *mount, d overlayDir) (h handle, ok bool) {
	p := d.path
	if !path.IsAbs(p) {
		if path.Base(m.point) != "merged" {
			return handle{}, false
		}
		p = path.Join(path.Dir(path.Dir(m.point)), p)
	}
	return s.peek(n, p)
}

// peek looks at a path in a namespace.
func (s *scene) peek(n *namespace, p string) (handle, bool) {
	var h handle
	err := promptly(func() error {
		return s.enter(n, func() (err error) {
			h, err = statHandle(unix.AT_FDCWD, p)
			return err
		})
	})
	if err != nil {
		return handle{}, false
	}
	return h, true
}

// isFiles is whether an object is the directory with the layer's own files.
func (t *target) isFiles(h handle) bool {
	return t.inode != 0 && h.ino == t.inode && h.dev == t.device
}

// disown takes superblocks away from layers that are another store's: two stores that hold the same
// image have layers of the same ID, and an overlay's options may name them relative to either. Such a
// superblock is mounted at the other store's layer directory and not at ours, and what its options
// name is seen to be another directory than ours. In doubt it is ours.
func (s *scene) disown() {
	type claim struct {
		dev    uint64
		target *target
	}
	here, elsewhere := make(map[claim]bool), make(map[claim]bool)
	for _, n := range s.tables.list {
		for k := range n.mounts {
			m := &n.mounts[k]
			if len(s.byDev[m.dev]) == 0 || m.root != "/" || path.Base(m.point) != "merged" {
				continue
			}
			place, known := n.attach(m)
			mine, rest := s.at(place)
			for _, t := range s.byDev[m.dev] {
				c := claim{m.dev, t}
				switch {
				case here[c] || path.Base(path.Dir(m.point)) != filepath.Base(t.layer.Directory):
				case !known || has(mine, t) && rest == "/merged" || !s.foreign(n, m, t):
					here[c] = true
				default:
					elsewhere[c] = true
				}
			}
		}
	}
	for c := range elsewhere {
		if !here[c] {
			delete(c.target.devs, c.dev)
			s.byDev[c.dev] = slices.DeleteFunc(slices.Clone(s.byDev[c.dev]), func(t *target) bool { return t == c.target })
		}
	}
}

// foreign is whether a mount is seen to be of another layer than one of its ID.
func (s *scene) foreign(n *namespace, m *mount, t *target) bool {
	// Where the layers of an overlay are all on one file system, its root has the inode number of
	// the directory with its own files (see matchDetached).
	if root, ok := s.peek(n, m.point); !ok || root.mnt != 0 && root.mnt != m.id || root.ino == t.inode {
		return false
	}
	elsewhere := false
	for _, d := range overlayDirs(m.options) {
		if d.layer != filepath.Base(t.layer.Directory) {
			continue
		}
		h, ok := s.origin(n, m, d)
		if !ok || t.isFiles(h) {
			return false
		}
		elsewhere = true
	}
	return elsewhere
}
