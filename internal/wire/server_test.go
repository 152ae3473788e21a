package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varlink/go/varlink"
	"golang.org/x/sys/unix"
)

// The tests that are named after a hazard of the library's (doc.go) fail without the guard against it.

func TestHazard1EndlessMessage(t *testing.T) {
	r := serveTest(t, ServerOptions{MaxMessage: 1 << 20})
	c := r.raw(t)
	piece := bytes.Repeat([]byte("x"), 64<<10)
	sent := 0
	for sent < 64<<20 {
		n, err := c.Write(piece)
		sent += n
		if err != nil {
			break
		}
	}
	if sent > 4<<20 {
		t.Errorf("%d bytes were taken before the connection was closed", sent)
	}
	until(t, "the connection is gone", func() bool { return r.Connections() == 0 })
	if n := r.bytes.taken(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
	if !strings.Contains(r.log.String(), "more than 1048576 bytes") {
		t.Errorf("the log does not say why:\n%s", r.log)
	}
}

func TestHazard1MessageThatTakesForEver(t *testing.T) {
	r := serveTest(t, ServerOptions{ReadTimeout: 200 * time.Millisecond})
	c := r.raw(t)
	start := time.Now()
	for { // a byte now and then does not help
		if _, err := c.Write([]byte("x")); err != nil {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the connection is not closed")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if d := time.Since(start); d < 200*time.Millisecond {
		t.Errorf("it was closed after %s", d)
	}
}

// Time grows with the bytes, and not with their square.
func TestHazard1LargeMessageInPieces(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	text := strings.Repeat("x", 2<<20)
	message := append([]byte(ping(text)), 0)
	start := time.Now()
	for len(message) > 0 {
		n, err := c.Write(message[:min(len(message), 1000)])
		if err != nil {
			t.Fatal(err)
		}
		message = message[n:]
	}
	c.expect(pong(text))
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("2 MiB took %s", d)
	}
}

// Many unfinished messages cost no more memory together than the limit, and keep nobody out: the largest
// goes first.
func TestHazard1ManyUnfinishedMessages(t *testing.T) {
	r := serveTest(t, ServerOptions{MaxMessage: 1 << 20})
	half := append([]byte(`{"method":"`), bytes.Repeat([]byte("x"), 300<<10)...) // takes 512 KiB
	for i := range 20 {
		if _, err := r.raw(t).Write(half); err != nil {
			t.Fatal(err)
		}
		until(t, "it is all there", func() bool { return r.bytes.taken() == min(i+1, 2)<<19 })
	}
	if n := r.Connections(); n != 2 {
		t.Errorf("%d connections are left", n)
	}
	c := r.raw(t)
	text := strings.Repeat("x", 100000)
	c.say(ping(text))
	c.expect(pong(text))
	until(t, "the largest is gone", func() bool { return r.Connections() == 2 && r.bytes.taken() == 1<<19 })
	if n := strings.Count(r.log.String(), "too many bytes of unfinished messages"); n == 0 {
		t.Errorf("the log:\n%s", r.log)
	}
}

// What is being handled is not given up for others, but they are refused meanwhile.
func TestHazard1LargeCallsBeingHandled(t *testing.T) {
	r := serveTest(t, ServerOptions{MaxMessage: 100000})
	release := make(chan struct{})
	r.service.on("large", func(ctx context.Context, c varlink.Call) error {
		r.service.started <- struct{}{}
		<-release
		return c.Reply(ctx, nil)
	})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"large"}` + strings.Repeat(" ", 90000) + `}`)
	await(t, "the handler starts", r.service.started)
	other := r.raw(t)
	other.Write([]byte(ping(strings.Repeat("x", 90000)))) // may be closed before all is written
	other.closed()
	small := r.raw(t)
	small.say(ping("small"))
	small.expect(pong("small"))
	close(release)
	c.expect(`{}`)
	until(t, "all is given back", func() bool { return r.bytes.taken() == 0 })
	c.say(ping(strings.Repeat("x", 90000)))
	c.expect(pong(strings.Repeat("x", 90000)))
}

// withFiles sends b with n descriptors.
func (c *raw) withFiles(b string, n int) error {
	c.t.Helper()
	f, err := os.Open("/dev/null")
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	fds := make([]int, n)
	for i := range fds {
		fds[i] = int(f.Fd())
	}
	_, _, err = c.WriteMsgUnix([]byte(b), unix.UnixRights(fds...), nil)
	return err
}

func TestHazard2DescriptorsOfUnfinishedMessages(t *testing.T) {
	r := serveTest(t, ServerOptions{TakesFiles: func(m string) bool { return strings.HasSuffix(m, ".Files") }})
	before := openFiles(t)
	for range 4 {
		c := r.raw(t)
		for range 40 {
			if c.withFiles("x", 5) != nil {
				break
			}
		}
	}
	until(t, "the connections are closed", func() bool { return r.Connections() == 0 })
	until(t, "the descriptors are closed, but for the clients' own", func() bool { return openFiles(t) <= before+4 })
	if n := r.files.taken(); n != 0 {
		t.Errorf("%d descriptors are accounted for", n)
	}

	// One message's are bounded for themselves.
	many := r.raw(t)
	if err := errors.Join(many.withFiles("x", maxFiles), many.withFiles("x", 1)); err != nil {
		t.Fatal(err)
	}
	many.closed()

	// Those that are within the limits wait for their message, and go with its connection.
	c := r.raw(t)
	if err := c.withFiles("x", maxFiles); err != nil {
		t.Fatal(err)
	}
	until(t, "they came", func() bool { return r.files.taken() == maxFiles })
	c.Close()
	until(t, "they are closed", func() bool { return r.files.taken() == 0 && openFiles(t) <= before+5 })
}

func TestHazard2DescriptorsNobodyTakes(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	before := openFiles(t)
	c := r.raw(t)
	for range 100 {
		if err := c.withFiles("", 1); err == nil {
			continue
		}
	}
	err := c.withFiles(ping("with")+"\x00", 5)
	if err != nil && !errors.Is(err, unix.EPERM) { // SO_PASSRIGHTS
		t.Fatal(err)
	}
	if err == nil {
		c.expect(pong("with"))
	}
	c.say(ping("after"))
	c.expect(pong("after"))
	if n := openFiles(t); n > before+2 {
		t.Errorf("%d descriptors are open, %d were", n, before)
	}
}

// The same where the kernel does not refuse them, and where another method of the server takes some.
func TestHazard2DescriptorsForAnotherMethod(t *testing.T) {
	r := serveTest(t, ServerOptions{TakesFiles: func(m string) bool { return m == "org.example.Test.Files" }})
	r.service.on("none", func(ctx context.Context, c varlink.Call) error {
		if files := c.RequestFDs(); len(files) != 0 {
			return fmt.Errorf("%d descriptors came", len(files))
		}
		return c.Reply(ctx, nil)
	})
	c := r.raw(t)
	c.say(ping("first"))
	c.expect(pong("first"))
	before := openFiles(t)
	for range 30 {
		if err := c.withFiles(`{"method":"org.example.Test.Act","parameters":{"what":"none"}}`+"\x00", 10); err != nil {
			t.Fatal(err)
		}
		c.expect(`{}`)
		if err := c.withFiles(`{"method":"org.example.Unknown.Act"}`+"\x00", 10); err != nil {
			t.Fatal(err)
		}
		c.expect(`{"parameters":{"interface":"org.example.Unknown"},"error":"org.varlink.service.InterfaceNotFound"}`)
	}
	if n := openFiles(t); n > before {
		t.Errorf("%d descriptors are open, %d were", n, before)
	}
}

// Descriptors reach the method that takes them, with the message that they were sent with.
func TestDescriptorsOfAMethodThatTakesThem(t *testing.T) {
	r := serveTest(t, ServerOptions{TakesFiles: func(m string) bool { return m == "org.example.Test.Files" }})
	r.service.on("files", func(ctx context.Context, c varlink.Call) error {
		out := struct {
			Sizes []int64 `json:"sizes"`
		}{}
		for _, f := range c.RequestFDs() {
			info, err := f.Stat()
			if err != nil {
				return err
			}
			out.Sizes = append(out.Sizes, info.Size())
			f.Close()
		}
		return c.Reply(ctx, &out)
	})
	release := make(chan struct{})
	r.service.on("hold", func(ctx context.Context, c varlink.Call) error {
		<-release
		return c.Reply(ctx, nil)
	})
	c := r.raw(t)
	before := openFiles(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"hold"}}`) // so that the rest is received together
	c.say(ping("first"))
	if err := c.withFiles(`{"method":"org.example.Test.Files"}`+"\x00", 2); err != nil {
		t.Fatal(err)
	}
	c.say(`{"method":"org.example.Test.Files"}`)
	close(release)
	c.expect(`{}`)
	c.expect(pong("first"))
	c.expect(`{"parameters":{"sizes":[0,0]}}`)
	c.expect(`{"parameters":{"sizes":[]}}`)

	// What the handler leaves is closed, also after a panic, and not by the garbage collector.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	for range 10 {
		r.service.on("files", func(ctx context.Context, c varlink.Call) error { return c.Reply(ctx, &struct{ Sizes []int64 }{}) })
		if err := c.withFiles(`{"method":"org.example.Test.Files"}`+"\x00", 16); err != nil {
			t.Fatal(err)
		}
		c.hear()
	}
	until(t, "they are closed", func() bool { return openFiles(t) <= before+1 })
	r.service.on("files", func(context.Context, varlink.Call) error { panic("with files") })
	if err := c.withFiles(`{"method":"org.example.Test.Files"}`+"\x00", 16); err != nil {
		t.Fatal(err)
	}
	c.closed()
	until(t, "they are closed", func() bool { return openFiles(t) <= before+1 })
}

