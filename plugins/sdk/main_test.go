package sdk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// TestMain is a plugin, too: one whose Stop makes the file that the container's first name names, and lasts
// until the one is there that its second names.
func TestMain(m *testing.M) {
	if os.Getenv("SDK_TEST_PLUGIN") == "" {
		os.Exit(m.Run())
	}
	Main(fake{stop: func(_ context.Context, handles []core.Handle, _ time.Duration) []core.Outcome {
		for _, h := range handles {
			if err := os.WriteFile(h.Container.Names[0], nil, 0o600); err != nil {
				panic(err)
			}
			for {
				if _, err := os.Stat(h.Container.Names[1]); err == nil {
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
		return well(handles)
	}})
}

// program starts the plugin as a program.
func program(t *testing.T, sockets []*os.File, env []string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	// As a service manager does, which forks before it knows the pid.
	cmd := exec.Command("/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), "SDK_TEST_PLUGIN=1", fmt.Sprintf("LISTEN_FDS=%d", len(sockets)))
	cmd.Env = append(cmd.Env, env...)
	cmd.ExtraFiles = sockets
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Logf("the plugin says: %s", stderr.String())
		}
	})
	return cmd, &stderr
}

// TestProgram: a plugin as a unit of systemd's: it says when it listens, SIGTERM lets a stop end, and the
// socket goes with it.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	socket, begun, release := filepath.Join(dir, "toy.sock"), filepath.Join(dir, "begun"), filepath.Join(dir, "release")
	cmd, stderr := program(t, nil, []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "notify")}, "--socket", socket)
	if err := notify.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 100)
	n, err := notify.Read(word)
	if err != nil || string(word[:n]) != "READY=1" {
		t.Fatalf("%q, %v", word[:n], err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	c, err := wire.Dial(t.Context(), "unix:"+socket, wire.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := stopIn(1)
	in.Handles[0].Container.Names = []string{begun, release}
	type result struct {
		out protocol.StopOut
		err error
	}
	over := make(chan result, 1)
	go func() {
		var r result
		r.err = c.Call(context.Background(), protocol.MethodStop, in, &r.out)
		over <- r
	}()
	waitFor(t, func() bool { return exists(begun) })
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return !exists(socket) })
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := <-over; r.err != nil || len(r.out.Outcomes) != 1 || r.out.Outcomes[0].Problem != nil {
		t.Errorf("%+v (%s)", r, stderr)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v", err)
	}
}

// TestActivated: a socket that was passed in is served, and stays where it is.
func TestActivated(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "another name")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd, _ := program(t, []*os.File{f}, nil)
	l.Close()
	f.Close()
	c, err := wire.Dial(t.Context(), "unix:"+socket, wire.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var d protocol.DescribeOut
	if err := c.Call(t.Context(), protocol.MethodDescribe, nil, &d); err != nil || d.Name != "toy" {
		t.Errorf("%+v, %v", d, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("the service manager's socket is gone: %v", err)
	}
}

// TestConnected: a connection that was passed in, as by exec:, is served to its end.
func TestConnected(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	cmd, _ := program(t, []*os.File{theirs}, nil)
	theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	c := wire.NewConn(conn, wire.DialOptions{})
	var d protocol.DescribeOut
	if err := c.Call(t.Context(), protocol.MethodDescribe, nil, &d); err != nil || d.Name != "toy" {
		t.Errorf("%+v, %v", d, err)
	}
	c.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestCommandLine: exit codes.
func TestCommandLine(t *testing.T) {
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, 0, "-socket"},
		{[]string{"--sockets", "x"}, 2, "not defined"},
		{[]string{"now"}, 2, `unknown argument "now"`},
		{[]string{"--socket", "/nowhere/else.sock"}, 1, "toy.sock"},
	} {
		var stderr bytes.Buffer
		if code := run(fake{}, append([]string{"/usr/bin/toy-plugin"}, test.args...), &stderr); code != test.code || !strings.Contains(stderr.String(), test.says) {
			t.Errorf("%q: %d, %s", test.args, code, stderr.String())
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(end) {
			t.Fatal("it does not come about")
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestStranger: whoever is neither root nor the plugin's own user may not call, even where the socket lets
// everyone connect.
func TestStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("only root can be somebody else, and CI must be root")
		}
		t.Skip("only root can be somebody else")
	}
	s, err := newService(t.Context(), full{}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "sdk")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "toy.sock")
	l, err := wire.Listen(path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, []net.Listener{l}, nil) }()
	store := claimIn().Store
	for method, in := range map[string]any{
		protocol.MethodDescribe: nil, protocol.MethodClaim: claimIn(1), protocol.MethodStop: stopIn(1),
		protocol.MethodRemove: protocol.RemoveIn{ProtocolVersion: 1, Store: store, Handles: stopIn(1).Handles},
		protocol.MethodPins:   protocol.PinsIn{ProtocolVersion: 1, Store: store, Images: []iounmoorplugin.Image{}},
		protocol.MethodList:   protocol.ListIn{ProtocolVersion: 1, Store: store},
	} {
		conn, err := dialAs(path, 65534)
		if err != nil {
			t.Fatal(err)
		}
		c := wire.NewConn(conn, wire.DialOptions{})
		var reply *wire.Error
		if err := c.Call(t.Context(), method, in, nil); !errors.As(err, &reply) || reply.Name != "org.varlink.service.PermissionDenied" {
			t.Errorf("%s: %v", method, err)
		}
		c.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// dialAs connects as another user, in a thread that ends afterwards.
func dialAs(path string, uid int) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			err = errno
			return
		}
		conn, err = net.Dial("unix", path)
	}()
	<-done
	return conn, err
}
