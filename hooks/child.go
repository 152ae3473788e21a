package hooks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/internal/wire"
)

// endGrace is how long a plugin's process has to end after SIGTERM.
var endGrace = 10 * time.Second

// outputGrace is how long its output is waited for once it has ended.
const outputGrace = time.Second

// child is a plugin that we start. It runs from the first call on, and is started again by the next one
// after it has ended.
type child struct {
	name    string
	command []string
	log     *slog.Logger

	mu      sync.Mutex
	process *process
	ended   bool
}

// process is one run of a child. Nobody else can connect to it: its socket has no name any more.
type process struct {
	cmd *exec.Cmd
	// use is held while the socket is used, since its descriptor must not be another one's then.
	use    sync.RWMutex
	socket *os.File // of O_PATH; nil once it has ended
	exited chan struct{}
	// silent is closed once all that it wrote is read, of which last is the last line.
	silent chan struct{}
	last   string
}

// dial connects to the process, and starts one where there is none.
func (c *child) dial(ctx context.Context, o wire.DialOptions) (*wire.Conn, error) {
	p, err := c.run()
	if err != nil {
		return nil, err
	}
	p.use.RLock()
	defer p.use.RUnlock()
	if p.socket == nil {
		return nil, p.how()
	}
	return wire.Dial(ctx, fmt.Sprintf("unix:/proc/self/fd/%d", p.socket.Fd()), o)
}

func (c *child) run() (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil, errors.New("its command was ended, as we end")
	}
	if c.process != nil {
		select {
		case <-c.process.exited:
		default:
			return c.process, nil
		}
	}
	p, err := c.start()
	if err != nil {
		return nil, fmt.Errorf("start its command %s: %w", strings.Join(c.command, " "), err)
	}
	c.process = p
	return p, nil
}

func (c *child) start() (*process, error) {
	path, err := exec.LookPath(c.command[0])
	if err != nil {
		return nil, err
	}
	ours, theirs, err := namelessSocket()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	out, in, err := os.Pipe()
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer in.Close()
	// LISTEN_PID can only be known once the process is there, so a shell sets it.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, path}, c.command[1:]...)...)
	cmd.Env = append(inherited(), "LISTEN_FDS=1", "LISTEN_FDNAMES=varlink")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = in, in
	cmd.Dir = "/"
	// A group of its own, so that what a terminal sends to us is not sent to it; and where we are killed
	// it is asked to end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p := &process{cmd: cmd, socket: ours, exited: make(chan struct{}), silent: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The death of a parent is that of the thread that made the child (prctl(2), PR_SET_PDEATHSIG).
		// This one ends with the goroutine, since it stays locked.
		runtime.LockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		p.wait(out)
	}()
	if err := <-started; err != nil {
		ours.Close()
		out.Close()
		return nil, err
	}
	go func() {
		p.last = c.relay(out)
		close(p.silent)
	}()
	return p, nil
}

// inherited is our environment without what a service manager meant for us.
func inherited() []string {
	var env []string
	for _, v := range os.Environ() {
		switch name, _, _ := strings.Cut(v, "="); {
		case strings.HasPrefix(name, "LISTEN_"), name == "NOTIFY_SOCKET", name == "WATCHDOG_USEC", name == "WATCHDOG_PID":
		default:
			env = append(env, v)
		}
	}
	return env
}

// namelessSocket is a listening socket that nobody can find: ours leads to it, theirs listens.
func namelessSocket() (ours, theirs *os.File, err error) {
	directory, err := os.MkdirTemp("", "unmoor-plugin-")
	if err != nil {
		return nil, nil, err
	}
	ours, theirs, err = listenIn(directory)
	if removed := os.RemoveAll(directory); err == nil && removed != nil {
		ours.Close()
		theirs.Close()
		err = removed
	}
	return ours, theirs, err
}

func listenIn(directory string) (ours, theirs *os.File, err error) {
	// Through a descriptor, since a socket's path must be short.
	d, err := os.Open(directory)
	if err != nil {
		return nil, nil, err
	}
	defer d.Close()
	socket := fmt.Sprintf("/proc/self/fd/%d/socket", d.Fd())
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	theirs = os.NewFile(uintptr(fd), "socket")
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: socket}); err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("listen on a socket in %s: %w", directory, err)
	}
	fd, err = unix.Open(socket, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return os.NewFile(uintptr(fd), "socket"), theirs, nil
}

// wait waits until the process has ended.
func (p *process) wait(out *os.File) {
	_ = p.cmd.Wait() // the state says how it ended
	p.use.Lock()
	p.socket.Close()
	p.socket = nil
	p.use.Unlock()
	close(p.exited)
	// What it has started may hold on to its output.
	if err := out.SetReadDeadline(time.Now().Add(outputGrace)); err != nil {
		out.Close() // then it is not waited for
	}
}

// how says how it ended.
func (p *process) how() error {
	<-p.exited
	<-p.silent
	state := p.cmd.ProcessState.String()
	if p.last == "" {
		return fmt.Errorf("its command has ended: %s", state)
	}
	return fmt.Errorf("its command has ended: %s: %s", state, p.last)
}

// explain says how the process ended that closed a connection, nil where it did not end.
func (c *child) explain() error {
	c.mu.Lock()
	p := c.process
	c.mu.Unlock()
	if p == nil {
		return nil
	}
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-p.exited:
		return p.how()
	case <-timer.C:
		return nil
	}
}

// What is logged of a child's output at most.
const (
	maxLine        = 1 << 10
	linesAtOnce    = 100
	linesPerSecond = 10
)

// relay logs what the process writes, as much of it as is fit to be read, until all ends of it are closed,
// and returns the last line.
func (c *child) relay(out *os.File) (last string) {
	defer out.Close()
	lines := bufio.NewReaderSize(out, maxLine)
	left, since, dropped := linesAtOnce, time.Now(), 0
	for {
		line, cut, err := lines.ReadLine()
		for tail := cut; tail && err == nil; {
			_, tail, err = lines.ReadLine()
		}
		if text := strings.ToValidUTF8(strings.TrimSpace(string(line)), "?"); text != "" {
			last = text
			if more := int(time.Since(since).Seconds() * linesPerSecond); more > 0 {
				left, since = min(left+more, linesAtOnce), time.Now()
			}
			switch {
			case left == 0:
				dropped++
			case dropped > 0:
				c.log.Warn("a plugin wrote more than is logged", "plugin", c.name, "lines", dropped)
				dropped = 0
				fallthrough
			default:
				left--
				c.log.Info(text, "plugin", c.name)
			}
		}
		if err != nil {
			return last
		}
	}
}

// end has the process end, and waits for it. One that is still at work for us, on a stop or removal that
// was not waited for, is asked and no more: it is not to be broken off.
func (c *child) end(working bool) {
	c.mu.Lock()
	c.ended = true
	p := c.process
	c.mu.Unlock()
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	timer := time.NewTimer(endGrace)
	defer timer.Stop()
	select {
	case <-p.exited:
		return
	case <-timer.C:
	}
	if working {
		c.log.Warn("a plugin is still at work on what it was asked for, and is left running", "plugin", c.name, "pid", p.cmd.Process.Pid)
		return
	}
	c.log.Warn("a plugin did not end when it was asked to, and is killed", "plugin", c.name, "pid", p.cmd.Process.Pid)
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // likewise
	<-p.exited
}
