package kernel

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
)

var _ core.Kernel = (*Inspector)(nil)

// Observe says who uses the layers, all of them in one scan; doc.go says what the answers mean. The
// error means that nothing could be found out: the processes or pid 1's mounts cannot be read, or
// ctx has ended.
func (i *Inspector) Observe(ctx context.Context, layers []core.Layer) (map[core.LayerID]core.Observation, error) {
	s, err := i.look(ctx, layers, toObserve)
	if err != nil {
		return nil, err
	}
	all := make(map[core.LayerID]core.Observation, len(layers))
	for _, t := range s.targets {
		all[t.layer.ID] = s.observation(t)
	}
	return all, nil
}

// purpose is what a look is for.
type purpose int

const (
	toObserve purpose = iota
	// toRelease comes before the unmounting, and what is mounted now is proved with the probe
	// afterwards: the dear scan is for those layers alone whose mounts are busy.
	toRelease
	// toProve comes after it.
	toProve
)

// look scans, and once more where it met what may have been passing: a container that starts or ends
// while we look has mounts that are in no namespace yet, or no more. Where it named a process that is about
// to end, it waits for that and looks anew.
func (i *Inspector) look(ctx context.Context, layers []core.Layer, aim purpose) (*scene, error) {
	const most = 3
	end := time.Now().Add(dyingTime)
	for n := 1; ; {
		s, err := i.lookOnce(ctx, layers, aim)
		if err != nil {
			return nil, err
		}
		if ended, err := i.outlive(ctx, s.dying(), end); err != nil {
			return nil, err
		} else if ended && time.Now().Before(end) {
			continue
		}
		if n == most || !s.wavers() {
			return s, nil
		}
		// Time for what was passing to pass.
		if err := sleep(ctx, time.Duration(n)*10*time.Millisecond); err != nil {
			return nil, err
		}
		n++
	}
}

// wavers is whether a layer's verdict hangs on a process that may have been passing.
func (s *scene) wavers() bool {
	if s.moved {
		return true
	}
	passing := s.hasty || len(s.strays)+len(s.overlayStrays)+len(s.unreadable)+len(s.tables.hidden) > 0
	for _, t := range s.targets {
		if t.decided() {
			continue
		}
		if t.fleeting || passing && len(t.holders) > 0 && t.place != (location{}) {
			return true
		}
	}
	return false
}

// lookOnce scans. The processes are read before the mounts, so that a mount that a process has just
// entered is not missed; what proves idleness (the probe, MNT_EXPIRE) comes last.
func (i *Inspector) lookOnce(ctx context.Context, layers []core.Layer, aim purpose) (*scene, error) {
	procs, hasty, err := i.scanProcesses(ctx)
	if err != nil {
		return nil, err
	}
	t, err := i.readTables(procs)
	if err != nil {
		return nil, err
	}
	s := i.newScene(t, procs, layers)
	s.hasty = hasty
	s.foundations(aim)
	// Paths of links are told from the root of the one who asks.
	if err := i.onHost(func() error { s.cheap(); return nil }); err != nil {
		return nil, err
	}
	for _, t := range s.targets {
		s.residents(t)
	}
	asked := s.probes(false)
	if s.wantsDeep(aim) || asked < 0 {
		if err := s.onHost(func() error { return s.deep(ctx) }); err != nil {
			return nil, err
		}
	}
	if asked < 0 && len(s.overlayStrays)+len(s.unreadable)+len(s.tables.hidden) > 0 {
		s.probes(true)
	}
	if err := s.awaitEnds(ctx); err != nil {
		return nil, err
	}
	for _, t := range s.targets {
		if !t.decided() {
			s.expireAll(t)
			s.doubts(t)
		}
	}
	return s, ctx.Err()
}

