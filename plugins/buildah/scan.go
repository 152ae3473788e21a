package buildah

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
)

// actor is a buildah or podman process that makes working containers or works in them.
type actor struct {
	process
	invocation
	// certain is whether it works on the store without a doubt.
	certain bool
}

// word is the command that the process runs, for people.
func (a *actor) word() string {
	if a.verb == "" {
		return a.comm
	}
	return a.verb
}

// tenant is a process in a container, or one that has it mounted to start such a process.
type tenant struct {
	process
	// actor is the one that started it, nil where that has ended.
	actor *actor
	// child is whether it is Buildah's own, there to start and clear away the others.
	child bool
}

// scan is what one look at all processes found on one store. It is used by one goroutine.
type scan struct {
	at, boot time.Time
	hostNS   string
	actors   []*actor
	// inside and holds are by layer, in the order of pids.
	inside, holds map[core.LayerID][]tenant
	// described are the processes that were shown already, by pid and start time: a builder is
	// evidence for many containers.
	described map[[2]uint64]core.Process
}

// look goes through the processes once. It costs a readlink a process, and more only where a
// builder or something that one started is there.
func (p *Plugin) look(store core.StoreInfo, containers []core.Container) (*scan, error) {
	boot, err := bootTime()
	if err != nil {
		return nil, err
	}
	all, err := pids()
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	s := &scan{
		at: time.Now(), boot: boot, hostNS: hostNamespace(),
		inside: make(map[core.LayerID][]tenant), holds: make(map[core.LayerID][]tenant),
		described: make(map[[2]uint64]core.Process),
	}
	byPID := make(map[int]*actor)
	fs, err := openProcfs()
	if err != nil {
		return nil, err
	}
	defer fs.close()
	roots := make(map[int]bool) // whose descendants may be in containers
	to := newTarget(store)
	for _, pid := range all {
		program, is := p.engine(fs, pid)
		if !is {
			continue
		}
		a, alive, err := p.actor(pid, program)
		if err != nil {
			return nil, err
		}
		if !alive {
			continue
		}
		if a.child {
			roots[pid] = true
		}
		if (a.makes || len(a.named) > 0 || len(a.mentioned) > 0) && to.mayBe(pid, a.invocation) {
			a.certain = len(a.named) > 0 && to.certain(pid, a.invocation)
			s.actors = append(s.actors, a)
			byPID[pid], roots[pid] = a, true
		}
	}
	for _, pid := range runtimePIDs(p.runtimes) {
		if seen, err := fs.stat(pid); err == nil && !seen.dead() {
			roots[pid] = true
		}
	}
	if len(roots) > 0 {
		s.tenants(fs, all, roots, byPID, newLayers(containers))
	}
	return s, nil
}

// engine is whether the program of a process is one that may make working containers, and its file
// name. Where the program may not be read, its own word for itself counts.
func (p *Plugin) engine(fs *procfs, pid int) (string, bool) {
	if pid == os.Getpid() {
		return "", false
	}
	link, err := fs.exe(pid)
	if gone(err) { // a kernel thread, or ended
		return "", false
	}
	if err == nil && !bytes.Contains(link, []byte("buildah")) && !bytes.Contains(link, []byte("podman")) && len(p.builders) == 0 {
		return "", false
	}
	name := strings.TrimSuffix(string(link), " (deleted)")
	if err != nil {
		args, err := readArgs(pid)
		if err != nil || len(args) == 0 {
			return "", false
		}
		name = args[0]
	}
	// Buildah and the storage library run copies of themselves from memory.
	name = strings.TrimPrefix(filepath.Base(name), "memfd:")
	return name, strings.Contains(name, "buildah") || strings.Contains(name, "podman") ||
		slices.Contains(p.builders, name)
}

// actor reads what an engine's process is about.
func (p *Plugin) actor(pid int, program string) (*actor, bool, error) {
	seen, err := readProcess(pid)
	// One that is being started or ends has no arguments for a moment.
	for tries := 0; tries < 10 && err == nil && !seen.dead() && len(seen.argv) == 0; tries++ {
		time.Sleep(10 * time.Millisecond)
		seen, err = readProcess(pid)
	}
	if err != nil && !gone(err) {
		return nil, false, fmt.Errorf("look at pid %d: %w", pid, err)
	}
	// The pause process of rootless Podman keeps the arguments of the command that left it behind
	// (containers/podman, pkg/rootless/rootless_linux.c, create_pause_process).
	if seen.dead() || err != nil || seen.comm == "podman pause" {
		return nil, false, nil //nolint:nilerr // It has ended.
	}
	a := &actor{process: seen}
	if slices.Contains(p.builders, program) {
		a.invocation = invocation{verb: program, makes: true}
	} else {
		a.invocation = parseInvocation(program, seen.argv)
	}
	return a, true, nil
}

