package kernel

import (
	"io"
	"path"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mount is one mount of one mount namespace.
type mount struct {
	id, parent uint64 // mountinfo's
	dev        uint64 // of the superblock
	root       string // within the file system
	point      string // within the namespace
	fs         string
	options    string // of the superblock; of overlay and proc alone
}

// location is a place in a file system that no chroot, bind mount or namespace changes.
type location struct {
	dev  uint64
	path string
}

// readMountinfo reads /proc/PID/mountinfo.
func readMountinfo(r io.Reader) ([]mount, error) {
	infos, err := mountinfo.GetMountsFromReader(r, nil)
	if err != nil {
		return nil, err
	}
	mounts := make([]mount, 0, len(infos))
	for _, m := range infos {
		mounts = append(mounts, mount{
			id: uint64(m.ID), parent: uint64(m.Parent),
			dev:  unix.Mkdev(uint32(m.Major), uint32(m.Minor)),
			root: strings.TrimSuffix(m.Root, "//deleted"), point: m.Mountpoint,
			fs: m.FSType, options: m.VFSOptions,
		})
	}
	return mounts, nil
}

// within is the rest of p at or below dir, starting with a slash unless it is empty.
func within(dir, p string) (rest string, ok bool) {
	if dir == "/" || dir == "" {
		if p == "/" {
			return "", true
		}
		return p, strings.HasPrefix(p, "/")
	}
	rest, ok = strings.CutPrefix(p, dir)
	if !ok || (rest != "" && rest[0] != '/') {
		return "", false
	}
	return rest, true
}

// at is the place in the file system of a path that lies on the mount.
func (m *mount) at(p string) (location, bool) {
	rest, ok := within(m.point, p)
	if !ok {
		return location{}, false
	}
	return location{dev: m.dev, path: path.Clean(m.root + rest)}, true
}

// fuse is whether a user process serves the file system.
func (m *mount) fuse() bool { return m.fs == "fuse" || strings.HasPrefix(m.fs, "fuse.") }

// overlayDir is a directory that an overlay superblock was mounted from.
type overlayDir struct {
	// layer is the directory's last component but one, name the last: ID and diff, or ID and merged.
	layer, name string
	upper       bool
	// top is whether it is the uppermost lower directory.
	top bool
	// path is as the option says it: as seen by who mounted it, and perhaps relative.
	path string
}

// overlayDirs reads the options of an overlay superblock. Layers are told by the last two components of
// each path: the library mounts with paths relative to its home where the options would be too long,
// and a chroot or a namespace changes what stands before them (containers/storage v1.59.1,
// drivers/overlay/overlay.go and mount.go).
func overlayDirs(options string) []overlayDir {
	var dirs []overlayDir
	first := true
	for _, o := range splitEscaped(options, ',') {
		key, value, _ := strings.Cut(o, "=")
		switch key {
		case "upperdir":
			if d, ok := overlayPath(value); ok {
				d.upper = true
				dirs = append(dirs, d)
			}
		case "lowerdir", "lowerdir+", "datadir+":
			for _, p := range splitEscaped(value, ':') {
				if p == "" {
					continue
				}
				if d, ok := overlayPath(p); ok {
					d.top = first
					dirs = append(dirs, d)
				}
				first = false
			}
		}
	}
	return dirs
}

func overlayPath(p string) (overlayDir, bool) {
	rest, name := path.Split(path.Clean(p))
	layer := path.Base(path.Clean(rest))
	if rest == "" || layer == "." || layer == "/" {
		return overlayDir{}, false
	}
	return overlayDir{layer: layer, name: name, path: unescape(p)}, true
}

// unescape takes the backslashes away that the mounter put before separators.
func unescape(p string) string {
	if !strings.Contains(p, `\`) {
		return p
	}
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '\\' && i+1 < len(p) {
			i++
		}
		b.WriteByte(p[i])
	}
	return b.String()
}

// splitEscaped splits at sep where no backslash stands before it.
func splitEscaped(s string, sep byte) []string {
	var parts []string
	start := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case sep:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}
