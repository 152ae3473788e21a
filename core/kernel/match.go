package kernel

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// pathCache remembers where objects are in their file system. Hard links aside, one object on one
// mount has one path.
type pathCache struct {
	sync.Mutex
	places map[handle]location
}

// match finds the layers that an object belongs to, which a process of namespace ns holds through a
// link of procfs. text is what the link says; empty where that is still to be read. stray is whether it
// is on an overlay of unknown layer.
func (s *scene) match(ns uint64, link, text string, h handle) (found []*target, stray bool) {
	if h == (handle{}) {
		return nil, false
	}
	found = s.byMount[h.mnt]
	for _, known := range [][]*target{s.byDev[h.dev], s.onTop[h.dev]} {
		for _, t := range known {
			if !has(found, t) {
				found = append(found[:len(found):len(found)], t)
			}
		}
	}
	if len(found) > 0 {
		return found, false
	}
	m := s.mounts[h.mnt]
	if m == nil && h.mnt != 0 {
		return s.matchDetached(link, h)
	}
	if m == nil || s.devs[m.dev] {
		place, ok := s.placeOf(ns, link, text, h, m)
		if !ok {
			return s.matchByFileHandle(link, h)
		}
		found, _ = s.at(place)
	}
	if m == nil && len(found) == 0 && (s.devs[h.dev] || !s.superblocks[h.dev]) {
		return s.matchDetached(link, h)
	}
	return found, false
}

// placeOf reads where an object is. m is its mount, nil where the kernel does not say. ok is false where
// there is an object whose path cannot be told: one longer than a page has none.
func (s *scene) placeOf(ns uint64, link, text string, h handle, m *mount) (place location, ok bool) {
	if m == nil && !s.devs[h.dev] {
		return location{}, true
	}
	cached := h.mnt != 0 && h.ino != 0
	if cached {
		s.paths.Lock()
		place, ok := s.paths.places[h]
		s.paths.Unlock()
		if ok {
			return place, true
		}
	}
	if text == "" {
		var err error
		if text, err = s.readlink(link); err != nil {
			return location{}, vanished(err)
		}
	}
	p := trimDeleted(text)
	if m == nil {
		if n := s.tables.byInode[ns]; n != nil {
			m = n.covering(p)
		}
	}
	if m != nil {
		place, _ = m.at(p)
	}
	if cached {
		s.paths.Lock()
		s.paths.places[h] = place
		s.paths.Unlock()
	}
	return place, true
}

// cheap matches root, cwd and exe of every process.
func (s *scene) cheap() {
	for k := range s.procs {
		p := &s.procs[k]
		if p.unreadable {
			s.unreadable = append(s.unreadable, strconv.Itoa(p.pid))
		}
		s.matchLinks(p)
	}
}

// matchLinks names the process to the layers that its root, cwd or exe are in.
func (s *scene) matchLinks(p *process) {
	for k, h := range p.links {
		link := p.dir + "/" + linkNames[k]
		found, stray := s.match(p.ns, link, p.paths[k], h)
		for _, t := range found {
			s.name(t, p, link, linkDetail[k])
		}
		if stray {
			s.stray(p, link)
		}
	}
}

// name records a user of a layer, once it is certain that it still is the same process.
func (s *scene) name(t *target, p *process, link, detail string) {
	// A server has the lower layers open too, and goes with the layer that it serves.
	if p.pid == t.server || s.serving[p.pid] {
		return
	}
	if p.self() {
		shown, _ := s.readlink(link) // for people
		t.hold(core.EvidenceProcess, t.shown(shown), "unmoor itself works in it")
		t.self = true
		return
	}
	var shown string
	described, ok := s.describe(p.pid, func() bool {
		h, err := s.handle(link)
		if err != nil {
			return false
		}
		if found, _ := s.match(p.ns, link, "", h); !has(found, t) {
			return false
		}
		shown, _ = s.readlink(link) // for people
		return true
	})
	if !ok {
		t.fleeting = true
		return
	}
	t.user(described, detail, t.shown(shown))
}

// stray records a process that uses a file system which is mounted nowhere and may be a layer's.
func (s *scene) stray(p *process, link string) {
	var h handle
	described, ok := s.describe(p.pid, func() bool {
		var err error
		if h, err = s.handle(link); err != nil {
			return false
		}
		_, stray := s.match(p.ns, link, "", h)
		return stray
	})
	if !ok {
		return
	}
	shown, _ := s.readlink(link) // for people
	e := evidence(core.EvidenceProcess, "may use it: it uses files of a mount that is in no namespace", shown, &described)
	if s.devs[h.dev] {
		s.strays = append(s.strays, e)
	} else {
		s.overlayStrays = append(s.overlayStrays, e)
	}
}