const callWait = `{"method":"org.example.Test.Wait"}`

func TestHazard3PeerGoes(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	c.say(callWait)
	await(t, "the handler starts", r.service.started)
	c.Close()
	if err := await(t, "the handler learns that its peer has gone", r.service.ended); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	until(t, "the connection is gone", func() bool { return r.Connections() == 0 })
}

// The same where the peer has gone before anybody looks, and has left calls behind.
func TestHazard3PeerIsGoneAlready(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	for range 50 {
		c := r.raw(t)
		c.say(callWait, callWait)
		c.Close()
	}
	until(t, "the connections are gone", func() bool { return r.Connections() == 0 })
}

// Who has shut down the sending side, as a pipe into socat does, still waits for replies.
func TestHazard3HalfClosedPeer(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	release := make(chan struct{})
	var early atomic.Bool
	r.service.on("work", func(ctx context.Context, c varlink.Call) error {
		r.service.started <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
			early.Store(true)
		}
		return c.Reply(ctx, nil)
	})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"work"}}`, ping("second"))
	await(t, "the handler starts", r.service.started)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// One that goes later is noticed: so the half-closed one would have been.
	other := r.raw(t)
	other.say(callWait)
	await(t, "the other handler starts", r.service.started)
	other.Close()
	await(t, "the other handler ends", r.service.ended)
	close(release)
	c.expect(`{}`)
	c.expect(pong("second"))
	c.closed()
	if early.Load() {
		t.Error("the handler was told that its peer had gone")
	}
}

// A connection that takes the descriptor number of another is not told that the other has gone.
func TestHazard3NumbersAreUsedAgain(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	for range 200 {
		first := r.raw(t)
		first.say(ping("a"))
		first.expect(pong("a"))
		first.Close()
		second := r.raw(t)
		second.say(callWait, "")
		await(t, "the handler starts", r.service.started)
		select {
		case err := <-r.service.ended:
			t.Fatalf("the second handler ended: %v", err)
		default:
		}
		second.Close()
		await(t, "the handler ends", r.service.ended)
	}
	until(t, "the connections are forgotten", func() bool {
		r.watcher.mu.Lock()
		defer r.watcher.mu.Unlock()
		return len(r.watcher.gone) == 0
	})
}

// A call that wants no reply is not broken off because its caller has gone.
func TestOnewayOutlivesItsCaller(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	told := make(chan error, 1)
	release := make(chan struct{})
	r.service.on("work", func(ctx context.Context, c varlink.Call) error {
		r.service.started <- struct{}{}
		<-release
		told <- ctx.Err()
		return c.Reply(ctx, nil)
	})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"work"},"oneway":true}`)
	c.Close()
	await(t, "the handler starts", r.service.started)
	other := r.raw(t)
	other.say(callWait)
	await(t, "the other handler starts", r.service.started)
	other.Close()
	await(t, "the other handler ends", r.service.ended)
	close(release)
	if err := await(t, "the handler ends", told); err != nil {
		t.Error(err)
	}
}

