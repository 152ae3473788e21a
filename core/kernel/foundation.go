package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// stack is an overlay whose lower directories may be layers of images.
type stack struct {
	dev  uint64 // 0 where it is not known
	dirs []overlayDir
	// see looks at what an option names, from where the overlay is mounted.
	see func(overlayDir) (handle, bool)
	// shown is where it is mounted, who what it is.
	shown, who string
}

// foundations finds the overlays that stand on layers of images and that this store has no record of:
// containers of a store which has this one as an additional store, or of another run root. To observe,
// what stands in the same store is left out, for its records say more; for a release there is no
// record left that may stand on the layer, so whatever does is in the way. Of a layer that belongs to
// nothing the records say nothing.
func (s *scene) foundations(aim purpose) {
	// By the names that options have for a layer: ID/diff, and l/LINK (containers/storage v1.59.1,
	// drivers/overlay/overlay.go).
	named := make(map[[2]string][]*target)
	for _, t := range s.targets {
		if !t.lower() || t.place == (location{}) {
			continue
		}
		id := [2]string{filepath.Base(t.layer.Directory), "diff"}
		named[id] = append(named[id], t)
		link, err := os.ReadFile(filepath.Join(t.layer.Directory, "link"))
		switch {
		case err == nil:
			short := [2]string{"l", strings.TrimSpace(string(link))}
			named[short] = append(named[short], t)
		case !errors.Is(err, os.ErrNotExist):
			t.hold(core.EvidenceProbe, t.layer.Directory, "its short name, by which others may use it, cannot be read: %v", err)
		}
	}
	if len(named) == 0 {
		return
	}
	for _, o := range s.stacks() {
		if len(s.byDev[o.dev]) > 0 || s.serves(o) {
			continue // a layer's that is looked at too
		}
		for _, d := range o.dirs {
			if d.upper {
				continue
			}
			for _, t := range named[[2]string{d.layer, d.name}] {
				if h, ok := o.see(d); ok && t.inode != 0 && !t.isFiles(h) || has(s.onTop[o.dev], t) && o.dev != 0 {
					continue
				}
				if aim == toObserve && !t.layer.Orphan && o.sibling(t) {
					continue
				}
				if o.dev != 0 {
					s.onTop[o.dev] = append(s.onTop[o.dev], t)
				}
				t.hold(core.EvidenceMount, o.shown, "%s stands on it that this store has no record of", o.who)
			}
		}
	}
}

// stacks lists the overlays, each once: by a mount on the host where there is one.
func (s *scene) stacks() []stack {
	var all []stack
	seen := make(map[uint64]bool)
	for _, n := range s.tables.list {
		for k := range n.mounts {
			m := &n.mounts[k]
			if m.fs != "overlay" || seen[m.dev] {
				continue
			}
			seen[m.dev] = true
			all = append(all, stack{dev: m.dev, dirs: overlayDirs(m.options), shown: m.point, who: "an overlay",
				see: func(d overlayDir) (handle, bool) { return s.origin(n, m, d) }})
		}
	}
	for _, server := range s.servers {
		pid := strconv.Itoa(server.pid)
		all = append(all, stack{dev: s.connection(server.pid), dirs: server.dirs, who: "an overlay that process " + pid + " serves through FUSE",
			see: func(d overlayDir) (handle, bool) {
				if !filepath.IsAbs(d.path) {
					return handle{}, false
				}
				var seen handle
				if promptly(func() (err error) { seen, err = s.handle(pid + "/root" + d.path); return err }) != nil || seen.ino == 0 {
					return handle{}, false
				}
				return seen, true
			}})
	}
	return all
}

// serves is whether an overlay is that of a layer which is looked at too, by a FUSE server's word.
func (s *scene) serves(o stack) bool {
	for _, t := range s.targets {
		for _, d := range o.dirs {
			if t.server != 0 && d.upper && d.layer == filepath.Base(t.layer.Directory) {
				return true
			}
		}
	}
	return false
}

// sibling is whether an overlay is that of a layer of the same store home.
func (o *stack) sibling(t *target) bool {
	own, ok := o.own()
	if !ok {
		return false
	}
	here, err := statHandle(unix.AT_FDCWD, filepath.Join(filepath.Dir(t.layer.Directory), own.layer, own.name))
	if err != nil {
		return false
	}
	seen, ok := o.see(own)
	return !ok || seen.dev == here.dev && seen.ino == here.ino
}

// own is the directory with an overlay's own files: the upper one, or the uppermost of a mount to be
// read only.
func (o *stack) own() (overlayDir, bool) {
	var top *overlayDir
	for k := range o.dirs {
		if o.dirs[k].upper {
			return o.dirs[k], true
		}
		if o.dirs[k].top {
			top = &o.dirs[k]
		}
	}
	if top == nil {
		return overlayDir{}, false
	}
	return *top, true
}