// deep is the dear scan: every thread, open file and mapped file. It may be called once, on the host.
func (s *scene) deep(ctx context.Context) error {
	s.dear = true
	type hit struct {
		process *process
		link    string
		detail  string
		found   []*target
	}
	var (
		mu     sync.Mutex
		hits   []hit
		others []*process
		strays []hit
		failed = make(map[int]bool)
		pinned = make(map[uint64]string)
	)
	read := func(p *process) error {
		byThreads := s.scanThreads(p, func(thread *process) {
			mu.Lock()
			others = append(others, thread)
			mu.Unlock()
		})
		byFiles := s.scanFiles(p, func(f openFile) {
			found, stray := s.match(p.ns, f.link, "", f.handle)
			ns := s.pinnedBy(f.link, f)
			if len(found) == 0 && !stray && ns == 0 {
				return
			}
			detail := "open file in the container"
			if f.mapped {
				detail = "mapped file in the container"
			}
			mu.Lock()
			defer mu.Unlock()
			if ns != 0 {
				pinned[ns] = f.link
			}
			if len(found) > 0 {
				hits = append(hits, hit{p, f.link, detail, found})
			}
			if stray {
				strays = append(strays, hit{process: p, link: f.link})
			}
		})
		return errors.Join(byThreads, byFiles)
	}
	fail := func(p *process) {
		if s.ours(p.pid) {
			mu.Lock()
			failed[p.pid] = true
			mu.Unlock()
		}
	}
	look := func(p *process) (gone bool) {
		if p.self() || p.gone {
			return false
		}
		for range 3 {
			err := read(p)
			if !s.ended(p.dir) {
				if err != nil {
					fail(p)
				}
				return false
			}
			// Ended perhaps before all of its files were seen, or only the thread that was looked at has.
			rest := s.scanProcess(p.pid, 0)
			if rest.gone || rest.dir == p.dir {
				return true
			}
			p = &rest
		}
		fail(p)
		return true
	}
	if err := parallel(ctx, len(s.procs), s.onHost, func(k int) { look(&s.procs[k]) }); err != nil {
		return err
	}
	// From here on one goroutine.
	fresh, hasty, err := s.catchUp(ctx, s.procs, look)
	if err != nil {
		return err
	}
	s.hasty = hasty
	for _, p := range fresh {
		s.byPID[p.pid] = p
		s.matchLinks(p)
	}
	for _, thread := range others {
		if thread.unreadable {
			failed[thread.pid] = true
		}
		if !s.inMain(thread) {
			s.matchLinks(thread)
		}
	}
	for _, h := range hits {
		for _, t := range h.found {
			s.name(t, h.process, h.link, h.detail)
		}
	}
	for _, h := range strays {
		s.stray(h.process, h.link)
	}
	for pid := range failed {
		s.unreadable = append(s.unreadable, strconv.Itoa(pid))
	}
	for ns, link := range pinned {
		s.tables.hidden = append(s.tables.hidden,
			fmt.Sprintf("mount namespace %s, held by %s/%s, cannot be read", nsName(ns), s.procPath, link))
	}
	return nil
}

// inMain is whether a thread has the directories of its process's first thread.
func (s *scene) inMain(thread *process) bool {
	p := s.byPID[thread.pid]
	return p != nil && p.ns == thread.ns && p.links[0] == thread.links[0] && p.links[1] == thread.links[1] &&
		p.links[0].ino != 0 && p.links[1].ino != 0
}

// pinnedBy is the mount namespace that a descriptor keeps and that was not read; 0 where it is
// another thing.
func (s *scene) pinnedBy(link string, f openFile) uint64 {
	if f.mapped || s.tables.byInode[f.ino] != nil || f.ino < 0xE0000000 {
		return 0 // namespaces are numbered from the top
	}
	if s.mounts[f.mnt] != nil && s.mounts[f.mnt].fs != "nsfs" {
		return 0
	}
	name, err := s.readlink(link)
	if err != nil || errors.Is(err, unix.ENOENT) {
		return 0
	}
	return nsInode(name)
}