func TestHazard4ClientDoesNotRead(t *testing.T) {
	r := serveTest(t, ServerOptions{WriteTimeout: 100 * time.Millisecond})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Count","parameters":{"to":1000000,"size":100000},"more":true}`)
	if err := await(t, "the handler cannot write", r.service.ended); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	until(t, "the connection is gone", func() bool { return r.Connections() == 0 })
}

// A client that reads a little gets no more time for the message.
func TestHazard4ClientReadsSlowly(t *testing.T) {
	r := serveTest(t, ServerOptions{WriteTimeout: 300 * time.Millisecond})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Count","parameters":{"to":2,"size":8000000},"more":true}`)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				c.Read(buf)
			}
		}
	}()
	await(t, "the handler cannot write", r.service.ended)
}

// One that takes its time, but reads in time, gets all.
func TestClientThatPauses(t *testing.T) {
	r := serveTest(t, ServerOptions{WriteTimeout: time.Second})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Count","parameters":{"to":30,"size":100000},"more":true}`)
	until(t, "the server waits for us", func() bool {
		buf := make([]byte, 1<<16)
		return bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("(*sender).message"))
	})
	for i := 1; i <= 30; i++ {
		if m := c.hear(); !strings.HasPrefix(m, fmt.Sprintf(`{"parameters":{"n":%d,`, i)) || strings.HasSuffix(m, `"continues":true}`) != (i < 30) {
			t.Fatalf("reply %d: %.50s … %s", i, m, m[len(m)-20:])
		}
	}
	time.Sleep(1100 * time.Millisecond) // the time of the slow reply is of no concern to the next
	c.say(ping("next"))
	c.expect(pong("next"))
}

func TestHazard5Panic(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	r.service.on("panic", func(context.Context, varlink.Call) error { panic("what now") })
	r.service.on("panic late", func(ctx context.Context, c varlink.Call) error {
		if err := c.Reply(ctx, nil); err != nil {
			return err
		}
		panic("after all")
	})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"panic"}}`)
	c.closed()
	c = r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"panic late"}}`)
	c.expect(`{}`)
	c.closed()
	c = r.raw(t)
	c.say(ping("alive"))
	c.expect(pong("alive"))
	for _, want := range []string{"method=org.example.Test.Act", "what now", "after all", "testService"} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, r.log)
		}
	}
}

