package buildah

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// Stop ends what works in the containers, all of them side by side: SIGTERM, the grace period, then
// SIGKILL until nothing is left. Signals go to what runs inside, and to a buildah commit, add or
// copy. A buildah run is never signalled: it ends when its command does, and has mounts to clear
// away, for which Stop waits. A build whose step is ended fails, and as a rule removes its container
// itself: success.
//
// A container of unknown use is refused with core.ErrStillInUse, since there is nothing in it to
// stop. So is one in which something is left at the end.
func (p *Plugin) Stop(ctx context.Context, store core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome {
	outcomes := make([]core.Outcome, len(handles))
	containers := make([]core.Container, len(handles))
	for i, h := range handles {
		containers[i] = h.Container
	}
	w := &stopping{outcomes: outcomes, signalled: make(map[[2]uint64]unix.Signal),
		politely: time.Now().Add(grace), builds: make(map[core.ContainerID][]process), first: true}
	w.last = w.politely.Add(p.settle)
	for i, c := range containers {
		outcomes[i].Container = c.ID
		if !claimed(handles[i]) {
			outcomes[i].Err = errNotOurs
			continue
		}
		w.open = append(w.open, i)
	}
	for len(w.open) > 0 {
		open := make([]core.Container, len(w.open))
		for i, at := range w.open {
			open[i] = containers[at]
		}
		verdicts, err := p.judge(ctx, store, open)
		if err != nil {
			w.fail(fmt.Errorf("stop what works in the container: %w", err))
			break
		}
		w.round(open, verdicts)
		w.first = false
		if len(w.open) == 0 {
			break
		}
		if err := w.wait(ctx); err != nil {
			w.fail(fmt.Errorf("stop what works in the container: %w", err))
		}
	}
	return outcomes
}

// stopping is one call of Stop. It is used by one goroutine.
type stopping struct {
	// open are the indexes of the handles that are not settled yet.
	open     []int
	outcomes []core.Outcome
	first    bool
	// politely is the end of the grace period, last that of the whole wait.
	politely, last time.Time
	// signalled has what was sent to whom, by pid and start time.
	signalled map[[2]uint64]unix.Signal
	// builds are the builders that had something running in a container.
	builds map[core.ContainerID][]process
	// awaited are the processes whose end is news.
	awaited []process
}

// round settles what can be settled, and signals the rest.
func (w *stopping) round(containers []core.Container, verdicts []verdict) {
	var open []int
	w.awaited = nil
	for i, v := range verdicts {
		at := w.open[i]
		if done, err := w.settle(containers[i], v); done {
			w.outcomes[at].Err = err
			continue
		}
		open = append(open, at)
	}
	w.open = open
}

func (w *stopping) settle(c core.Container, v verdict) (done bool, err error) {
	if absent(c) {
		return true, nil
	}
	for _, t := range slices.Concat(v.inside, v.holds) {
		if t.actor != nil && t.actor.makes {
			w.builds[c.ID] = append(w.builds[c.ID], t.actor.process)
		}
	}
	late := !time.Now().Before(w.last)
	switch {
	case v.claim.Ownership != core.OwnershipMine && !w.first && !late:
		return false, nil // its record goes before its directory does
	case v.claim.Ownership != core.OwnershipMine:
		return true, fmt.Errorf("stop what works in container %s: it is not Buildah's any more: %w", c.ID.Short(), core.ErrNotOwner)
	case v.claim.Use == core.UseIdle:
		return true, nil
	case v.claim.Use == core.UseUnknown:
		if w.first {
			return true, stillInUse(c, v)
		}
		// What ran inside has ended. A build that it belonged to now fails and removes the container,
		// or goes on and starts the next step in it.
		alive := living(w.builds[c.ID])
		if len(alive) == 0 {
			return true, nil
		}
		if late {
			if v.onlyServices() {
				return true, nil // it outlives its builds, and nothing of this one is left running
			}
			return true, stillInUse(c, v)
		}
		w.awaited = append(w.awaited, alive...)
		return false, nil
	case late:
		return true, stillInUse(c, v)
	}
	w.end(v)
	return false, nil
}

// end signals what may be signalled. An error to send a signal shows in what is left at the end.
func (w *stopping) end(v verdict) {
	forcibly := !time.Now().Before(w.politely)
	inside := make(map[int]bool)
	for _, t := range v.inside {
		inside[t.pid] = !t.child
	}
	for _, t := range v.inside {
		w.awaited = append(w.awaited, t.process)
		switch {
		case t.child:
		case forcibly:
			w.send(t.process, unix.SIGKILL)
		case !inside[t.parent]: // a main process; the others are its own to end
			w.send(t.process, unix.SIGTERM)
		}
	}
	for _, t := range v.holds {
		w.awaited = append(w.awaited, t.process)
	}
	for _, a := range v.workers {
		w.awaited = append(w.awaited, a.process)
		if a.verb == "run" {
			continue
		}
		if forcibly {
			w.send(a.process, unix.SIGKILL)
		} else {
			w.send(a.process, unix.SIGTERM)
		}
	}
}

// send signals a process, the same signal once only.
func (w *stopping) send(p process, sig unix.Signal) {
	key := [2]uint64{uint64(p.pid), p.start}
	if w.signalled[key] == sig {
		return
	}
	if p.signal(sig) == nil {
		w.signalled[key] = sig
	}
}

// wait passes the time until there may be news: a process has ended, or the next deadline has come.
func (w *stopping) wait(ctx context.Context) error {
	now := time.Now()
	next := 500 * time.Millisecond // a new process may turn up in the container
	for _, deadline := range []time.Time{w.politely, w.last} {
		if d := deadline.Sub(now); d > 0 {
			next = min(next, d)
		}
	}
	if err := awaitEnd(ctx, w.awaited, next); err != nil {
		return err
	}
	// What ends often ends in company; one look for all of it.
	if spent := time.Since(now); spent < 50*time.Millisecond {
		return awaitEnd(ctx, nil, 50*time.Millisecond-spent)
	}
	return ctx.Err()
}

func (w *stopping) fail(err error) {
	for _, at := range w.open {
		w.outcomes[at].Err = err
	}
	w.open = nil
}

// absent is whether the store has dropped the container, directory and all.
func absent(c core.Container) bool {
	if c.Directory == "" {
		return false
	}
	_, err := os.Lstat(c.Directory)
	return errors.Is(err, fs.ErrNotExist)
}

// living are the distinct processes that are still there.
func living(all []process) []process {
	var alive []process
	seen := make(map[int]bool)
	for _, p := range all {
		now, err := readStat(p.pid)
		if !seen[p.pid] && (err != nil && !gone(err) || err == nil && now.start == p.start && !now.dead()) {
			seen[p.pid] = true
			alive = append(alive, p)
		}
	}
	return alive
}

// onlyServices is whether all that may use the container are services, which live on after a build.
func (v verdict) onlyServices() bool {
	return !slices.ContainsFunc(v.makers, func(a *actor) bool { return a.verb != "system service" })
}

// stillInUse says who has the container.
func stillInUse(c core.Container, v verdict) error {
	var who []string
	for _, e := range v.claim.Evidence {
		if e.Process != nil && len(who) < 5 {
			who = append(who, fmt.Sprintf("pid %d (%s): %s", e.Process.PID, e.Process.Command, e.Detail))
		}
	}
	return fmt.Errorf("container %s of Buildah is %w: %s", c.ID.Short(), core.ErrStillInUse, strings.Join(who, "; "))
}
