package kernel

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// target is one layer that is looked at.
type target struct {
	layer core.Layer
	// place is the layer directory's, hostDir its path where we look through; inode is that of the
	// directory with the layer's own files, 0 where there is none.
	place   location
	hostDir string
	inode   uint64
	device  uint64 // inode's, as stat tells it

	// devs are the superblocks mounted from the layer, or on top of one that is.
	devs   map[uint64]bool
	fuse   bool // one of them is FUSE
	server int  // the process that serves it, mounted or not; 0 where none is seen
	mounts []placed
	asked  bool // with MNT_EXPIRE
	life   life // by the probe; of overlay layers with an upper directory alone

	users   []core.Evidence // named processes
	holders []core.Evidence // what stands in the way and is no process
	named   map[string]bool
	// self is whether Unmoor is among the users: it can end none of them then and stay.
	self bool
	// fleeting is whether a process used it that had ended, or left it, before it could be named. It
	// may have a child by then that stays.
	fleeting bool
}

// placed is a mount that has to do with a layer.
type placed struct {
	ns    *namespace
	mount *mount
	// foreign is whether it is another file system's, or another part of the same one.
	foreign bool
	// below is whether it is mounted at or below the layer's directory.
	below bool
}

// user is a process that uses the layer.
func (t *target) user(p core.Process, detail, path string) {
	key := fmt.Sprint(p.PID, detail)
	if t.named[key] {
		return
	}
	if t.named == nil {
		t.named = make(map[string]bool)
	}
	t.named[key] = true
	t.users = append(t.users, evidence(core.EvidenceProcess, detail, path, &p))
}

// hold is something that keeps the layer, and no process.
func (t *target) hold(kind core.EvidenceKind, path, detail string, args ...any) {
	t.holders = append(t.holders, evidence(kind, fmt.Sprintf(detail, args...), path, nil))
}

func evidence(kind core.EvidenceKind, detail, path string, p *core.Process) core.Evidence {
	return core.Evidence{Source: core.SourceKernel, Kind: kind, Detail: detail, Path: path, Process: p, Time: time.Now()}
}

// decided is whether nothing more needs to be found out.
func (t *target) decided() bool { return len(t.users) > 0 || t.self }

// overlay is whether it is the writable layer of a container with the overlay driver.
func (t *target) overlay() bool { return t.layer.Driver == "overlay" && t.layer.UpperDir != "" }

// lower is whether overlays may stand on the layer that the store's records do not tell of: a layer of an
// image, or one that belongs to nothing.
func (t *target) lower() bool {
	return t.layer.Driver == "overlay" && (t.layer.UpperDir == "" || t.layer.Orphan)
}

// scanOnly is whether the probe does not tell that the layer is idle, and the look at every process does.
func (t *target) scanOnly() bool { return !t.overlay() || t.fuse || t.lower() }

// mounted is whether a superblock of the layer is mounted anywhere.
func (t *target) mounted() bool {
	for _, p := range t.mounts {
		if !p.foreign && t.devs[p.mount.dev] {
			return true
		}
	}
	return false
}

// files is the directory where the layer's own files are.
func (t *target) files() string {
	if t.layer.Driver == "overlay" {
		return filepath.Join(t.layer.Directory, "diff")
	}
	return t.layer.Directory
}

// alive is whether something may still be seen through the layer's superblock.
func (t *target) alive() bool { return t.mounted() || t.life == lifeLive || t.server != 0 }

// scene is everything that one scan saw.
type scene struct {
	*Inspector
	targets []*target
	procs   []process
	tables  *tables

	byMount map[uint64][]*target   // by mount ID
	byDev   map[uint64][]*target   // by superblock
	byPlace map[location][]*target // by layer directory
	devs    map[uint64]bool        // of the file systems that the layer directories are on
	mounts  map[uint64]*mount      // every mount that was read
	// superblocks are those of all the mounts that were read.
	superblocks map[uint64]bool
	byPID       map[int]*process
	// servers are the processes that serve overlays through FUSE.
	servers []fuseServer
	// onTop are layers of images by the superblocks that stand on them and are of no store of ours.
	onTop   map[uint64][]*target
	paths   pathCache
	overlay magicCache

	// serving are the processes that serve one of the layers through FUSE.
	serving map[int]bool
	// strays are processes on a mount in no namespace of a file system that layers are on, where it
	// cannot be told what it is a mount of; overlayStrays those on such an overlay.
	strays, overlayStrays []core.Evidence
	// unreadable are processes that could not be looked into.
	unreadable []string
	// moved is whether a layer's directory lies on a mount that came after the mounts were read.
	moved bool
	// hasty is whether processes came and went faster than they could be looked at.
	hasty bool
	dear  bool
	// unlocked is why the lock that MNT_EXPIRE needs could not be had.
	unlocked error
}

