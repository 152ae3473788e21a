package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed is of a connection that was closed, or given up after an error.
var ErrClosed = errors.New("the connection is closed")

// ErrNoFiles is of descriptors that cannot be sent where a connection leads.
var ErrNoFiles = errors.New("descriptors cannot be sent there")

var (
	errUnasked = errors.New("it sent what nobody asked for")
	errFiles   = errors.New("it sent descriptors, which nobody asked for")
)

// Error is an error reply.
type Error struct {
	Name       string
	Parameters json.RawMessage // an object, for Decode, or nil
}

func (e *Error) Error() string {
	if len(e.Parameters) == 0 || string(e.Parameters) == "{}" {
		return e.Name
	}
	return fmt.Sprintf("%s %.500s", e.Name, e.Parameters)
}

// DialOptions has useful zero values.
type DialOptions struct {
	// MaxMessage is how many bytes a message may have, either way; 16 MiB if 0, as sd-varlink has it.
	MaxMessage int
}

// Conn is a connection to a service. It makes one call at a time: others wait for their turn. Whatever
// goes wrong but an error reply closes it for good, since what comes next could be an answer to something
// else: an error, the end of a call's context, and any surprise.
type Conn struct {
	conn    net.Conn
	in      frames
	process *process // that Dial started, or nil
	turn    chan struct{}

	closing sync.Once
	closed  chan struct{}
	err     error // of closing conn
}

// NewConn makes a client's connection of a connected stream socket, which belongs to it from now on.
func NewConn(conn net.Conn, o DialOptions) *Conn {
	setDefault(&o.MaxMessage, 16<<20)
	return &Conn{
		conn:   conn,
		in:     frames{max: o.MaxMessage},
		turn:   make(chan struct{}, 1),
		closed: make(chan struct{}),
	}
}

// Call makes one call. in is what becomes a JSON object, or nil; out is for Decode, or nil. An error reply
// is an *Error, and leaves the connection as it was.
func (c *Conn) Call(ctx context.Context, method string, in, out any) error {
	return c.call(ctx, method, in, nil, false, func(parameters json.RawMessage, _ bool) error {
		if out == nil {
			return nil
		}
		return Decode(parameters, out)
	})
}

// Stream makes a call with more. each gets the parameters of every reply, an object that it may keep;
// continues is false for the last. An error of each ends the stream and closes the connection.
func (c *Conn) Stream(ctx context.Context, method string, in any, each func(parameters json.RawMessage, continues bool) error) error {
	return c.StreamWith(ctx, method, in, nil, each)
}

// StreamWith is Stream with descriptors, which stay the caller's. Where the other end is on another host, it is
// an error that wraps ErrNoFiles, and leaves the connection as it was.
func (c *Conn) StreamWith(ctx context.Context, method string, in any, files []*os.File, each func(parameters json.RawMessage, continues bool) error) error {
	return c.call(ctx, method, in, files, true, func(parameters json.RawMessage, continues bool) error {
		return each(append(json.RawMessage(nil), parameters...), continues)
	})
}

// Peer returns who is at the other end; for exec: that is the program, whatever it became. Nothing can be
// known of the other end of ssh-unix:.
func (c *Conn) Peer() (Peer, error) {
	if c.process != nil {
		return c.process.peer()
	}
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return Peer{}, errors.New("read the peer's credentials: it is no unix socket")
	}
	return peerOf(conn)
}

// Close closes the connection, whose call ends with an error, and waits until the process that Dial
// started has ended. It may be called at any time, and again.
func (c *Conn) Close() error {
	c.abandon()
	if c.process != nil {
		<-c.process.exited
	}
	return c.err
}

// abandon closes the connection, and has the process end.
func (c *Conn) abandon() {
	c.closing.Do(func() {
		close(c.closed)
		c.err = c.conn.Close()
		if c.process != nil {
			go c.process.end()
		}
	})
}

func (c *Conn) call(ctx context.Context, method string, in any, files []*os.File, more bool, each func(json.RawMessage, bool) error) error {
	request, err := encodeCall(method, in, more)
	if err == nil && len(request) > c.in.max {
		err = fmt.Errorf("the call has more than %d bytes", c.in.max)
	}
	if err == nil && len(files) > 0 {
		err = c.takesFiles()
	}
	if err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	if err := c.begin(ctx); err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetDeadline(time.Unix(1, 0)) // an error says that it is closed
	})
	whole := false
	defer func() {
		if !whole { // each may have panicked
			stop()
			c.abandon()
		}
		<-c.turn
	}()
	answer, err := c.exchange(request, files, more, each)
	// A context that ended while the last byte came would break the next call.
	if whole = stop() && err == nil; !whole {
		err = c.giveUp(ctx, err)
	}
	switch {
	case err != nil:
		return fmt.Errorf("call %s: %w", method, err)
	case answer != nil:
		return answer
	}
	return nil
}

