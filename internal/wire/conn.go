package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is a connection that a server serves. One goroutine reads its calls and runs their handlers, one
// after another, and so answers them in order.
type conn struct {
	server     *Server
	socket     *net.UnixConn
	raw        syscall.RawConn
	peer       Peer
	privileged bool
	state      atomic.Int32
	evicted    atomic.Bool

	in       frames
	deadline time.Time // for the message that was begun
	files    inFlight
	pull     func(uintptr) bool // c.receive, made once
	pulled   error

	watcher *watcher
	number  uint64 // the watcher's
	gone    context.CancelFunc
	ctx     context.Context // ends when the peer has gone, or the server stops
	calm    context.Context // ends when the server stops

	out sender
}

const (
	idle     = iota // waits for a call, and may be closed
	busy            // a handler is at work
	stopping        // the same, and it is the last
	stopped
)

func newConn(s *Server, socket *net.UnixConn, peer Peer, w *watcher) (*conn, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{server: s, socket: socket, raw: raw, peer: peer, privileged: privileged(peer.UID), watcher: w}
	c.in = frames{max: s.options.MaxMessage, share: &share{budget: s.bytes, privileged: c.privileged, evict: c.evict}}
	c.files = inFlight{quota: s.files, uid: peer.UID}
	c.pull = c.receive
	c.out = sender{socket: socket, raw: raw, timeout: s.options.WriteTimeout, last: s.lastWord}
	c.out.push = c.out.write
	return c, nil
}

// evict ends it for the sake of others. It does not wait for the reader, as Close would: that may want the
// lock which is held now.
func (c *conn) evict() {
	c.evicted.Store(true)
	_ = c.socket.CloseRead() // wakes the reader, if the socket is still there
}

// serve serves it to its end, and closes it.
func (c *conn) serve(ctx context.Context) {
	defer c.close()
	c.calm = context.WithValue(ctx, peerKey{}, &c.peer)
	c.ctx, c.gone = context.WithCancel(c.calm)
	defer c.gone()
	var err error
	if c.number, err = c.watcher.add(c.raw, c.gone); err != nil {
		c.server.complain(c.peer, err)
		return
	}
	defer c.watcher.remove(c.number)
	defer context.AfterFunc(ctx, c.stop)()
	for {
		message, err := c.next()
		if err != nil {
			c.explain(err)
			return
		}
		if !c.state.CompareAndSwap(idle, busy) {
			return
		}
		c.in.whole()
		if err := c.handle(message); err != nil {
			return
		}
		c.in.rest()
		c.in.settle()
		if !c.state.CompareAndSwap(busy, idle) {
			return
		}
	}
}

// stop closes it, at once or after the call that is being made.
func (c *conn) stop() {
	for {
		switch {
		case c.state.CompareAndSwap(idle, stopped):
			_ = c.socket.Close() // the reader sees it
			return
		case c.state.CompareAndSwap(busy, stopping):
			c.out.hurry()
			return
		case c.state.Load() > busy:
			return
		}
	}
}

func (c *conn) close() {
	c.state.Store(stopped)
	_ = c.socket.Close() // there is nothing left to be sent
	c.in.close()
	c.files.close()
	c.server.connections.give(c.peer.UID, 1)
}

var errTooSlow = errors.New("a message did not end in time")

// explain logs why nothing more is read, where that is news.
func (c *conn) explain(err error) {
	switch {
	case c.evicted.Load():
		c.server.complain(c.peer, errNoRoom)
	case errors.Is(err, io.EOF), c.state.Load() == stopped, errors.Is(err, unix.ECONNRESET):
	case errors.Is(err, os.ErrDeadlineExceeded) && !c.in.begun(): // idle
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.server.complain(c.peer, errTooSlow)
	default:
		c.server.complain(c.peer, err)
	}
}