func TestHazard5NoReply(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	r.service.on("silent", func(context.Context, varlink.Call) error { return nil })
	r.service.on("unfinished", func(ctx context.Context, c varlink.Call) error {
		c.Continues = true
		return c.Reply(ctx, nil)
	})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"silent"}}`)
	c.closed()
	c = r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"unfinished"},"more":true}`)
	c.expect(`{"continues":true}`)
	c.closed()
	if n := strings.Count(r.log.String(), "without a final reply"); n != 2 {
		t.Errorf("the log says so %d times:\n%s", n, r.log)
	}
	c = r.raw(t) // nobody waits for this one
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"silent"},"oneway":true}`, ping("next"))
	c.expect(pong("next"))
}

// A handler that replies again, or after its call, cannot put its client out of step.
func TestSecondReply(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	late := make(chan varlink.Call, 1)
	second := make(chan error, 2)
	r.service.on("twice", func(ctx context.Context, c varlink.Call) error {
		if err := c.Reply(ctx, nil); err != nil {
			return err
		}
		second <- c.Reply(ctx, nil)
		late <- c
		return nil
	})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"twice"}}`)
	c.expect(`{}`)
	if err := await(t, "the second reply", second); !errors.Is(err, errReplied) {
		t.Errorf("the second reply: %v", err)
	}
	call := await(t, "the handler returns", late)
	if err := call.Reply(t.Context(), nil); !errors.Is(err, errReplied) {
		t.Errorf("the late reply: %v", err)
	}
	c.say(ping("next"))
	c.expect(pong("next"))
}