// locate finds out where a layer's directory is, whatever the path to it.
func (i *Inspector) locate(t *tables, dir string) (place location, hostDir string, err error) {
	own := t.byInode[i.own]
	if own == nil {
		return location{}, "", errors.New("our own mounts are not known")
	}
	existing, rest := filepath.Clean(dir), ""
	var f *os.File
	for {
		f, err = os.OpenFile(existing, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || existing == "/" {
			return location{}, "", err
		}
		rest = filepath.Join(filepath.Base(existing), rest)
		existing = filepath.Dir(existing)
	}
	defer f.Close()
	h, err := statHandle(int(f.Fd()), "")
	if err != nil {
		return location{}, "", fmt.Errorf("stat %s: %w", existing, err)
	}
	// From the host's root, so that a chroot of ours does not cut the path.
	err = i.onHost(func() error {
		hostDir, err = i.readlink(fmt.Sprintf("self/fd/%d", f.Fd()))
		return err
	})
	if err != nil {
		return location{}, "", fmt.Errorf("path of %s: %w", existing, err)
	}
	m := own.byID[h.mnt]
	if h.mnt == 0 || i.noMountIDs {
		m = own.covering(hostDir)
	}
	if m == nil {
		return location{}, "", fmt.Errorf("%s %w", existing, errUnseenMount)
	}
	hostDir = path.Join(hostDir, rest)
	place, ok := m.at(hostDir)
	if !ok {
		return location{}, "", fmt.Errorf("%s is not below its mount %s", hostDir, m.point)
	}
	return place, hostDir, nil
}

// errUnseenMount: of a mount that was made since the mounts were read, as engines make one of the
// driver's home whenever they start.
var errUnseenMount = errors.New("lies on a mount that is not in our mount namespace")

// covering is the mount that a path lies on, by its text: the longest mount point, the last of them.
func (n *namespace) covering(p string) (found *mount) {
	for k := range n.mounts {
		m := &n.mounts[k]
		if _, ok := within(m.point, p); ok && (found == nil || len(m.point) >= len(found.point)) {
			found = m
		}
	}
	return found
}

// newScene places the layers and every mount that has to do with them.
func (i *Inspector) newScene(t *tables, procs []process, layers []core.Layer) *scene {
	s := &scene{
		Inspector: i, procs: procs, tables: t,
		byMount: make(map[uint64][]*target), byDev: make(map[uint64][]*target),
		byPlace: make(map[location][]*target), devs: make(map[uint64]bool), mounts: make(map[uint64]*mount),
		overlay: magicCache{known: make(map[uint64]*overlayAnswer)},
		onTop:   make(map[uint64][]*target), superblocks: make(map[uint64]bool), serving: make(map[int]bool), byPID: make(map[int]*process, len(procs)),
		paths: pathCache{places: make(map[handle]location)},
	}
	for k := range procs {
		s.byPID[procs[k].pid] = &procs[k]
	}
	byID := make(map[string][]*target)
	for _, layer := range layers {
		target := &target{layer: layer, devs: make(map[uint64]bool)}
		s.targets = append(s.targets, target)
		if layer.Driver != "overlay" && layer.Driver != "vfs" {
			target.hold(core.EvidenceProbe, layer.Directory, "use of a layer of driver %q cannot be told", layer.Driver)
			continue
		}
		if layer.Directory == "" {
			continue // a record without a layer: there is nothing to use
		}
		var err error
		if target.place, target.hostDir, err = i.locate(t, layer.Directory); err != nil {
			target.hold(core.EvidenceProbe, layer.Directory, "its directory cannot be looked at: %v", err)
			s.moved = s.moved || errors.Is(err, errUnseenMount)
			continue
		}
		if layer.Driver == "overlay" {
			byID[filepath.Base(layer.Directory)] = append(byID[filepath.Base(layer.Directory)], target)
		}
		if h, err := statHandle(unix.AT_FDCWD, target.files()); err == nil {
			target.inode, target.device = h.ino, h.dev // 0 where there is no such directory
		}
		s.byPlace[target.place] = append(s.byPlace[target.place], target)
		s.devs[target.place.dev] = true
	}
	for _, n := range t.list {
		for k := range n.mounts {
			s.recognize(n, &n.mounts[k], byID)
		}
	}
	s.disown()
	s.findServers()
	if i.hidesServers() {
		for _, target := range s.targets {
			target.fuse = target.fuse || target.overlay()
		}
	}
	for _, n := range t.list {
		below := make(map[*mount][]*target)
		for k := range n.mounts {
			s.place(n, &n.mounts[k], below)
		}
	}
	return s
}

// at finds the layers whose directory is at or above a place, and the rest of the path below it.
func (s *scene) at(l location) (found []*target, rest string) {
	if !s.devs[l.dev] {
		return nil, ""
	}
	for p := l.path; ; p = path.Dir(p) {
		if found = s.byPlace[location{l.dev, p}]; found != nil {
			rest, _ = within(p, l.path)
			return found, rest
		}
		if p == "/" || p == "." {
			return nil, ""
		}
	}
}

// recognize notes the superblock of a mount where it is a layer's.
func (s *scene) recognize(n *namespace, m *mount, byID map[string][]*target) {
	s.mounts[m.id] = m
	s.superblocks[m.dev] = true
	if m.fs != "overlay" && !m.fuse() {
		return
	}
	if m.fs == "overlay" && len(byID) > 0 {
		dirs := overlayDirs(m.options)
		upper := false
		for _, d := range dirs {
			upper = upper || d.upper
		}
		for _, d := range dirs {
			own := d.name == "diff" && (d.upper || (d.top && !upper))
			on := d.name == "merged" // another overlay on top of ours
			if own || on {
				for _, t := range byID[d.layer] {
					s.claim(t, m.dev)
				}
			}
		}
	}
	place, ok := n.attach(m)
	if !ok || m.root != "/" {
		return
	}
	found, rest := s.at(place)
	for _, t := range found {
		if t.layer.Driver == "overlay" && rest == "/merged" {
			s.claim(t, m.dev)
			t.fuse = t.fuse || m.fuse()
		}
	}
}

// claim notes that a superblock is a layer's.
func (s *scene) claim(t *target, dev uint64) {
	if !t.devs[dev] {
		t.devs[dev] = true
		s.byDev[dev] = append(s.byDev[dev], t)
	}
}

// place assigns a mount to the layers that it has to do with.
func (s *scene) place(n *namespace, m *mount, below map[*mount][]*target) {
	under := s.below(n, m, below, 0)
	for _, t := range s.byDev[m.dev] {
		s.assign(t, placed{ns: n, mount: m, below: has(under, t)})
	}
	within, _ := s.at(location{m.dev, m.root})
	for _, t := range within {
		s.assign(t, placed{ns: n, mount: m, below: has(under, t)})
	}
	for _, t := range under {
		if !has(s.byDev[m.dev], t) && !has(within, t) {
			s.assign(t, placed{ns: n, mount: m, foreign: true, below: true})
		}
	}
}

func (s *scene) assign(t *target, p placed) {
	t.mounts = append(t.mounts, p)
	s.byMount[p.mount.id] = append(s.byMount[p.mount.id], t)
}

// below lists the layers at or below whose directory a mount is mounted, directly or on another such
// mount.
func (s *scene) below(n *namespace, m *mount, known map[*mount][]*target, depth int) []*target {
	if found, ok := known[m]; ok {
		return found
	}
	var found []*target
	if place, ok := n.attach(m); ok {
		found, _ = s.at(place)
	}
	if parent := n.byID[m.parent]; parent != nil && parent != m && depth < 4096 {
		for _, t := range s.below(n, parent, known, depth+1) {
			if !has(found, t) {
				found = append(found[:len(found):len(found)], t)
			}
		}
	}
	known[m] = found
	return found
}

func has(all []*target, t *target) bool {
	for _, x := range all {
		if x == t {
			return true
		}
	}
	return false
}

// shown is a path of the host as our caller knows it.
func (t *target) shown(p string) string {
	if rest, ok := within(t.hostDir, p); ok && t.hostDir != "" {
		return t.layer.Directory + rest
	}
	return p
}

// trimDeleted takes the mark off that the kernel puts on the path of what is gone.
func trimDeleted(p string) string {
	return strings.TrimSuffix(strings.TrimSuffix(p, " (deleted)"), "//deleted")
}