// next receives the next message.
func (c *conn) next() ([]byte, error) {
	c.deadline = time.Time{}
	for {
		message, ok, err := c.in.next()
		if err != nil || ok {
			return message, err
		}
		if c.evicted.Load() {
			return nil, errNoRoom
		}
		if err := c.await(); err != nil {
			return nil, err
		}
		if err := c.raw.Read(c.pull); err != nil {
			return nil, err
		}
		if c.pulled != nil {
			return nil, c.pulled
		}
	}
}

// await sets the time by which something must come. A message that was begun does not get more with
// every byte.
func (c *conn) await() error {
	o := &c.server.options
	switch {
	case !c.in.begun() && o.IdleTimeout < 0:
		return c.socket.SetReadDeadline(time.Time{})
	case !c.in.begun():
		return c.socket.SetReadDeadline(time.Now().Add(o.IdleTimeout))
	case c.deadline.IsZero():
		c.deadline = time.Now().Add(o.ReadTimeout)
	}
	return c.socket.SetReadDeadline(c.deadline)
}

// receive takes what there is. It is false where there is nothing, and keeps no buffer while waiting.
func (c *conn) receive(fd uintptr) bool {
	room, err := c.in.room()
	if err != nil {
		c.pulled = err
		return true
	}
	n, err := c.files.receive(int(fd), room, c.in.position(), c.server.options.TakesFiles != nil)
	switch {
	case err == unix.EAGAIN: //nolint:errorlint // a system call's own
		c.in.rest()
		c.in.settle()
		return false
	case err == nil && n == 0:
		err = io.EOF
	}
	c.in.received(n)
	c.pulled = err
	return true
}

// handle answers one call. Its error ends the connection, and is logged already.
func (c *conn) handle(message []byte) error {
	in, err := readCall(message)
	if err != nil {
		c.server.complain(c.peer, fmt.Errorf("a message makes no sense: %w", err))
		return err
	}
	files := c.files.take(c.in.handedOut)
	m, answer, err := c.server.find(in.method)
	var request []byte
	if m != nil && err == nil {
		request, answer, err = m.request(in)
	}
	if request == nil || !m.takesFiles {
		closeFiles(files)
		files = nil
	}
	if err != nil {
		c.server.complain(c.peer, fmt.Errorf("a call of %s makes no sense: %w", shown(in.method), err))
		return err
	}
	if answer == nil {
		c.in.rest() // request is a copy
		return c.dispatch(m, in, request, files)
	}
	if in.oneway {
		return nil
	}
	return c.out.message(answer)
}

// dispatch runs a handler.
func (c *conn) dispatch(m *served, in call, request []byte, files []*os.File) error {
	parent := c.ctx
	if in.oneway { // who wants no reply may go
		parent = c.calm
	}
	if err := c.server.calls.take(parent, c.privileged); err != nil {
		closeFiles(files)
		return err
	}
	defer c.server.calls.give(c.privileged)
	if err := parent.Err(); err != nil {
		closeFiles(files)
		return err
	}
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	p := &pending{conn: c, method: m, oneway: in.oneway}
	err := c.run(ctx, p, request, files)
	if err = p.end(err); err != nil {
		c.report(ctx, m, err)
	}
	return err
}

// report logs why a call failed. That a client has gone is no news, but a panic always is.
func (c *conn) report(ctx context.Context, m *served, err error) {
	_, panicked := errors.AsType[*panicError](err)
	if !panicked && (ctx.Err() != nil || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)) {
		c.server.log.Debug("a call was broken off", "method", m.name, "uid", c.peer.UID, "pid", c.peer.PID, "error", err)
		return
	}
	c.server.failures.log(c.server.log, slog.LevelError, "a connection is closed: a call failed",
		"method", m.name, "uid", c.peer.UID, "pid", c.peer.PID, "error", err)
}

// panicError is of a handler.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("its handler panicked: %.200v\n%s", e.value, e.stack)
}

// run has the library find the handler, and catches its panic. What files the handler left are closed.
func (c *conn) run(ctx context.Context, p *pending, request []byte, files []*os.File) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, debug.Stack()}
			closeFiles(files) // those that the handler took, too
		}
	}()
	return c.server.library.HandleMessageWithFDs(ctx, p, request, files)
}
