package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Target is a plugin that can be connected to.
type Target interface {
	Dial(ctx context.Context) (net.Conn, error)
	// Revive is called after the plugin died. It returns nil where the plugin can be connected to again.
	Revive(ctx context.Context) error
	// Socket is the path of the plugin's own socket, empty where it has none.
	Socket() string
}

// Socket is a target that serves a socket of its own.
type Socket string

var _ Target = Socket("")

// Dial connects.
func (s Socket) Dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", string(s))
}

// Revive waits for a service manager to start it again.
func (s Socket) Revive(ctx context.Context) error {
	return retry(ctx, 3*time.Second, func() error {
		c, err := s.Dial(ctx)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// Socket is the path.
func (s Socket) Socket() string { return string(s) }

// retry calls f until it succeeds, the time is over or ctx ends.
func retry(ctx context.Context, most time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Program is a target that is started here, with a listening socket passed to it, as Unmoor does with a
// plugin's command. It is to be closed.
type Program struct {
	command   []string
	stderr    io.Writer
	directory string
	listener  *os.File

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	// said is the end of what it wrote to standard error.
	said tail
}

var _ Target = (*Program)(nil)

// Start starts a program. What it prints goes to stderr.
func Start(command []string, stderr io.Writer) (*Program, error) {
	if len(command) == 0 {
		return nil, errors.New("start a plugin: no command")
	}
	directory, err := os.MkdirTemp("", "unmoor-check-")
	if err != nil {
		return nil, fmt.Errorf("make a socket for the plugin: %w", err)
	}
	p := &Program{command: command, stderr: stderr, directory: directory}
	if err := errors.Join(p.listen(), p.start()); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Program) path() string { return filepath.Join(p.directory, "plugin") }

func (p *Program) listen() error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.path(), Net: "unix"})
	if err != nil {
		return fmt.Errorf("make a socket for the plugin: %w", err)
	}
	defer func() { _ = l.Close() }() // the copy goes on
	l.SetUnlinkOnClose(false)
	if p.listener, err = l.File(); err != nil {
		return fmt.Errorf("make a socket for the plugin: %w", err)
	}
	return nil
}

// start starts it. LISTEN_PID can only be known once the process is there, so a shell sets it.
func (p *Program) start() error {
	if p.listener == nil {
		return nil // which is said already
	}
	path, err := exec.LookPath(p.command[0])
	if err != nil {
		return fmt.Errorf("start the plugin: %w", err)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, path}, p.command[1:]...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LISTEN_") && !strings.HasPrefix(v, "NOTIFY_SOCKET=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=varlink")
	cmd.ExtraFiles = []*os.File{p.listener}
	cmd.Stdout = p.stderr
	cmd.Stderr = io.MultiWriter(p.stderr, &p.said)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the plugin: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // ProcessState says how it ended
		close(exited)
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cmd, p.exited = cmd, exited
	return nil
}

// Dial connects. A program that has ended is not there, though its socket is; what it was asked in vain is
// closed when it ends.
func (p *Program) Dial(ctx context.Context) (net.Conn, error) {
	if err := p.ended(); err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", p.path())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	exited := p.exited
	p.mu.Unlock()
	m := &mortal{Conn: conn, done: make(chan struct{})}
	go func() {
		select {
		case <-exited:
			_ = conn.Close() // nobody reads it
		case <-m.done:
		}
	}()
	return m, nil
}

// mortal is a connection that does not outlive the program at its other end.
type mortal struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

func (m *mortal) Close() error {
	m.once.Do(func() { close(m.done) })
	return m.Conn.Close()
}

func (p *Program) ended() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.exited:
		return fmt.Errorf("the program has ended: %s%s", p.cmd.ProcessState, p.said.clause())
	default:
		return nil
	}
}

// Revive starts it again where it has ended, and ends it first where it has not.
func (p *Program) Revive(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.end()
	p.said.clear()
	// Whoever waits in the queue of the socket waits for the one that is gone.
	if err := errors.Join(p.listener.Close(), os.Remove(p.path())); err != nil {
		return err
	}
	return errors.Join(p.listen(), p.start())
}

// Socket is empty: the socket is ours.
func (p *Program) Socket() string { return "" }

// end asks it to end, and kills it after a while. What it started goes with it.
func (p *Program) end() {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	group := -cmd.Process.Pid
	// An error says that nothing is left of it.
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-exited
}

// Close ends the program.
func (p *Program) Close() error {
	p.end()
	var err error
	if p.listener != nil {
		err = p.listener.Close()
	}
	return errors.Join(err, os.RemoveAll(p.directory))
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(b []byte) (int, error) {
	const most = 4 << 10
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text = append(t.text, b...); len(t.text) > most {
		t.text = t.text[len(t.text)-most:]
	}
	return len(b), nil
}

func (t *tail) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = nil
}

// clause is the last line, fit to be put at the end of a sentence.
func (t *tail) clause() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(bytes.TrimSpace(t.text), []byte("\n"))
	last := strings.ToValidUTF8(strings.TrimSpace(string(lines[len(lines)-1])), "?")
	if last == "" {
		return ""
	}
	return fmt.Sprintf(": %.300s", last)
}
