package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
)

var (
	errNoReply  = errors.New("its handler returned without a final reply")
	errReplied  = errors.New("the call has had its final reply")
	errNoStream = errors.New("a call's connection is for replies alone")
)

// pending is a call whose handler is at work; to the library it is the connection.
type pending struct {
	conn   *conn
	method *served
	oneway bool

	mu     sync.Mutex
	final  bool // its final reply was sent, or none can be
	broken error
}

// continues ends a reply that is not the last, as the library writes it: parameters, continues, error.
var continues = []byte(`"continues":true}` + "\x00")

// Write sends a reply, whole. A context that has ended does not keep it back: it may be the last word of
// a handler that was told to stop.
func (p *pending) Write(_ context.Context, b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.final {
		return 0, errReplied
	}
	p.final = !bytes.HasSuffix(b, continues)
	if p.oneway {
		return len(b), nil
	}
	message, err := p.method.mended(b)
	if err == nil && len(message) > p.conn.server.options.MaxMessage {
		err = fmt.Errorf("the reply has more than %d bytes, which no client need take", p.conn.server.options.MaxMessage)
	}
	if err != nil {
		p.final = true // nothing else can follow
		p.broken = err
		return 0, err
	}
	if err := p.conn.out.message(message); err != nil {
		p.final, p.broken = true, err
		return 0, fmt.Errorf("send the reply: %w", err)
	}
	return len(b), nil
}

// Read is part of the library's idea of a connection. The bytes that come are the next call's.
func (p *pending) Read(context.Context, []byte) (int, error) { return 0, errNoStream }

// ReadBytes is the same.
func (p *pending) ReadBytes(context.Context, byte) ([]byte, error) { return nil, errNoStream }

// end takes a handler's error, or nil, and returns what the call came to: an error ends the connection.
func (p *pending) end(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		err = p.broken
	}
	if err == nil && !p.final && !p.oneway {
		err = errNoReply
	}
	return err
}
