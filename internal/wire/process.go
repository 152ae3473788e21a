package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long a process may take to end once its socket is closed, and after SIGTERM.
const (
	byItself = 200 * time.Millisecond
	endGrace = 5 * time.Second
)

// process is one that a client's connection leads to.
type process struct {
	cmd    *exec.Cmd
	name   string
	served bool // it is itself the service, and not on the way to it
	grace  time.Duration
	exited chan struct{}
	err    error // of its exit, once exited is closed
}

// start runs it with one end of a socket pair. It belongs to the connection from then on.
func (p *process) start(ctx context.Context, o DialOptions, hand func(*os.File)) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "varlink"), os.NewFile(uintptr(pair[1]), "varlink")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	hand(theirs)
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p.grace, p.exited = endGrace, make(chan struct{})
	go p.wait()
	c := NewConn(conn, o)
	c.process = p
	return c, nil
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.exited)
}

// end ends it, if it does not by itself now that its socket is closed.
func (p *process) end() {
	for _, next := range []struct {
		after  time.Duration
		signal syscall.Signal
	}{{byItself, unix.SIGTERM}, {p.grace, unix.SIGKILL}} {
		timer := time.NewTimer(next.after)
		select {
		case <-p.exited:
			timer.Stop()
			return
		case <-timer.C:
			_ = p.cmd.Process.Signal(next.signal) // an error says that it has ended
		}
	}
}

// fate says what became of it, after it closed its socket.
func (p *process) fate() string {
	timer := time.NewTimer(byItself)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		return p.name + " closed its socket"
	}
	if p.err != nil {
		return fmt.Sprintf("%s: %v", p.name, p.err)
	}
	return p.name + " ended"
}

// peer is the process as we started it.
func (p *process) peer() (Peer, error) {
	if !p.served {
		return Peer{}, fmt.Errorf("read the peer's credentials: it is behind %s", p.name)
	}
	groups, err := os.Getgroups()
	if err != nil {
		return Peer{}, fmt.Errorf("read the peer's credentials: %w", err)
	}
	return Peer{PID: p.cmd.Process.Pid, UID: os.Geteuid(), GID: os.Getegid(), Groups: groups}, nil
}
