package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ErrClosed is of a connection that was closed, or given up after an error.
var ErrClosed = errors.New("connection is closed")

// Error is an error reply.
type Error struct {
	Name       string
	Parameters json.RawMessage // an object, or nil
}

func (e *Error) Error() string {
	if len(e.Parameters) == 0 || string(e.Parameters) == "{}" {
		return e.Name
	}
	return fmt.Sprintf("%s %.500s", e.Name, e.Parameters)
}

// DialOptions has useful zero values.
type DialOptions struct {
	// MaxMessage is how many bytes a reply may have; 16 MiB if 0, as sd-varlink has it.
	MaxMessage int
}

// Conn is a connection to a service. It makes one call at a time, and is closed for good at any error
// but an error reply, at any timeout and at any surprise.
type Conn struct {
	conn    net.Conn
	in      *bufio.Reader
	options DialOptions
	process *process
	turn    chan struct{} // holds a token while a call is made
	closed  chan struct{}
}

// NewConn makes a client's connection of conn, which belongs to it from now on.
func NewConn(conn net.Conn, o DialOptions) *Conn {
	if o.MaxMessage == 0 {
		o.MaxMessage = 16 << 20
	}
	return &Conn{conn: conn, in: bufio.NewReader(conn), options: o, turn: make(chan struct{}, 1), closed: make(chan struct{})}
}

// Call makes one call. in is what json makes an object of, or nil; out is for Decode, or nil. An error
// reply is an *Error.
func (c *Conn) Call(ctx context.Context, method string, in, out any) error {
	return c.call(ctx, method, in, false, func(parameters json.RawMessage, _ bool) error {
		if out == nil {
			return nil
		}
		return Decode(parameters, out)
	})
}

// Stream makes a call with more. each gets the parameters of every reply; continues is false for the
// last. An error of each ends the stream and closes the connection.
func (c *Conn) Stream(ctx context.Context, method string, in any, each func(parameters json.RawMessage, continues bool) error) error {
	return c.call(ctx, method, in, true, each)
}

func (c *Conn) call(ctx context.Context, method string, in any, more bool, each func(json.RawMessage, bool) error) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return fmt.Errorf("call %s: %w", method, ctx.Err())
	}
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := c.exchange(method, in, more, each)
	if _, reply := errors.AsType[*Error](err); err == nil || reply {
		return err
	}
	c.Close()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("call %s: %w", method, err)
}

func (c *Conn) exchange(method string, in any, more bool, each func(json.RawMessage, bool) error) error {
	select {
	case <-c.closed:
		return ErrClosed
	default:
	}
	b, err := json.Marshal(struct {
		Method     string `json:"method"`
		Parameters any    `json:"parameters,omitempty"`
		More       bool   `json:"more,omitempty"`
	}{method, in, more})
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(append(b, 0)); err != nil {
		return err
	}
	for {
		b, err := c.in.ReadBytes(0)
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		var reply struct {
			Parameters json.RawMessage
			Continues  bool
			Error      string
		}
		if err := json.Unmarshal(bytes.TrimSuffix(b, []byte{0}), &reply); err != nil {
			return err
		}
		if reply.Error != "" {
			return &Error{reply.Error, reply.Parameters}
		}
		if reply.Continues && !more {
			return errors.New("it continues, which nobody asked for")
		}
		if err := each(reply.Parameters, reply.Continues); err != nil {
			return err
		}
		if !reply.Continues {
			return nil
		}
	}
}

// Peer returns who is at the other end.
func (c *Conn) Peer() (Peer, error) {
	conn, ok := c.conn.(*net.UnixConn)
	if !ok {
		return Peer{}, errors.New("read the peer's credentials: no unix socket")
	}
	return peerOf(conn)
}

// Close closes the connection, and ends the process that Dial started. It may be called at any time,
// and again.
func (c *Conn) Close() error {
	select {
	case <-c.closed:
		return nil
	default:
		close(c.closed)
	}
	err := c.conn.Close()
	if c.process != nil {
		c.process.end()
	}
	return err
}