// probes asks for each writable overlay layer that is mounted nowhere whether its superblock lives.
// A probe costs the kernel about a millisecond and a line in its log. Where that comes to more than
// a dear scan of all processes, it answers -1 and asks nothing unless it must: then the dear scan
// looks for processes on overlays that are mounted nowhere, and Release probes anyhow.
func (s *scene) probes(must bool) (asked int) {
	var ask []*target
	for _, t := range s.targets {
		if t.overlay() && t.inode != 0 && !t.decided() && len(t.holders) == 0 && !t.mounted() {
			ask = append(ask, t)
		}
	}
	const fewest = 4
	if !must && s.blind == "" && len(ask) > fewest && len(ask) > len(s.procs)/4 {
		return -1
	}
	for _, t := range ask {
		var err error
		if t.life, err = s.life(t.files()); err != nil {
			t.hold(core.EvidenceProbe, t.layer.UpperDir, "%v", err)
		}
	}
	return len(ask)
}

// awaitEnds gives superblocks that nobody is seen to hold the time to shut down: whoever let go of one may
// be at it still.
func (s *scene) awaitEnds(ctx context.Context) error {
	end := time.Now().Add(endTime)
	for _, t := range s.targets {
		if t.life != lifeLive || t.mounted() || t.decided() || len(t.holders) > 0 {
			continue
		}
		life, err := s.await(ctx, t, time.Until(end))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			t.hold(core.EvidenceProbe, t.layer.UpperDir, "%v", err)
			continue
		}
		t.life = life
	}
	return nil
}

// endTime is how long superblocks may take to shut down, in all.
const endTime = 250 * time.Millisecond

// wantsDeep is whether a layer's use is open that only the dear scan can tell.
func (s *scene) wantsDeep(aim purpose) bool {
	for _, t := range s.targets {
		if t.decided() || len(t.holders) > 0 && t.place == (location{}) {
			continue
		}
		if aim == toRelease && !t.scanOnly() && t.mounted() {
			s.expireAll(t)
			if len(t.holders) == 0 {
				continue
			}
		}
		if t.alive() || len(t.holders) > 0 || t.scanOnly() && t.inode != 0 {
			return true
		}
	}
	return false
}

// residents names the processes of a mount namespace that has the layer mounted elsewhere than in
// the layer's directory: a bind mount of one file, say. What another namespace merely inherited from
// the host is left out.
func (s *scene) residents(t *target) {
	for _, p := range t.mounts {
		if p.below || p.foreign {
			continue
		}
		m := p.mount
		if p.ns.inode == s.host || p.ns.inode == s.own {
			t.hold(core.EvidenceMount, m.point, "it is also mounted at %s, outside of its directory; unmount it there", m.point)
			continue
		}
		if s.inherited(m) {
			continue
		}
		before := len(t.users)
		for _, in := range p.ns.processes {
			described, ok := s.describe(in.pid, func() bool {
				link, err := s.readlink(in.dir + "/ns/mnt")
				return err == nil && nsInode(link) == p.ns.inode
			})
			if !ok {
				t.fleeting = true
				continue
			}
			t.user(described, "runs in a mount namespace with the container mounted in it", m.point)
		}
		if len(t.users) == before {
			t.hold(core.EvidenceMount, m.point, "it is mounted at %s in mount namespace %s, which is kept without a process in it",
				m.point, nsName(p.ns.inode))
		}
	}
}

// inherited is whether the host has the very same mount.
func (s *scene) inherited(m *mount) bool {
	host := s.tables.byInode[s.host]
	for k := range host.mounts {
		if h := &host.mounts[k]; h.dev == m.dev && h.root == m.root && h.point == m.point {
			return true
		}
	}
	return false
}

