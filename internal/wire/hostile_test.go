package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server in a process of its own.
type serverProcess struct {
	t    testing.TB
	cmd  *exec.Cmd
	path string
	log  *logged
}

// startServer starts one whose descriptors may be limited.
func startServer(t testing.TB, files string) *serverProcess {
	t.Helper()
	dir, err := os.MkdirTemp("", "wire")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := &serverProcess{t: t, path: filepath.Join(dir, "socket"), log: &logged{}}
	path, env := ourselves(t, "server:"+s.path+","+files)
	s.cmd = exec.Command(path)
	s.cmd.Env, s.cmd.Stderr = env, s.log
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		defer time.AfterFunc(20*time.Second, func() { s.cmd.Process.Signal(unix.SIGQUIT) }).Stop() // shows its goroutines
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("the server: %v\n%s", err, s.log)
		}
	})
	until(t, "the server listens", func() bool {
		conn, err := net.Dial("unix", s.path)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return s
}

func (s *serverProcess) dial(ctx context.Context) (*Conn, error) {
	return Dial(ctx, "unix:"+s.path, DialOptions{})
}

// files counts the server's descriptors.
func (s *serverProcess) files() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	return len(entries)
}

// memory returns a line of the server's status, in bytes.
func (s *serverProcess) memory(name string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err != nil {
				s.t.Fatal(err)
			}
			return n << 10
		}
	}
	s.t.Fatalf("no %s", name)
	return 0
}

func (s *serverProcess) goroutines() int {
	c, err := s.dial(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	var out struct {
		N int `json:"goroutines"`
	}
	if err := c.Call(s.t.Context(), "org.example.Test.Act", map[string]string{"what": "goroutines"}, &out); err != nil {
		s.t.Fatal(err)
	}
	return out.N
}

// as runs f as another user, where we may: on a thread of its own, which ends with it.
func as(uid int, f func() error) error {
	if os.Geteuid() != 0 {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			result <- errno
			return
		}
		result <- f()
	}()
	return <-result
}

// dialAs connects as another user.
func (s *serverProcess) dialAs(uid int) (conn *net.UnixConn, err error) {
	err = as(uid, func() error {
		conn, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: s.path, Net: "unix"})
		return err
	})
	return conn, err
}

