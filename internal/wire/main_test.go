package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/varlink/go/varlink"
	"golang.org/x/sys/unix"
)

// The test binary is also the programs that the tests start: which one, its environment says.
const roleVariable = "UNMOOR_WIRE_TEST_ROLE"

func TestMain(m *testing.M) {
	role, rest, _ := strings.Cut(os.Getenv(roleVariable), ":")
	var err error
	switch role {
	case "":
		os.Setenv("GORACE", "atexit_sleep_ms=0") // for the programs
		os.Exit(m.Run())
	case "activated":
		err = beActivated()
	case "stubborn": // serves, and ends by SIGKILL alone
		signal.Ignore(unix.SIGTERM)
		if err = beActivated(); err == nil {
			time.Sleep(time.Hour)
		}
	case "exit":
		var code int
		code, err = strconv.Atoi(rest)
		if err == nil {
			os.Exit(code)
		}
	case "server":
		err = beServer(rest)
	case "ssh":
		err = standInForSSH(os.Args[1:])
	default:
		err = fmt.Errorf("no role %s", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// beActivated serves what was passed in.
func beActivated() error {
	listeners, conns, err := Activated()
	if err != nil {
		return err
	}
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		if v, set := os.LookupEnv(name); set {
			return fmt.Errorf("%s is still %s", name, v)
		}
	}
	s, err := NewServer(ServerOptions{Product: fmt.Sprintf("%d listeners, %d connections, arguments %q", len(listeners), len(conns), os.Args[1:])},
		newTestService())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, c := range conns {
		s.ServeConn(ctx, c)
	}
	for _, l := range listeners {
		return s.Serve(ctx, l)
	}
	return nil
}

// beServer serves on a socket until its standard input ends.
func beServer(args string) error {
	path, files, _ := strings.Cut(args, ",")
	if files != "" {
		n, err := strconv.ParseUint(files, 10, 64)
		if err != nil {
			return err
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			return err
		}
	}
	service := newTestService()
	s, err := NewServer(ServerOptions{
		MaxConnectionsPerUID: 250,
		WriteTimeout:         time.Second,
		ReadTimeout:          2 * time.Second,
		TakesFiles:           func(m string) bool { return strings.HasSuffix(m, ".Files") },
		Logger:               slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}, service)
	if err != nil {
		return err
	}
	service.on("goroutines", func(ctx context.Context, c varlink.Call) error {
		return c.Reply(ctx, map[string]int{"goroutines": runtime.NumGoroutine()})
	})
	l, err := Listen(path, 0o666)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return s.Serve(ctx, l)
}

// standInForSSH connects to a socket of this host, as ssh -W does to one of another.
func standInForSSH(args []string) error {
	if len(args) != 3 || args[0] != "-W" || args[2] != "me@host" {
		fmt.Fprintln(os.Stderr, "the stand-in for ssh was called with", args)
		os.Exit(3)
	}
	conn, err := net.Dial("unix", args[1])
	if err != nil {
		return err
	}
	go func() {
		io.Copy(conn, os.Stdin)
		conn.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// ourselves are the test binary and the environment for a role.
func ourselves(t testing.TB, role string) (string, []string) {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path, append(os.Environ(), roleVariable+"="+role)
}

func TestActivated(t *testing.T) {
	listeners, conns, err := Activated()
	if listeners != nil || conns != nil || err != nil {
		t.Errorf("nothing was passed in: %v, %v, %v", listeners, conns, err)
	}
	dir := t.TempDir()
	socketFile := func(name string) *os.File {
		l, err := Listen(filepath.Join(dir, name), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		f, err := l.(*listener).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	listening := socketFile("one")
	_, b := socketPair(t)
	connected, err := b.File()
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	b.Close()
	notSocket, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer notSocket.Close()
	datagram, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	datagramFile := os.NewFile(uintptr(datagram), "datagram")
	defer datagramFile.Close()

	for name, test := range map[string]struct {
		files []*os.File
		env   string
		want  string // on standard error; empty: it serves nothing and exits 0
	}{
		"for another process":       {[]*os.File{notSocket}, "LISTEN_PID=1 LISTEN_FDS=1", ""},
		"for a later process":       {[]*os.File{notSocket}, "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_PIDFDID=1", ""},
		"a number that is none":     {[]*os.File{notSocket}, "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_PIDFDID=x", "LISTEN_PIDFDID"},
		"no socket":                 {[]*os.File{notSocket}, "LISTEN_PID=$$ LISTEN_FDS=1", "socket operation on non-socket"},
		"a datagram socket":         {[]*os.File{datagramFile}, "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=x", "x: no unix stream socket"},
		"one of another name":       {[]*os.File{listening, connected}, "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=varlink:metrics", "metrics"},
		"several without any names": {[]*os.File{listening, connected}, "LISTEN_PID=$$ LISTEN_FDS=2", "not varlink"},
	} {
		t.Run(name, func(t *testing.T) {
			path, env := ourselves(t, "activated")
			cmd := exec.Command("/bin/sh", "-c", test.env+` exec "$0"`, path)
			cmd.Env, cmd.ExtraFiles = env, test.files
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Run()
			if test.want == "" && err != nil || !strings.Contains(stderr.String(), test.want) || test.want != "" && err == nil {
				t.Errorf("%v: %s", err, &stderr)
			}
		})
	}

	// A listening socket, as a service manager passes it.
	path, env := ourselves(t, "activated")
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=io.unmoor.socket exec "$0"`, path)
	cmd.Env, cmd.ExtraFiles, cmd.Stderr = env, []*os.File{listening}, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), "unix:"+filepath.Join(dir, "one"), DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if product := product(t, c); !strings.HasPrefix(product, "1 listeners, 0 connections") {
		t.Error(product)
	}
	c.Close()
	cmd.Process.Kill()
	cmd.Wait()
	if _, err := os.Lstat(filepath.Join(dir, "one")); err != nil {
		t.Errorf("the service manager's socket is gone: %v", err)
	}
}

// product asks for what the service says that it is.
func product(t testing.TB, c *Conn) string {
	t.Helper()
	var info struct {
		Product string `json:"product"`
	}
	if err := c.Call(t.Context(), "org.varlink.service.GetInfo", nil, &info); err != nil {
		t.Fatal(err)
	}
	return info.Product
}

func TestDialExec(t *testing.T) {
	path, _ := ourselves(t, "")
	t.Setenv(roleVariable, "activated")
	t.Setenv("LISTEN_PIDFDID", "1") // of somebody else
	c, err := Dial(t.Context(), "exec:"+path, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := product(t, c); got != "0 listeners, 1 connections, arguments []" {
		t.Error(got)
	}
	if p, err := c.Peer(); err != nil || p.PID != c.process.cmd.Process.Pid || p.UID != os.Geteuid() {
		t.Errorf("the peer is %+v, %v", p, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if !c.process.cmd.ProcessState.Success() {
		t.Errorf("it ended with %s, though its socket was closed", c.process.cmd.ProcessState)
	}

	c, err = DialCommand(t.Context(), []string{path, "a b", "$c"}, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := product(t, c); got != `0 listeners, 1 connections, arguments ["a b" "$c"]` {
		t.Error(got)
	}
	c.Close()
}

// One that does not end is ended.
func TestDialExecOfOneThatStays(t *testing.T) {
	path, _ := ourselves(t, "")
	t.Setenv(roleVariable, "stubborn")
	c, err := Dial(t.Context(), "exec:"+path, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	product(t, c)
	c.process.grace = time.Second
	// A call that is given up does not wait for that.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "org.example.Test.Wait", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	select {
	case <-c.process.exited:
		t.Error("the call waited until it had ended")
	default:
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if s := c.process.cmd.ProcessState; s == nil || s.Sys().(interface{ Signaled() bool }).Signaled() == false {
		t.Errorf("it ended with %v", s)
	}
}

// One that ends says how.
func TestDialExecOfOneThatEnds(t *testing.T) {
	path, _ := ourselves(t, "")
	t.Setenv(roleVariable, "exit:7")
	c, err := Dial(t.Context(), "exec:"+path, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Call(t.Context(), "a.b.C", nil, nil)
	if err == nil || !strings.Contains(err.Error(), path+": exit status 7") {
		t.Errorf("got %v", err)
	}
	givenUp(t, c)
}

func TestDialSSH(t *testing.T) {
	r := serveTest(t, ServerOptions{Product: "remote"})
	bin := t.TempDir()
	path, _ := ourselves(t, "")
	if err := os.Symlink(path, filepath.Join(bin, "ssh")); err != nil {
		t.Fatal(err)
	}
	t.Setenv(roleVariable, "ssh")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	c, err := Dial(t.Context(), "ssh-unix:me@host:"+r.path, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := product(t, c); got != "remote" {
		t.Error(got)
	}
	if p, err := c.Peer(); err == nil {
		t.Errorf("the peer is %+v", p)
	}
	c.Close()
	until(t, "the remote side sees the end", func() bool { return r.Connections() == 0 })

	if c, err = Dial(t.Context(), "ssh-unix:other:"+r.path, DialOptions{}); err != nil {
		t.Fatal(err)
	}
	err = c.Call(t.Context(), "a.b.C", nil, nil)
	if err == nil || !strings.Contains(err.Error(), "ssh: exit status 3") {
		t.Errorf("got %v", err)
	}

	t.Setenv("PATH", t.TempDir())
	if _, err := Dial(t.Context(), "ssh-unix:host:/path", DialOptions{}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("without ssh: %v", err)
	}
}