// doubts says what keeps a layer from being called idle that no process is named for.
func (s *scene) doubts(t *target) {
	if t.fleeting {
		t.hold(core.EvidenceProbe, "", "processes that use it come and go faster than they can be named")
	}
	byScan := t.scanOnly() && t.inode != 0
	if !t.alive() && !byScan && len(t.holders) == 0 {
		return
	}
	unmounted := t.life == lifeLive && !t.mounted()
	if unmounted {
		t.hold(core.EvidenceProbe, t.layer.UpperDir, "a superblock of it lives that is mounted in no reachable mount namespace")
	}
	if t.server != 0 && !t.mounted() {
		t.hold(core.EvidenceProbe, t.layer.UpperDir, "process %d serves it through FUSE to a mount in no reachable mount namespace", t.server)
	}
	if byScan {
		t.holders = append(t.holders, s.strays...)
	}
	if unmounted {
		t.holders = append(t.holders, s.overlayStrays...)
	}
	if s.hasty && t.scanOnly() {
		t.hold(core.EvidenceProbe, "", "processes come faster than they can be looked at")
	}
	if len(s.unreadable) > 0 && !s.private(t) {
		t.hold(core.EvidenceProbe, "", "%d processes may use it and cannot be looked into (pid %s)",
			len(s.unreadable), strings.Join(s.unreadable[:min(len(s.unreadable), 8)], ", "))
	}
	for _, hidden := range s.tables.hidden {
		t.hold(core.EvidenceProbe, "", "%s", hidden)
	}
	if s.blind != "" && (!s.hidepid || !s.private(t)) {
		t.hold(core.EvidenceProbe, "", "%s", s.blind)
	}
}

// private is whether it is a layer of an ordinary user's image that is mounted nowhere. The user's
// processes outside of our user namespace can never be looked into: to heed them would keep every image
// for ever. What they could have of it is a descriptor of a mount that is in no namespace.
func (s *scene) private(t *target) bool {
	return s.rootless && t.lower() && !t.alive() && len(t.mounts) == 0
}

// observation is the word about one layer.
func (s *scene) observation(t *target) core.Observation {
	mounts := s.mountEvidence(t)
	switch {
	case t.self:
		return core.Observation{Use: core.UseUnknown, Evidence: slices.Concat(t.holders, t.users, mounts), Advice: s.advice(t)}
	case len(t.users) > 0:
		return core.Observation{Use: core.UseInUse, Evidence: append(t.users, mounts...)}
	case len(t.holders) > 0:
		return core.Observation{Use: core.UseUnknown, Evidence: append(t.holders, mounts...), Advice: s.advice(t)}
	}
	return core.Observation{Use: core.UseIdle, Evidence: mounts}
}

// advice is what an operator can do about what could not be found out.
func (s *scene) advice(t *target) string {
	switch {
	case t.self:
		return "change directory, out of the container, then try again"
	case s.blind != "":
		return "run unmoor on the host, or set [store] all_processes_here = true in config.toml where nothing outside of here uses the store"
	case len(s.unreadable)+len(s.tables.hidden) > 0:
		return "run unmoor as root in the host's mount namespace, so that it can look into every process and mount"
	}
	return "unmount or close what holds it, then try again"
}

// mountEvidence lists the mounts at and below the layer's directory: those of the host one by one,
// the copies in other namespaces in one line.
func (s *scene) mountEvidence(t *target) []core.Evidence {
	var all []core.Evidence
	copies := make(map[uint64]bool)
	for _, p := range t.mounts {
		switch {
		case p.ns.inode != s.host && p.ns.inode != s.own:
			if !p.foreign {
				copies[p.ns.inode] = true
			}
		case p.ns.inode != s.host && s.inherited(p.mount):
		case p.foreign:
			all = append(all, evidence(core.EvidenceForeignMount, "another file system is mounted below it", t.shown(p.mount.point), nil))
		case p.below:
			all = append(all, evidence(core.EvidenceMount, "mounted", t.shown(p.mount.point), nil))
		}
	}
	if len(copies) > 0 {
		all = append(all, evidence(core.EvidenceMount,
			fmt.Sprintf("mounted in %s too", others(len(copies))), t.layer.MountPoint, nil))
	}
	return all
}

func others(n int) string {
	if n == 1 {
		return "one other mount namespace"
	}
	return fmt.Sprintf("%d other mount namespaces", n)
}
