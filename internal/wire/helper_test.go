package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/varlink/go/varlink"
)

const testDescription = `# For tests
interface org.example.Test

type Kind (big, small)

type Item (
  name: string,
  tags: []string,
  notes: [string]string,
  size: ?int,
  kind: Kind,
  inner: ?Item
)

method Ping(text: ?string) -> (text: ?string)
method Store(item: Item, items: ?[]Item, raw: ?object, share: ?float, flags: ?[]bool) -> (name: string)
method Nils(fail: ?bool) -> (tags: []string, notes: [string]string, items: []Item, raw: object, none: ?[]string)
method Count(to: int, size: ?int) -> (n: int, filler: ?string)
method Wait() -> ()
method Act(what: string) -> (ok: ?bool)
method Files() -> (sizes: []int)
method Nothing() -> ()

error Odd (tags: []string, none: ?[]string)
error Plain ()
`

// testItem is as the generator writes it.
type testItem struct {
	Name  string            `json:"name"`
	Tags  []string          `json:"tags"`
	Notes map[string]string `json:"notes"`
	Size  *int64            `json:"size,omitempty"`
	Kind  string            `json:"kind"`
	Inner *testItem         `json:"inner,omitempty"`
}

// testService is a hand-written service that does what its methods are told to.
type testService struct {
	started chan struct{} // one value a Wait that began
	ended   chan error    // why a Wait ended, or a Count that could not reply

	mu   sync.Mutex
	act  map[string]act
	told []string // the methods, and Ping's texts, in order
}

type act func(ctx context.Context, c varlink.Call) error

func newTestService() *testService {
	return &testService{
		act:     map[string]act{},
		started: make(chan struct{}, 1000),
		ended:   make(chan error, 1000),
	}
}

func (s *testService) VarlinkGetName() string        { return "org.example.Test" }
func (s *testService) VarlinkGetDescription() string { return testDescription }

// on says what Act does, or Files.
func (s *testService) on(what string, f act) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.act[what] = f
}

func (s *testService) do(ctx context.Context, c varlink.Call, what string) error {
	s.mu.Lock()
	f := s.act[what]
	s.mu.Unlock()
	return f(ctx, c)
}

func (s *testService) tell(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, what)
}

// over says why a Wait, or a Count, ended.
func (s *testService) over(err error) {
	select {
	case s.ended <- err:
	default: // nobody looks
	}
}

// calls counts what was told.
func (s *testService) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.told)
}

func (s *testService) VarlinkDispatch(ctx context.Context, c varlink.Call, methodname string) error {
	switch methodname {
	case "Ping":
		var in struct {
			Text *string `json:"text,omitempty"`
		}
		if err := c.GetParameters(&in); err != nil {
			return c.ReplyInvalidParameter(ctx, "parameters")
		}
		if in.Text != nil {
			s.tell(*in.Text)
		}
		return c.Reply(ctx, &in)
	case "Store":
		var in struct {
			Item  testItem         `json:"item"`
			Items *[]testItem      `json:"items,omitempty"`
			Raw   *json.RawMessage `json:"raw,omitempty"`
			Share *float64         `json:"share,omitempty"`
			Flags *[]bool          `json:"flags,omitempty"`
		}
		if err := c.GetParameters(&in); err != nil {
			return c.ReplyInvalidParameter(ctx, "parameters")
		}
		s.tell("Store")
		return c.Reply(ctx, &struct {
			Name string `json:"name"`
		}{in.Item.Name})
	case "Nils":
		var in struct {
			Fail *bool `json:"fail,omitempty"`
		}
		if err := c.GetParameters(&in); err != nil {
			return c.ReplyInvalidParameter(ctx, "parameters")
		}
		if in.Fail != nil {
			return c.ReplyError(ctx, "org.example.Test.Odd", &struct {
				Tags []string  `json:"tags"`
				None *[]string `json:"none"`
			}{})
		}
		return c.Reply(ctx, &struct {
			Tags  []string          `json:"tags"`
			Notes map[string]string `json:"notes"`
			Items []testItem        `json:"items"`
			Raw   json.RawMessage   `json:"raw"`
			None  *[]string         `json:"none"`
		}{Items: []testItem{{Name: "null"}}})
	case "Count":
		var in struct {
			To   int64  `json:"to"`
			Size *int64 `json:"size,omitempty"`
		}
		if err := c.GetParameters(&in); err != nil {
			return c.ReplyInvalidParameter(ctx, "parameters")
		}
		if !c.WantsMore() {
			return ReplyExpectedMore(ctx, c)
		}
		var out struct {
			N      int64   `json:"n"`
			Filler *string `json:"filler,omitempty"`
		}
		if in.Size != nil {
			filler := strings.Repeat("x", int(*in.Size))
			out.Filler = &filler
		}
		for out.N = 1; out.N <= in.To; out.N++ {
			c.Continues = out.N < in.To
			if err := c.Reply(ctx, &out); err != nil {
				s.over(err)
				return err
			}
		}
		return nil
	case "Wait":
		select {
		case s.started <- struct{}{}:
		default: // nobody looks
		}
		<-ctx.Done()
		s.over(ctx.Err())
		return c.Reply(ctx, nil)
	case "Act":
		var in struct {
			What string `json:"what"`
		}
		if err := c.GetParameters(&in); err != nil {
			return c.ReplyInvalidParameter(ctx, "parameters")
		}
		return s.do(ctx, c, in.What)
	case "Files":
		return s.do(ctx, c, "files")
	case "Nothing":
		return c.Reply(ctx, nil)
	}
	return c.ReplyMethodNotFound(ctx, methodname)
}