// readProcess is readStat with the arguments.
func readProcess(pid int) (process, error) {
	seen, err := readStat(pid)
	if err == nil {
		seen.argv, err = readArgs(pid)
	}
	return seen, err
}

// tenants finds the processes at or below the roots that live in one of the layers or hold it
// mounted.
func (s *scan) tenants(fs *procfs, all []int, roots map[int]bool, actors map[int]*actor, known *layers) {
	seen := fs.below(all, roots, actors)
	family := slices.Sorted(maps.Keys(seen))
	type view struct{ ns, root string }
	views := make(map[view][]mount)
	where := make(map[int]view)
	for _, pid := range family {
		ns, err := os.Readlink(proc(pid, "ns/mnt"))
		if err != nil || ns == s.hostNS {
			continue
		}
		root, err := os.Readlink(proc(pid, "root"))
		if err != nil {
			continue
		}
		v := view{ns, root}
		if _, done := views[v]; !done {
			b, err := os.ReadFile(proc(pid, "mountinfo"))
			if err != nil {
				continue
			}
			views[v] = parseMountinfo(string(b))
		}
		where[pid] = v
	}
	if len(where) == 0 {
		return
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		known.learn(parseMountinfo(string(b)))
	}
	for _, mounts := range views {
		known.learn(mounts)
	}
	type uses struct{ inside, holds map[core.LayerID]bool }
	used := make(map[view]uses, len(views))
	for v, mounts := range views {
		inside, holds := known.uses(mounts)
		used[v] = uses{inside, holds}
	}
	for _, pid := range family {
		v, ok := where[pid]
		if !ok || actors[pid] != nil {
			continue
		}
		t := seen[pid]
		t.argv, _ = readArgs(pid) // only shown
		t.child = len(t.argv) > 0 && slices.Contains(children, filepath.Base(t.argv[0]))
		for id := range used[v].inside {
			s.inside[id] = append(s.inside[id], t)
		}
		for id := range used[v].holds {
			s.holds[id] = append(s.holds[id], t)
		}
	}
}

// slack is how far a builder's start may lie after the container's creation, by the wall clock, and
// the builder still count as the earlier one.
const slack = 2 * time.Second

// makers are the live builders that may have made the container: those that live since before it was
// made, and, where it is mounted by the store's count, all of them. The start of a process is known
// since boot and the container's creation by the wall clock, so that a clock which was set forward
// meanwhile, by NTP or in a virtual machine that was resumed, makes a builder look younger than what
// it builds with. A build has its container mounted from the first step to the last (containers/buildah
// v1.28.2 and v1.39.3, imagebuildah/stage_executor.go, prepare), and the count is free of clocks.
func (s *scan) makers(c core.Container) []*actor {
	var found []*actor
	for _, a := range s.actors {
		if a.makes && (c.Layer.MountCount > 0 || s.older(a, c)) {
			found = append(found, a)
		}
	}
	return found
}

// older is whether a builder lives since before the container was made, as far as the clocks tell.
func (s *scan) older(a *actor, c core.Container) bool {
	return c.Created.IsZero() || !a.started(s.boot).After(c.Created.Add(slack))
}

// workers are the processes that work in the container by their command line, and those that may: for
// one, since their store may be another one, with a container of the same name.
func (s *scan) workers(c core.Container, taken func(name string) bool) (sure, perhaps []*actor) {
	for _, a := range s.actors {
		switch {
		case a.certain && slices.ContainsFunc(a.named, func(w string) bool { return isName(c, w, taken, 12) }):
			sure = append(sure, a)
		case slices.ContainsFunc(a.named, func(w string) bool { return isName(c, w, taken, 1) }),
			slices.ContainsFunc(a.mentioned, func(w string) bool { return isName(c, w, taken, 3) }):
			perhaps = append(perhaps, a)
		}
	}
	return sure, perhaps
}

// isName is whether a word means the container, as the store looks names up: a name, an ID, else a
// prefix of an ID, here of at least atLeast digits.
func isName(c core.Container, word string, taken func(string) bool, atLeast int) bool {
	if word == string(c.ID) || slices.Contains(c.Names, word) {
		return true
	}
	return len(word) >= atLeast && strings.HasPrefix(string(c.ID), word) && !taken(word)
}
