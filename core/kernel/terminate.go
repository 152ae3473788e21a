package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// killWait is how long a process may take to die of SIGKILL: one that the kernel holds in a system
// call does not.
const killWait = 5 * time.Second

// victim is a process that is to end.
type victim struct {
	core.Process
	pidfd int
}

// Terminate ends processes, all of them at once: SIGTERM, SIGKILL after the grace period, and waits
// until they are gone. What has ended meanwhile is a success, and so is a pid that is another
// process's by now. It signals none of them if it may not signal one: pid 1, a kernel thread, Unmoor
// itself, or a process without a start time. Where ctx ends, nothing more is signalled.
func (i *Inspector) Terminate(ctx context.Context, processes []core.Process, grace time.Duration) error {
	var victims []victim
	defer func() {
		for _, v := range victims {
			unix.Close(v.pidfd)
		}
	}()
	for _, p := range processes {
		fd, err := i.pin(p)
		if err != nil {
			return fmt.Errorf("end process %d (%s): %w", p.PID, p.Command, err)
		}
		if fd >= 0 {
			victims = append(victims, victim{p, fd})
		}
	}
	left, err := signalAll(ctx, victims, unix.SIGTERM, grace)
	if err != nil || len(left) == 0 {
		return err
	}
	left, err = signalAll(ctx, left, unix.SIGKILL, killWait)
	if err != nil || len(left) == 0 {
		return err
	}
	return fmt.Errorf("still there after SIGKILL: %s", names(left))
}

// pin opens a process so that its pid can be no other's; -1 where it has ended.
func (i *Inspector) pin(p core.Process) (int, error) {
	switch {
	case p.PID <= 1:
		return -1, errors.New("it is the init process")
	case p.PID == os.Getpid():
		return -1, errors.New("it is unmoor itself")
	case p.StartTime == 0:
		return -1, errors.New("its start time is not known, so another process may have its pid")
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	// Read after the opening: a start time that fits is that of the process which the pidfd names.
	s, err := i.stat(p.PID)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || (err == nil && s.startTime != p.StartTime):
		unix.Close(fd)
		return -1, nil
	case err != nil:
		unix.Close(fd)
		return -1, err
	case s.flags&kernelThread != 0:
		unix.Close(fd)
		return -1, errors.New("it is a kernel thread")
	}
	return fd, nil
}

// signalAll signals the processes and waits until they are gone or the time is up. It returns those
// that are left.
func signalAll(ctx context.Context, victims []victim, signal unix.Signal, most time.Duration) ([]victim, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("end %s: %w", names(victims), err)
	}
	for _, v := range victims {
		err := unix.PidfdSendSignal(v.pidfd, signal, nil, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("send %s to process %d (%s): %w", unix.SignalName(signal), v.PID, v.Command, err)
		}
	}
	end := time.Now().Add(most)
	for {
		left, err := alive(victims, min(time.Until(end), 100*time.Millisecond))
		if err != nil || len(left) == 0 {
			return nil, err
		}
		victims = left
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("wait for %s: %w", names(left), err)
		}
		if !time.Now().Before(end) {
			return left, nil
		}
	}
}

// alive waits until a process ends, or for a while, and returns those that have not.
func alive(victims []victim, most time.Duration) ([]victim, error) {
	if len(victims) == 0 {
		return nil, nil
	}
	fds := make([]unix.PollFd, len(victims))
	for k, v := range victims {
		fds[k] = unix.PollFd{Fd: int32(v.pidfd), Events: unix.POLLIN}
	}
	ms := max(0, int((most + time.Millisecond - 1).Milliseconds()))
	if _, err := unix.Poll(fds, ms); err != nil && !errors.Is(err, unix.EINTR) {
		return nil, fmt.Errorf("wait for processes: %w", err)
	}
	var left []victim
	for k, v := range victims {
		if fds[k].Revents == 0 {
			left = append(left, v)
		}
	}
	return left, nil
}

func names(victims []victim) string {
	all := make([]string, len(victims))
	for k, v := range victims {
		all[k] = fmt.Sprintf("process %d (%s)", v.PID, v.Command)
	}
	return strings.Join(all, ", ")
}