// logged collects what is logged.
type logged struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}

// served is a server at work.
type running struct {
	*Server
	service *testService
	path    string
	log     *logged
	stop    func() error // ends Serve, and returns its error
}

// serveTest serves a testService until the test ends. change may change the server before.
func serveTest(t testing.TB, o ServerOptions, change ...func(*Server)) *running {
	t.Helper()
	r := &running{service: newTestService(), path: filepath.Join(t.TempDir(), "socket"), log: &logged{}}
	o.Logger = slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.Server, err = NewServer(o, r.service); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(r.Server)
	}
	l, err := Listen(r.path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			buf := make([]byte, 1<<20)
			return fmt.Errorf("Serve does not end:\n%s", buf[:runtime.Stack(buf, true)])
		}
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	// All that Serve opens is open.
	c := r.raw(t)
	c.say(`{"method":"org.varlink.service.GetInfo"}`)
	c.hear()
	c.Close()
	until(t, "the first connection is gone", func() bool { return r.Connections() == 0 })
	return r
}

// dial connects with our own client.
func (r *running) dial(t testing.TB) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), "unix:"+r.path, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw is a connection on which a test says what it likes.
type raw struct {
	*net.UnixConn
	t  testing.TB
	in *bufio.Reader
}

func (r *running) raw(t testing.TB) *raw {
	t.Helper()
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{conn.(*net.UnixConn), t, bufio.NewReader(conn)}
}

// say sends messages, each with its NUL.
func (c *raw) say(messages ...string) {
	c.t.Helper()
	var b []byte
	for _, m := range messages {
		b = append(append(b, m...), 0)
	}
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// hear returns the next message.
func (c *raw) hear() string {
	c.t.Helper()
	b, err := c.in.ReadString(0)
	if err != nil {
		c.t.Fatalf("read a message: %v (after %q)", err, b)
	}
	return strings.TrimSuffix(b, "\x00")
}

// closed waits for the end of the connection, with nothing before it.
func (c *raw) closed() {
	c.t.Helper()
	b, err := io.ReadAll(c.in)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the connection is not closed")
	}
	if len(b) > 0 {
		c.t.Fatalf("before the end came %q", b)
	}
}

// expect compares the next message.
func (c *raw) expect(want string) {
	c.t.Helper()
	if got := c.hear(); got != want {
		c.t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// until waits for a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so within 10 s: %s", what)
		}
	}
}

// receive waits for a value.
func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatalf("not within 10 s: %s", what)
		panic("unreachable")
	}
}

// openFiles counts our own descriptors.
func openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func ping(text string) string {
	return fmt.Sprintf(`{"method":"org.example.Test.Ping","parameters":{"text":%q}}`, text)
}

func pong(text string) string { return fmt.Sprintf(`{"parameters":{"text":%q}}`, text) }