// hostile are the ways to misbehave. Each takes a new connection, and returns when it is over.
var hostile = map[string]func(conn *net.UnixConn){
	"an endless message": func(conn *net.UnixConn) {
		piece := bytes.Repeat([]byte("x"), 64<<10)
		for {
			if _, err := conn.Write(piece); err != nil {
				return
			}
		}
	},
	"malformed messages": func(conn *net.UnixConn) {
		for _, m := range []string{"{}", "null", strings.Repeat("[", 100000), `{"method":1}`, "\xff\xfe"} {
			if rand.IntN(5) == 0 {
				io.WriteString(conn, m+"\x00")
				io.Copy(io.Discard, conn)
				return
			}
		}
	},
	"a stream that it does not read": func(conn *net.UnixConn) {
		io.WriteString(conn, `{"method":"org.example.Test.Count","parameters":{"to":1000000,"size":100000},"more":true}`+"\x00")
		var b [1]byte
		unix.Select(0, nil, nil, nil, &unix.Timeval{Usec: 300000}) // long enough to fill its buffer
		conn.Read(b[:])
		time.Sleep(time.Second)
	},
	"a message that takes for ever": func(conn *net.UnixConn) {
		for {
			if _, err := conn.Write([]byte(" ")); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	},
	"descriptors": func(conn *net.UnixConn) {
		f, err := os.Open("/dev/null")
		if err != nil {
			return
		}
		defer f.Close()
		fd := int(f.Fd())
		for {
			if _, _, err := conn.WriteMsgUnix([]byte("x"), unix.UnixRights(fd, fd, fd), nil); err != nil {
				return
			}
		}
	},
	"a disconnect in the stream": func(conn *net.UnixConn) {
		io.WriteString(conn, `{"method":"org.example.Test.Count","parameters":{"to":1000000,"size":1000},"more":true}`+"\x00")
		io.CopyN(io.Discard, conn, rand.Int64N(100000))
	},
	"calls that nobody waits for": func(conn *net.UnixConn) {
		for range 100 {
			io.WriteString(conn, `{"method":"org.example.Test.Wait"}`+"\x00")
		}
	},
	"large calls": func(conn *net.UnixConn) {
		io.WriteString(conn, `{"method":"org.example.Test.Ping","parameters":{"text":"`+strings.Repeat("x", 3<<20)+`"}}`+"\x00")
		io.CopyN(io.Discard, conn, 1<<20)
	},
	"many values": func(conn *net.UnixConn) {
		io.WriteString(conn, `{"method":"org.example.Test.Store","parameters":{"raw":{"a":[`+strings.Repeat("{},", 400000)+`0]}}}`+"\x00")
		io.Copy(io.Discard, conn)
	},
}

// Half of 200 clients are hostile, and somebody opens connections by the thousand: the other half is
// answered, and nothing is left behind.
func TestHostileClients(t *testing.T) {
	clients, flood, rounds := 100, 10000, 10
	if testing.Short() {
		clients, flood, rounds = 20, 1000, 3
	}
	s := startServer(t, "")
	files, goroutines := s.files(), s.goroutines()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	start := time.Now()

	var names []string
	for name := range hostile {
		names = append(names, name)
	}
	stop := make(chan struct{})
	var bad, good sync.WaitGroup
	var attacks, opened atomic.Int64
	for i := range clients {
		bad.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := s.dialAs(65000 + i%2)
				if err != nil { // its queue is full, or there are no descriptors: also of ours
					time.Sleep(time.Millisecond)
					continue
				}
				conn.SetDeadline(time.Now().Add(3 * time.Second))
				hostile[names[i%len(names)]](conn)
				conn.Close()
				attacks.Add(1)
				time.Sleep(20 * time.Millisecond) // the processors are ours, too
			}
		})
	}
	bad.Go(func() {
		var open []net.Conn
		for range flood {
			conn, err := s.dialAs(65003)
			if err != nil {
				time.Sleep(time.Millisecond)
				continue
			}
			opened.Add(1)
			if open = append(open, conn); len(open) > 1000 {
				open[0].Close()
				open = open[1:]
			}
		}
		for _, conn := range open {
			conn.Close()
		}
	})

	var answered atomic.Int64
	errs := make(chan error, clients)
	for i := range clients {
		good.Go(func() {
			for round := range rounds {
				if err := s.honest(ctx, fmt.Sprintf("%d.%d", i, round), &answered); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	good.Wait()
	took := time.Since(start)
	until(t, "the flood is over", func() bool { return opened.Load() >= int64(flood)*9/10 })
	close(stop)
	bad.Wait()
	close(errs)
	for err := range errs {
		t.Errorf("an honest client: %v", err)
	}
	until(t, "the descriptors are closed", func() bool { return s.files() <= files })
	until(t, "the goroutines have ended", func() bool { return s.goroutines() <= goroutines+2 })
	peak := s.memory("VmHWM")
	t.Logf("measured: %d calls of honest clients beside %d attacks and %d connections in %s; peak %d MiB, then %d MiB",
		answered.Load(), attacks.Load(), opened.Load(), took.Round(time.Millisecond), peak>>20, s.memory("VmRSS")>>20)
	if peak > 200<<20 && !raceEnabled {
		t.Errorf("the server had %d MiB", peak>>20)
	}
}

// honest makes some calls, each of which must be answered right.
func (s *serverProcess) honest(ctx context.Context, id string, answered *atomic.Int64) error {
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for i := range 10 {
		text := fmt.Sprintf("%s.%d", id, i)
		var out struct {
			Text string `json:"text"`
		}
		if err := c.Call(ctx, "org.example.Test.Ping", map[string]string{"text": text}, &out); err != nil {
			return err
		}
		if out.Text != text {
			return fmt.Errorf("%s was answered %s", text, out.Text)
		}
		answered.Add(1)
	}
	n := 0
	err = c.Stream(ctx, "org.example.Test.Count", map[string]int{"to": 20, "size": 1000}, func(json.RawMessage, bool) error { n++; return nil })
	if err == nil && n != 20 {
		err = fmt.Errorf("%d replies of 20", n)
	}
	answered.Add(1)
	return err
}

// A process whose descriptors are used up serves whom it has, and goes on when there are some again.
func TestHazard6DescriptorsOfTheProcess(t *testing.T) {
	s := startServer(t, "30")
	first, err := s.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	product(t, first)
	var open []net.Conn
	for range 60 {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	until(t, "there are no descriptors left", func() bool { return strings.Contains(s.log.String(), "too many open files") })
	product(t, first)
	for _, conn := range open {
		conn.Close()
	}
	c, err := s.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	product(t, c)
}

// What an ordinary user, by whatever names, can take leaves some for root.
func TestFloodOfAnOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("only root can be several users, and CI must be root")
		}
		t.Skip("only root can be several users")
	}
	s := startServer(t, "")
	var open []net.Conn
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	for i := range 6 * 256 { // as of a user namespace
		conn, err := s.dialAs(100000 + i/256)
		if errors.Is(err, unix.EAGAIN) {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		io.WriteString(conn, `{"method":"org.example.Test.Wait"}`+"\x00")
	}
	until(t, "some are refused", func() bool { return strings.Contains(s.log.String(), "too many") })
	for range 100 {
		var n atomic.Int64
		if err := s.honest(t.Context(), "root", &n); err != nil {
			t.Fatal(err)
		}
	}
}
