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

// dialUnix waits where the service's queue is full, which the kernel calls EAGAIN.
func dialUnix(ctx context.Context, path string, o DialOptions) (*Conn, error) {
	var wait backOff
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		switch {
		case err == nil:
			return NewConn(conn, o), nil
		case !errors.Is(err, unix.EAGAIN):
			return nil, err
		}
		if wait.sleep(ctx); ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
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
	p := &process{cmd: cmd, name: path, served: true}
	return p.start(ctx, o, func(theirs *os.File) { cmd.ExtraFiles = []*os.File{theirs} })
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
	p := &process{cmd: cmd, name: "ssh"}
	return p.start(ctx, o, func(theirs *os.File) { cmd.Stdin, cmd.Stdout = theirs, theirs })
}
