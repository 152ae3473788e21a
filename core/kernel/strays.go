package kernel

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

var _ core.Surveyor = (*Inspector)(nil)

// layerName is a layer's directory; beside them a store's home has others, such as l and tempdirs.
var layerName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// MountedLayers lists the layers below the store homes that have a mount in some mount namespace, sorted:
// an overlay whose upper directory is theirs, also where that was deleted since; a mount of a part of
// their directory; or a mount at or below it. What serves a layer through FUSE is not looked for. An
// upper directory by a relative path, as containers/storage has it where the options would be too long, counts
// where the same home has its lower directories.
func (i *Inspector) MountedLayers(ctx context.Context, homes []string) ([]core.LayerID, error) {
	procs, _, err := i.scanProcesses(ctx)
	if err != nil {
		return nil, err
	}
	t, err := i.readTables(procs)
	if err != nil {
		return nil, err
	}
	found := make(map[core.LayerID]bool)
	for _, home := range homes {
		place, hostDir, err := i.locate(t, home)
		if err != nil {
			return nil, fmt.Errorf("look at %s: %w", home, err)
		}
		h := storeHome{path: home, hostPath: hostDir, place: place}
		for _, n := range t.list {
			for k := range n.mounts {
				for _, name := range h.layers(n, &n.mounts[k]) {
					if layerName.MatchString(name) {
						found[core.LayerID(name)] = true
					}
				}
			}
		}
	}
	all := make([]core.LayerID, 0, len(found))
	for id := range found {
		all = append(all, id)
	}
	slices.Sort(all)
	return all, ctx.Err()
}

// storeHome is a directory with layers.
type storeHome struct {
	// path is ours, hostPath the host's.
	path, hostPath string
	place          location
}

// layers names the directories of the home that a mount has to do with.
func (h storeHome) layers(n *namespace, m *mount) []string {
	var names []string
	add := func(l location) {
		if rest, ok := within(h.place.path, l.path); ok && l.dev == h.place.dev && rest != "" {
			names = append(names, strings.SplitN(rest, "/", 3)[1])
		}
	}
	if place, ok := n.attach(m); ok {
		add(place)
	}
	add(location{m.dev, m.root})
	if m.fs != "overlay" {
		return names
	}
	dirs := overlayDirs(m.options)
	for _, d := range dirs {
		if d.upper && h.holds(d, dirs) {
			names = append(names, d.layer)
		}
	}
	return names
}

// holds is whether an overlay's upper directory is one of the home.
func (h storeHome) holds(upper overlayDir, dirs []overlayDir) bool {
	if filepath.IsAbs(upper.path) {
		home := filepath.Dir(filepath.Dir(filepath.Clean(upper.path)))
		return home == h.path || home == h.hostPath
	}
	for _, d := range dirs {
		if d.upper || filepath.IsAbs(d.path) {
			continue
		}
		if _, err := statHandle(unix.AT_FDCWD, filepath.Join(h.path, d.path)); err == nil {
			return true
		}
	}
	return false
}
