package kernel

import (
	"context"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// dyingTime is how long a look waits, in all, for processes that are about to end.
const dyingTime = time.Second

// Flags of a process that is about to end (Linux, include/linux/sched.h).
const (
	flagExiting  = 0x4   // PF_EXITING
	flagSignaled = 0x400 // PF_SIGNALED: killed by a signal
)

// dying lists the users that are about to end, whatever becomes of them.
func (s *scene) dying() []core.Process {
	var all []core.Evidence
	for _, t := range s.targets {
		all = append(all, t.users...)
	}
	var dying []core.Process
	for _, p := range core.Processes(all) {
		if s.isDying(p.PID) {
			dying = append(dying, p)
		}
	}
	return dying
}

// isDying is whether a process has ended, or all of its threads that have not are on their way out or
// have SIGKILL to take.
func (i *Inspector) isDying(pid int) bool {
	dir := strconv.Itoa(pid) + "/task/"
	tasks, err := i.names(dir)
	if err != nil {
		return vanished(err)
	}
	for _, task := range tasks {
		b, err := i.read(dir + task + "/stat")
		if vanished(err) {
			continue
		}
		if err != nil {
			return false
		}
		s, err := parseStat(b)
		if err != nil {
			return false
		}
		if s.ended() || s.flags&(flagExiting|flagSignaled) != 0 {
			continue
		}
		b, err = i.read(dir + task + "/status")
		if err != nil && !vanished(err) || err == nil && !parseKilled(b) {
			return false
		}
	}
	return true
}

// parseKilled is whether /proc/PID/status says that SIGKILL is pending.
func parseKilled(b []byte) bool {
	for _, name := range []string{"SigPnd", "ShdPnd"} {
		if pending, ok := statusMask(b, name); ok && pending&(1<<(unix.SIGKILL-1)) != 0 {
			return true
		}
	}
	return false
}

// outlive waits until the processes have ended or the time is up. ended is whether one of them has: then
// another look sees more.
func (i *Inspector) outlive(ctx context.Context, processes []core.Process, end time.Time) (ended bool, err error) {
	var opened []victim
	defer func() {
		for _, v := range opened {
			unix.Close(v.pidfd)
		}
	}()
	for _, p := range processes {
		fd, err := i.pin(p)
		switch {
		case err != nil: // pid 1, say: the look stands
		case fd < 0:
			ended = true
		default:
			opened = append(opened, victim{p, fd})
		}
	}
	left := opened
	for len(left) > 0 && time.Now().Before(end) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if left, err = alive(left, min(time.Until(end), 20*time.Millisecond)); err != nil {
			return false, err
		}
	}
	return ended || len(left) < len(opened), nil
}
