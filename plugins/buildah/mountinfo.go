package buildah

import (
	"path"
	"strings"

	"github.com/unmoor/unmoor/core"
)

// mount is one line of a mountinfo.
type mount struct {
	device string // major:minor
	root   string // what of the file system is mounted
	point  string // relative to the reader's process's root
	kind   string
	upper  string // upperdir of an overlay
}

// parseMountinfo reads /proc/PID/mountinfo (proc_pid_mountinfo(5)). Lines that it does not
// understand are left out. Escapes stay as they are, since layers' IDs have none.
func parseMountinfo(text string) []mount {
	var all []mount
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		fields, super := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 6 || len(super) < 1 {
			continue
		}
		m := mount{device: fields[2], root: fields[3], point: fields[4], kind: super[0]}
		if m.kind == "overlay" && len(super) > 2 {
			for _, option := range strings.Split(super[2], ",") {
				if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
					m.upper = upper
				}
			}
		}
		all = append(all, m)
	}
	return all
}

// layers knows which mounts show which layers.
type layers struct {
	known map[core.LayerID]bool
	// devices are the file systems that are one layer, as major:minor.
	devices map[string]core.LayerID
}

func newLayers(containers []core.Container) *layers {
	l := &layers{known: make(map[core.LayerID]bool), devices: make(map[string]core.LayerID)}
	for _, c := range containers {
		if c.LayerID != "" {
			l.known[c.LayerID] = true
		}
	}
	return l
}

// learn takes note of the devices of layers that are mounted where the store mounts them. It tells
// layers of fuse-overlayfs, whose mounts do not say what they show.
func (l *layers) learn(mounts []mount) {
	for _, m := range mounts {
		if id := l.byUpper(m); id != "" {
			l.devices[m.device] = id
		} else if id := l.atMerged(m); id != "" && path.Clean(m.root) == "/" {
			l.devices[m.device] = id
		}
	}
}

// of is the layer that a mount shows, or "".
func (l *layers) of(m mount) core.LayerID {
	if id := l.byUpper(m); id != "" {
		return id
	}
	if id, ok := l.devices[m.device]; ok {
		return id
	}
	// vfs: the layer is a directory of a larger file system.
	for part := range strings.SplitSeq(m.root, "/") {
		if l.known[core.LayerID(part)] && strings.Contains(m.root, "/vfs/dir/"+part) {
			return core.LayerID(part)
		}
	}
	return ""
}

func (l *layers) byUpper(m mount) core.LayerID {
	if m.upper == "" {
		return ""
	}
	// The path may be relative to the driver's home, but ends in LAYER/diff always.
	if id := core.LayerID(path.Base(path.Dir(m.upper))); l.known[id] {
		return id
	}
	return ""
}

// atMerged is the layer whose own mount point this is, or "". A mount there is no use: every mount
// namespace inherits it.
func (l *layers) atMerged(m mount) core.LayerID {
	if path.Base(m.point) != "merged" {
		return ""
	}
	if id := core.LayerID(path.Base(path.Dir(m.point))); l.known[id] {
		return id
	}
	return ""
}

// uses are the layers that a process with these mounts lives in (its root is there) and those that
// it has mounted elsewhere.
func (l *layers) uses(mounts []mount) (inside, holds map[core.LayerID]bool) {
	inside, holds = make(map[core.LayerID]bool), make(map[core.LayerID]bool)
	for _, m := range mounts {
		id := l.of(m)
		switch {
		case id == "" || l.atMerged(m) == id:
		case m.point == "/":
			inside[id] = true
		default:
			holds[id] = true
		}
	}
	for id := range inside {
		delete(holds, id)
	}
	return inside, holds
}