// begin waits for our turn.
func (c *Conn) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return ErrClosed
	}
	select {
	case <-c.closed:
		<-c.turn
		return ErrClosed
	default:
		return nil
	}
}

// giveUp closes the connection after err, and returns what to say. err may be nil.
func (c *Conn) giveUp(ctx context.Context, err error) error {
	select {
	case <-c.closed: // by Close
		if err != nil {
			return ErrClosed
		}
		return nil
	default:
	}
	c.abandon()
	c.in.close()
	switch {
	case err == nil: // the answer came whole, and with it the end of the context
		return nil
	case ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return ctx.Err()
	case c.process != nil && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)):
		return fmt.Errorf("%w (%s)", err, c.process.fate())
	}
	return err
}

// exchange sends a request and reads what comes. An error reply is the first result.
func (c *Conn) exchange(request []byte, files []*os.File, more bool, each func(json.RawMessage, bool) error) (*Error, error) {
	if err := c.quiet(); err != nil {
		return nil, err
	}
	if err := c.send(request, files); err != nil {
		return nil, err
	}
	for {
		message, err := c.receive()
		if err != nil {
			return nil, err
		}
		r, err := readReply(message)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the reply makes no sense: %w", err)
		case r.continues && !more:
			return nil, errUnasked
		case !r.continues && c.in.begun():
			return nil, errUnasked
		case r.error != nil:
			return &Error{string(r.error), append(json.RawMessage(nil), r.parameters...)}, nil
		case r.parameters == nil:
			r.parameters = []byte("{}")
		}
		if err := each(r.parameters, r.continues); err != nil {
			return nil, err
		}
		if !r.continues {
			c.in.rest()
			return nil, nil
		}
	}
}

// takesFiles is an error where descriptors would not get to the service.
func (c *Conn) takesFiles() error {
	if _, ok := c.conn.(*net.UnixConn); !ok || c.process != nil && !c.process.served {
		return ErrNoFiles
	}
	return nil
}

// send writes a request, the descriptors with its first byte.
func (c *Conn) send(request []byte, files []*os.File) error {
	if len(files) > 0 {
		conn, ok := c.conn.(*net.UnixConn)
		if !ok {
			return ErrNoFiles
		}
		fds := make([]int, 0, len(files))
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		n, _, err := conn.WriteMsgUnix(request, unix.UnixRights(fds...), nil)
		runtime.KeepAlive(files)
		if err != nil {
			return err
		}
		request = request[n:]
	}
	_, err := c.conn.Write(request)
	return err
}

// quiet is an error where anything has come since the last reply, even the end.
func (c *Conn) quiet() error {
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var failed error
	err = raw.Control(func(fd uintptr) {
		n, _, failed = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	})
	switch {
	case err != nil:
		return err
	case failed == unix.EAGAIN: //nolint:errorlint // a system call's own
		return nil
	case failed != nil:
		return failed
	case n > 0:
		return errUnasked
	}
	return io.ErrUnexpectedEOF
}

// receive returns the next message, which is good until the one after.
func (c *Conn) receive() ([]byte, error) {
	for {
		message, ok, err := c.in.next()
		if err != nil || ok {
			return message, err
		}
		room, err := c.in.room()
		if err != nil {
			return nil, err
		}
		n, err := c.read(room)
		c.in.received(n)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
	}
}

// read reads, and asks for no descriptors: the kernel closes what comes, and says so.
func (c *Conn) read(room []byte) (int, error) {
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return c.conn.Read(room)
	}
	n, _, flags, _, err := conn.ReadMsgUnix(room, nil)
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errFiles
	}
	return n, err
}

// encodeCall makes a message of a call. Nil slices and maps go out empty, as from a server.
func encodeCall(method string, in any, more bool) ([]byte, error) {
	parameters, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	switch {
	case string(parameters) == "null":
		parameters = nil
	case parameters[0] != '{':
		return nil, fmt.Errorf("parameters of type %T are no object", in)
	case bytes.Contains(parameters, []byte("null")):
		s, err := shapeOf(reflect.TypeOf(in))
		if err != nil {
			return nil, err
		}
		if parameters, err = mend(parameters, s); err != nil {
			return nil, err
		}
	}
	b, err := json.Marshal(struct {
		Method     string          `json:"method"`
		Parameters json.RawMessage `json:"parameters,omitempty"`
		More       bool            `json:"more,omitempty"`
	}{method, parameters, more})
	return append(b, 0), err
}
