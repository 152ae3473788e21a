package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects to an address: unix:/path, unix:@abstract, exec:/path/to/program or
// ssh-unix:[user@]host:/path. What follows a semicolon is ignored (UAPI.20, Service Addresses). ctx
// bounds the connecting alone; with exec and ssh-unix it is the first call that shows whether anyone is
// there.
func Dial(ctx context.Context, address string, o DialOptions) (*Conn, error) {
	scheme, rest, ok := strings.Cut(address, ":")
	rest, _, _ = strings.Cut(rest, ";")
	if !ok || rest == "" {
		return nil, fmt.Errorf("dial %s: not an address, such as unix:/path", address)
	}
	var c *Conn
	var err error
	switch scheme {
	case "unix":
		c, err = dialUnix(ctx, rest, o)
	case "exec":
		if !filepath.IsAbs(rest) {
			return nil, fmt.Errorf("dial %s: the program's path must be absolute", address)
		}
		c, err = dialProgram(ctx, []string{rest}, o)
	case "ssh-unix":
		c, err = dialSSH(ctx, rest, o)
	default:
		return nil, fmt.Errorf("dial %s: no transport %s; there are unix, exec and ssh-unix", address, scheme)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	return c, nil
}

// DialCommand starts a program with a connected socket, as Dial does for exec:, with arguments.
func DialCommand(ctx context.Context, command []string, o DialOptions) (*Conn, error) {
	if len(command) == 0 {
		return nil, errors.New("dial a command: it is empty")
	}
	c, err := dialProgram(ctx, command, o)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", strings.Join(command, " "), err)
	}
	return c, nil
}

func dialUnix(ctx context.Context, path string, o DialOptions) (*Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return NewConn(conn, o), nil
}

// dialProgram passes the socket as a service manager would, connected (sd_varlink_connect_exec,
// sd-varlink.c, systemd 257). LISTEN_PID can only be known once the process is there, so a shell sets it.
func dialProgram(ctx context.Context, command []string, o DialOptions) (*Conn, error) {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, path}, command[1:]...)...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LISTEN_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=varlink")
	return start(ctx, cmd, o, func(theirs *os.File) { cmd.ExtraFiles = []*os.File{theirs} })
}

// dialSSH has ssh forward a socket of the remote host (varlink_connect_ssh_unix, sd-varlink.c, systemd
// 257; OpenSSH 9.4 and later).
func dialSSH(ctx context.Context, where string, o DialOptions) (*Conn, error) {
	host, path, ok := strings.Cut(where, ":")
	if !ok || host == "" || strings.HasPrefix(host, "-") {
		return nil, errors.New("no host, as in ssh-unix:host:/path")
	}
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, errors.New("the socket's path must be absolute and clean, as in ssh-unix:host:/path")
	}
	cmd := exec.Command("ssh", "-W", path, host)
	return start(ctx, cmd, o, func(theirs *os.File) { cmd.Stdin, cmd.Stdout = theirs, theirs })
}

// start runs cmd with one end of a socket pair.
func start(ctx context.Context, cmd *exec.Cmd, o DialOptions, hand func(*os.File)) (*Conn, error) {
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
	hand(theirs)
	cmd.Stderr = os.Stderr
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go p.wait()
	c := NewConn(conn, o)
	c.process = p
	return c, nil
}

// endGrace is how long a process may take to end after SIGTERM.
const endGrace = 2 * time.Second

// process is one that a connection's other end is in.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of its exit; to be read once it has exited
}

func (p *process) wait() {
	p.err = p.cmd.Wait()
	close(p.exited)
}

// end ends it and waits until it is reaped. Its socket is closed by then.
func (p *process) end() {
	p.cmd.Process.Signal(syscall.SIGTERM) // an error says that it has ended
	timer := time.NewTimer(endGrace)
	defer timer.Stop()
	select {
	case <-p.exited:
	case <-timer.C:
		p.cmd.Process.Kill()
		<-p.exited
	}
}