// Replies that several goroutines of a handler send are whole, one after another.
func TestRepliesSideBySide(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	r.service.on("many", func(ctx context.Context, c varlink.Call) error {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				more := c
				more.Continues = true
				for range 50 {
					if err := more.Reply(ctx, &struct {
						Filler string `json:"filler"`
					}{strings.Repeat("x", 10000)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		return c.Reply(ctx, nil)
	})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"many"},"more":true}`)
	for range 400 {
		if m := c.hear(); !json.Valid([]byte(m)) {
			t.Fatalf("a broken reply: %.100s", m)
		}
	}
	c.expect(`{}`)
}

// failingListener is a double of a listener whose process has no descriptors left for a while.
type failingListener struct {
	net.Listener
	failures []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.failures) > 0 {
		err := l.failures[0]
		l.failures = l.failures[1:]
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", err)}
	}
	return l.Listener.Accept()
}

func TestHazard6NoDescriptorsLeft(t *testing.T) {
	s, err := NewServer(ServerOptions{}, newTestService())
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/socket"
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- s.Serve(ctx, &failingListener{l, []error{unix.EMFILE, unix.ENFILE, unix.ECONNABORTED, unix.ENOMEM}})
	}()
	r := &running{path: path}
	c := r.raw(t)
	c.say(ping("at last"))
	c.expect(pong("at last"))
	cancel()
	if err := await(t, "Serve ends", done); err != nil {
		t.Error(err)
	}

	if l, err = Listen(path, 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.Serve(t.Context(), &failingListener{l, []error{unix.EINVAL}})
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("an error that lasts: %v", err)
	}
	if _, err := net.Dial("unix", path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the listener is still open: %v", err)
	}
}

func TestHazard7IdleClientsDoNotHoldUpTheEnd(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	idle := r.raw(t)
	idle.say(ping("a"))
	idle.expect(pong("a"))
	unfinished := r.raw(t)
	unfinished.Write([]byte(`{"method":`))
	until(t, "all are there", func() bool { return r.Connections() == 2 })
	start := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("the end took %s", d)
	}
	idle.closed()
	unfinished.closed()
}

// Handlers at work learn of the end, are waited for, and have the last word.
func TestHazard7HandlersHaveTheLastWord(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	c.say(callWait, ping("too late"))
	await(t, "the handler starts", r.service.started)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if err := await(t, "the handler ends", r.service.ended); err == nil {
		t.Error("its context did not end")
	}
	c.expect(`{}`)
	c.closed()
	if n := r.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// Serve does not return before a handler has.
func TestHazard7HandlersAreWaitedFor(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	release := make(chan struct{})
	r.service.on("slow", func(ctx context.Context, c varlink.Call) error {
		r.service.started <- struct{}{}
		<-ctx.Done()
		r.service.ended <- ctx.Err()
		<-release
		return c.Reply(ctx, nil)
	})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Act","parameters":{"what":"slow"}}`)
	await(t, "the handler starts", r.service.started)
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	await(t, "the handler learns of the end", r.service.ended)
	until(t, "the listener is closed", func() bool {
		conn, err := net.Dial("unix", r.path)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-stopped:
		t.Fatalf("Serve has returned: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	c.expect(`{}`)
	if err := await(t, "Serve returns", stopped); err != nil {
		t.Error(err)
	}
}

// A client that does not read the last word does not hold up the end for long.
func TestHazard7LastWordIsNotRead(t *testing.T) {
	r := serveTest(t, ServerOptions{WriteTimeout: time.Hour}, func(s *Server) { s.lastWord = 100 * time.Millisecond })
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Count","parameters":{"to":1000000,"size":100000},"more":true}`)
	until(t, "the server waits for us", func() bool {
		buf := make([]byte, 1<<16)
		return bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("(*sender).message"))
	})
	start := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("the end took %s", d)
	}
}

func TestHazard9NoParameters(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	for _, parameters := range []string{``, `,"parameters":null`, `,"parameters":{}`, `,"parameters":{"text":null}`} {
		c.say(`{"method":"org.example.Test.Ping"` + parameters + `}`)
		c.expect(`{"parameters":{}}`)
		c.say(`{"method":"org.example.Test.Nothing"` + strings.Replace(parameters, `"text":null`, "", 1) + `}`)
		c.expect(`{}`)
		c.say(`{"method":"org.example.Test.Store"` + parameters + `}`)
		if m := c.hear(); !strings.Contains(m, "InvalidParameter") {
			t.Errorf("a missing parameter: %s", m)
		}
	}
}

func TestHazard10StandardErrors(t *testing.T) {
	r := serveTest(t, ServerOptions{Vendor: "V", Product: "", Version: "1", URL: "https://example.org"})
	r.service.on("deny", ReplyPermissionDenied)
	r.service.on("invalid", func(ctx context.Context, c varlink.Call) error { return ReplyInvalidParameter(ctx, c, "what") })
	c := r.raw(t)
	for call, want := range map[string]string{
		`{"method":"org.example.Test.Act","parameters":{"what":"deny"}}`:    `{"error":"org.varlink.service.PermissionDenied"}`,
		`{"method":"org.example.Test.Act","parameters":{"what":"invalid"}}`: `{"parameters":{"parameter":"what"},"error":"org.varlink.service.InvalidParameter"}`,
		`{"method":"org.example.Test.Count","parameters":{"to":1}}`:         `{"error":"org.varlink.service.ExpectedMore"}`,
		`{"method":"org.example.Test.Unknown"}`:                             `{"parameters":{"method":"org.example.Test.Unknown"},"error":"org.varlink.service.MethodNotFound"}`,
		`{"method":"org.example.Tes.Ping"}`:                                 `{"parameters":{"interface":"org.example.Tes"},"error":"org.varlink.service.InterfaceNotFound"}`,
		`{"method":"org.example.Test"}`:                                     `{"parameters":{"interface":"org.example"},"error":"org.varlink.service.InterfaceNotFound"}`,
		`{"method":"Ping"}`:                                                 `{"parameters":{"parameter":"method"},"error":"org.varlink.service.InvalidParameter"}`,
		`{"method":".Ping"}`:                                                `{"parameters":{"parameter":"method"},"error":"org.varlink.service.InvalidParameter"}`,
		`{"method":"org.varlink.service.GetInfo"}`:                          `{"parameters":{"vendor":"V","product":"","version":"1","url":"https://example.org","interfaces":["org.varlink.service","org.example.Test"]}}`,
		`{"method":"org.varlink.service.GetInfo","parameters":{"x":1}}`:     `{"parameters":{"parameter":"x"},"error":"org.varlink.service.InvalidParameter"}`,
		`{"method":"org.varlink.service.Unknown"}`:                          `{"parameters":{"method":"org.varlink.service.Unknown"},"error":"org.varlink.service.MethodNotFound"}`,
		`{"method":"org.example.Test.Ping","upgrade":true}`:                 `{"parameters":{"parameter":"upgrade"},"error":"org.varlink.service.InvalidParameter"}`,

		`{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"org.example.Unknown"}}`: `{"parameters":{"interface":"org.example.Unknown"},"error":"org.varlink.service.InterfaceNotFound"}`,
		`{"method":"org.varlink.service.GetInterfaceDescription"}`:                                                  `{"parameters":{"parameter":"interface"},"error":"org.varlink.service.InvalidParameter"}`,
	} {
		c.say(call)
		if got := c.hear(); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", call, got, want)
		}
	}
	for name, want := range map[string]string{"org.example.Test": testDescription, serviceName: serviceDescription} {
		var out struct {
			Description string `json:"description"`
		}
		in := map[string]string{"interface": name}
		if err := r.dial(t).Call(t.Context(), "org.varlink.service.GetInterfaceDescription", in, &out); err != nil || out.Description != want {
			t.Errorf("the description of %s: %v\n%s", name, err, out.Description)
		}
	}
}

func TestHazard11MalformedMessages(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for name, message := range map[string]string{
		"nothing":                       ``,
		"spaces":                        `  `,
		"null":                          `null`,
		"an empty object":               `{}`,
		"an array":                      `[]`,
		"a string":                      `"x"`,
		"no method":                     `{"parameters":{}}`,
		"method null":                   `{"method":null}`,
		"an empty method":               `{"method":""}`,
		"a number for a method":         `{"method":1}`,
		"half a message":                `{"method":"org.example.Test.Ping"`,
		"more than a message":           `{"method":"org.example.Test.Ping"}{}`,
		"an unknown member":             `{"method":"org.example.Test.Ping","extra":1}`,
		"another case":                  `{"Method":"org.example.Test.Ping"}`,
		"parameters in another case":    `{"method":"org.example.Test.Ping","Parameters":{}}`,
		"method twice":                  `{"method":"org.example.Test.Ping","method":"org.example.Test.Ping"}`,
		"method twice, escaped":         `{"method":"org.example.Test.Ping","\u006dethod":"org.example.Test.Ping"}`,
		"parameters twice":              `{"method":"org.example.Test.Ping","parameters":{},"parameters":{}}`,
		"parameters an array":           `{"method":"org.example.Test.Ping","parameters":[]}`,
		"parameters a string":           `{"method":"org.example.Test.Ping","parameters":"x"}`,
		"more a number":                 `{"method":"org.example.Test.Ping","more":1}`,
		"more a string":                 `{"method":"org.example.Test.Ping","more":"true"}`,
		"more with oneway":              `{"method":"org.example.Test.Ping","more":true,"oneway":true}`,
		"more with upgrade":             `{"method":"org.example.Test.Ping","more":true,"upgrade":true}`,
		"oneway with upgrade":           `{"method":"org.example.Test.Ping","oneway":true,"upgrade":true}`,
		"a vendor's member, no object":  `{"method":"org.example.Test.Ping","org.example":1}`,
		"no UTF-8":                      "{\"method\":\"org.example.Test.Ping\",\"parameters\":{\"text\":\"\xff\"}}",
		"half a surrogate pair":         `{"method":"org.example.Test.Ping","parameters":{"text":"\ud800"}}`,
		"a control character":           "{\"method\":\"org.example.Test.Ping\",\"parameters\":{\"text\":\"\n\"}}",
		"a comma too many":              `{"method":"org.example.Test.Ping","parameters":{"text":"a",}}`,
		"too deep":                      `{"method":"org.example.Test.Ping","parameters":{"raw":` + deep + `}}`,
		"too deep for a vendor":         `{"method":"org.example.Test.Ping","org.example":{"x":` + deep + `}}`,
		"too many values":               `{"method":"org.example.Test.Ping","parameters":{"raw":[` + strings.Repeat("0,", maxValues) + `0]}}`,
		"too deep for unknown methods":  `{"method":"x.y","parameters":{"x":` + deep + `}}`,
		"a leading zero":                `{"method":"org.example.Test.Ping","parameters":{"text":01}}`,
		"a byte order mark":             "\ufeff" + `{"method":"org.example.Test.Ping"}`,
		"two values":                    `{"method":"org.example.Test.Ping"} 1`,
		"a member without a value":      `{"method"}`,
		"no quotes":                     `{method:"org.example.Test.Ping"}`,
		"not finished with an escape":   `{"method":"\`,
		"not finished with a surrogate": `{"method":"\ud800\u`,
	} {
		t.Run(name, func(t *testing.T) {
			c := r.raw(t)
			c.say(message)
			c.closed()
		})
	}
	if n := r.service.calls(); n != 0 {
		t.Errorf("%d calls got through", n)
	}
}

func TestHazard11InvalidParameters(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	const good = `"name":"n","tags":[],"notes":{},"kind":"big"`
	for parameters, want := range map[string]string{
		`{}`:              "item",
		`{"item":null}`:   "item",
		`{"item":1}`:      "item",
		`{"item":[]}`:     "item",
		`{"ITEM":{}}`:     "ITEM",
		`{"item":{}}`:     "item.name",
		`{"unknown":"x"}`: "unknown",
		`{"item":{"name":"n","tags":[],"notes":{}}}`:                           "item.kind",
		`{"item":{"name":"n","tags":[],"notes":{},"kind":"huge"}}`:             "item.kind",
		`{"item":{"name":"n","tags":[],"notes":{},"kind":"Big"}}`:              "item.kind",
		`{"item":{"name":null,"tags":[],"notes":{},"kind":"big"}}`:             "item.name",
		`{"item":{"name":"n","tags":null,"notes":{},"kind":"big"}}`:            "item.tags",
		`{"item":{"name":"n","tags":["a",null],"notes":{},"kind":"big"}}`:      "item.tags[1]",
		`{"item":{"name":"n","tags":["a",1],"notes":{},"kind":"big"}}`:         "item.tags[1]",
		`{"item":{"name":"n","tags":{},"notes":{},"kind":"big"}}`:              "item.tags",
		`{"item":{"name":"n","tags":[],"notes":[],"kind":"big"}}`:              "item.notes",
		`{"item":{"name":"n","tags":[],"notes":{"a":null},"kind":"big"}}`:      "item.notes.a",
		`{"item":{"name":"n","tags":[],"notes":{"a":"","a":""},"kind":"big"}}`: "item.notes.a",
		`{"item":{"name":"n","name":"m","tags":[],"notes":{},"kind":"big"}}`:   "item.name",
		`{"item":{"Name":"n","tags":[],"notes":{},"kind":"big"}}`:              "item.Name",
		`{"item":{` + good + `,"size":"1"}}`:                                   "item.size",
		`{"item":{` + good + `,"size":1.0}}`:                                   "item.size",
		`{"item":{` + good + `,"size":1e3}}`:                                   "item.size",
		`{"item":{` + good + `,"size":9223372036854775808}}`:                   "item.size",
		`{"item":{` + good + `,"size":true}}`:                                  "item.size",
		`{"item":{` + good + `,"inner":{` + good + `,"inner":{"name":1}}}}`:    "item.inner.inner.name",
		`{"item":{` + good + `},"item":{` + good + `}}`:                        "item",
		`{"item":{` + good + `},"items":[{` + good + `},{}]}`:                  "items[1].name",
		`{"item":{` + good + `},"raw":[]}`:                                     "raw",
		`{"item":{` + good + `},"raw":{"a":1,"a":2}}`:                          "raw",
		`{"item":{` + good + `},"raw":{"x":[{"a":1,"a":2}]}}`:                  "raw",
		`{"item":{` + good + `},"share":"1"}`:                                  "share",
		`{"item":{` + good + `},"share":1e999}`:                                "share",
		`{"item":{` + good + `},"flags":[true,1]}`:                             "flags[1]",
		`{"item":{` + good + `},"flags":[true,"true"]}`:                        "flags[1]",
		`{"` + strings.Repeat("é", 1000) + `":1}`:                              strings.Repeat("é", 50) + "…",
	} {
		c.say(`{"method":"org.example.Test.Store","parameters":` + parameters + `}`)
		got := c.hear()
		if want := fmt.Sprintf(`{"parameters":{"parameter":%q},"error":"org.varlink.service.InvalidParameter"}`, want); got != want {
			t.Errorf("%.200s\ngot  %s\nwant %s", parameters, got, want)
		}
	}
	if n := r.service.calls(); n != 0 {
		t.Errorf("%d calls got through", n)
	}
	for _, parameters := range []string{
		`{"item":{` + good + `}}`,
		"\t{ \"item\" : {" + good + " , \"size\" : -1 ,\n\"inner\":{" + good + `}} }`,
		`{"item":{` + good + `,"size":null},"raw":{"x":[null,1.5e3,{"y":{}}]},"items":null,"share":1e3,"flags":[true,false]}`,
		`{"item":{"name":"n","tags":["\u00e9"],"notes":{"a b" : "c","\u0061":""},"kind":"\u0062ig"},"items":[],"share":-0.5}`,
	} {
		c.say(`{"method":"org.example.Test.Store","parameters":` + parameters + `}`)
		c.expect(`{"parameters":{"name":"n"}}`)
	}
}

// What others add to the header is passed over, and spaces and order do not matter.
func TestHeaderOfOthers(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	c.say("\r\n{ \"org.example\" : {\"a\":[1,{}]} , \"oneway\" : null,\"more\":false , \"upgrade\":false, \"parameters\" : {\"text\":\"a\"}\t,\"method\":\"org.example.Test.Ping\" } ")
	c.expect(pong("a"))
}

func TestHazard12NilsAreEmpty(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Nils"}`)
	c.expect(`{"parameters":{"tags":[],"notes":{},"items":[{"name":"null","tags":[],"notes":{},"kind":""}],"raw":{},"none":null}}`)
	c.say(`{"method":"org.example.Test.Nils","parameters":{"fail":true}}`)
	c.expect(`{"parameters":{"tags":[],"none":null},"error":"org.example.Test.Odd"}`)
}

func TestPipelinedCallsAreAnsweredInOrder(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	var calls, want []string
	for i := range 500 {
		text := fmt.Sprint(i)
		switch i % 5 {
		case 3: // no reply, whatever it comes to
			calls = append(calls, strings.TrimSuffix(ping(text), "}")+`,"oneway":true}`,
				`{"method":"org.example.Test.Count","parameters":{"to":1},"oneway":true}`,
				`{"method":"org.example.Test.Ping","parameters":{"wrong":1},"oneway":true}`,
				`{"method":"org.example.Test.Unknown","oneway":true}`,
				`{"method":"org.varlink.service.GetInfo","oneway":true}`)
		case 4:
			calls = append(calls, `{"method":"org.example.Test.Count","parameters":{"to":2},"more":true}`)
			want = append(want, `{"parameters":{"n":1},"continues":true}`, `{"parameters":{"n":2}}`)
		default:
			calls = append(calls, ping(text))
			want = append(want, pong(text))
		}
	}
	go c.say(calls...)
	for _, w := range want {
		c.expect(w)
	}
	r.service.mu.Lock()
	defer r.service.mu.Unlock()
	if len(r.service.told) != 400 {
		t.Errorf("%d calls were made", len(r.service.told))
	}
	for i := 1; i < len(r.service.told); i++ {
		if len(r.service.told[i]) < len(r.service.told[i-1]) || len(r.service.told[i]) == len(r.service.told[i-1]) && r.service.told[i] < r.service.told[i-1] {
			t.Fatalf("%s was called before %s", r.service.told[i-1], r.service.told[i])
		}
	}
}

// A message is a message however it is cut.
func TestMessagesInPieces(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.raw(t)
	b := []byte(ping("abc") + "\x00" + ping("déf") + "\x00")
	for i := range b {
		if _, err := c.Write(b[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	c.expect(pong("abc"))
	c.expect(pong("déf"))
}

func TestIdleConnectionIsClosed(t *testing.T) {
	r := serveTest(t, ServerOptions{IdleTimeout: 100 * time.Millisecond})
	c := r.raw(t)
	c.say(callWait) // that is not idle
	await(t, "the handler starts", r.service.started)
	idle := r.raw(t)
	start := time.Now()
	idle.closed()
	if d := time.Since(start); d < 50*time.Millisecond {
		t.Errorf("closed after %s", d)
	}
	until(t, "the one that is not idle is left", func() bool { return r.Connections() == 1 })
}

func TestLimitOfConnections(t *testing.T) {
	r := serveTest(t, ServerOptions{MaxConnections: 8, MaxConnectionsPerUID: 3})
	var conns []*raw
	for range 3 {
		c := r.raw(t)
		c.say(ping("in"))
		c.expect(pong("in"))
		conns = append(conns, c)
	}
	r.raw(t).closed()
	conns[0].Close()
	until(t, "there is room", func() bool { return r.Connections() == 2 })
	c := r.raw(t)
	c.say(ping("again"))
	c.expect(pong("again"))
	if n := strings.Count(r.log.String(), "too many"); n != 1 {
		t.Errorf("the log:\n%s", r.log)
	}
}

func TestLimitOfCalls(t *testing.T) {
	r := serveTest(t, ServerOptions{MaxCalls: 2})
	var conns []*raw
	for range 3 {
		c := r.raw(t)
		c.say(callWait)
		conns = append(conns, c)
	}
	await(t, "a handler starts", r.service.started)
	await(t, "a handler starts", r.service.started)
	until(t, "the third waits", func() bool {
		buf := make([]byte, 1<<16)
		return bytes.Contains(buf[:runtime.Stack(buf, true)], []byte("wire.enter("))
	})
	select {
	case <-r.service.started:
		t.Fatal("a third handler is at work")
	default:
	}
	info := r.raw(t) // org.varlink.service needs no handler
	info.say(`{"method":"org.varlink.service.GetInfo"}`)
	info.hear()
	for _, c := range conns { // whoever is first
		c.Close()
	}
	await(t, "a handler ends", r.service.ended)
	await(t, "a handler ends", r.service.ended)
	until(t, "the connections are gone", func() bool { return r.Connections() == 1 })
}

func TestPeerOfAHandler(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	peers := make(chan Peer, 1)
	r.service.on("who", func(ctx context.Context, c varlink.Call) error {
		p, ok := PeerOf(ctx)
		if !ok {
			return errors.New("nobody")
		}
		peers <- p
		return c.Reply(ctx, nil)
	})
	c := r.dial(t)
	if err := c.Call(t.Context(), "org.example.Test.Act", map[string]string{"what": "who"}, nil); err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	want := Peer{os.Getpid(), os.Geteuid(), os.Getegid(), groups}
	if got := await(t, "the peer", peers); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := c.Peer(); err != nil || got.PID != os.Getpid() || got.UID != os.Geteuid() {
		t.Errorf("the client sees %v, %v", got, err)
	}
	if _, ok := PeerOf(t.Context()); ok {
		t.Error("there is a peer outside of a handler")
	}
}

func TestServeConn(t *testing.T) {
	s, err := NewServer(ServerOptions{}, newTestService())
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := socketPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { s.ServeConn(ctx, theirs); close(done) }()
	c := NewConn(ours, DialOptions{})
	if err := c.Call(t.Context(), "org.example.Test.Nothing", nil, nil); err != nil {
		t.Error(err)
	}
	cancel()
	await(t, "ServeConn ends", done)
	if s.users != 0 {
		t.Error("the watcher is still there")
	}
	pipe, other := net.Pipe()
	s.ServeConn(t.Context(), pipe)
	if _, err := other.Write([]byte("x")); err == nil {
		t.Error("what is no socket is open")
	}
}

// socketPair returns both ends of one.
func socketPair(t testing.TB) (a, b *net.UnixConn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "socket")
		conn, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		t.Cleanup(func() { conn.Close() })
		ends[i] = conn.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

// brokenInterface has a description that does not do.
type brokenInterface struct {
	*testService
	description string
}

func (b brokenInterface) VarlinkGetDescription() string { return b.description }

func TestDescriptionsThatDoNotDo(t *testing.T) {
	for description, want := range map[string]string{
		"":                           "read its description",
		"interface org.example.Test": "no methods",
		"interface org.example.Other\nmethod A() -> ()":                                    "its description is of org.example.Other",
		"interface org.example.Test\nmethod A(a: Unknown) -> ()":                           "type Unknown is not defined",
		"interface org.example.Test\nmethod A(a, b) -> ()":                                 "no struct",
		"interface org.example.Test\ntype A []int\nmethod B() -> ()\nmethod C(a: A) -> ()": "neither struct nor enum",
	} {
		_, err := NewServer(ServerOptions{}, brokenInterface{newTestService(), description})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", description, err, want)
		}
	}
	_, err := NewServer(ServerOptions{}, newTestService(), newTestService())
	if err == nil {
		t.Error("the same interface twice")
	}
	// The parser lets an error pass that has no list of parameters.
	_, err = NewServer(ServerOptions{}, brokenInterface{newTestService(), "interface org.example.Test\nmethod A() -> ()\nerror B\n"})
	if err != nil {
		t.Error(err)
	}
}

// A reply that no client need take is not sent.
func TestReplyOverTheLimit(t *testing.T) {
	r := serveTest(t, ServerOptions{MaxMessage: 10000})
	c := r.raw(t)
	c.say(`{"method":"org.example.Test.Count","parameters":{"to":1,"size":10000},"more":true}`)
	c.closed()
	if !strings.Contains(r.log.String(), "more than 10000 bytes") {
		t.Errorf("the log:\n%s", r.log)
	}
}
