package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
)

const name = "io.unmoor.Removal"

// Options has useful zero values.
type Options struct {
	// Patience is how long the daemon has to accept the connection and to say who it is; zero is 10 s, and
	// for ssh-unix, where somebody may have to type a passphrase, 2 minutes.
	Patience time.Duration
	// Quiet is how long a monitored daemon may say nothing before it is taken for lost; zero is three of its
	// heartbeats, 90 s.
	Quiet time.Duration
}

// maxMessage is for the outcome of a removal of everything on a large machine.
const maxMessage = 64 << 20

// Client is a connection to a daemon. It makes one call at a time.
type Client struct {
	conn    *wire.Conn
	address string
	version string
	quiet   time.Duration
}

// Dial connects to a daemon, and finds out whether it is one and answers. address is wire.Dial's. Errors:
// ErrAbsent, *SilentError, that of ctx, and others.
func Dial(ctx context.Context, address string, o Options) (*Client, error) {
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
		if strings.HasPrefix(address, "ssh-unix:") {
			o.Patience = 2 * time.Minute
		}
	}
	if o.Quiet == 0 {
		o.Quiet = 90 * time.Second
	}
	silent := &SilentError{Address: address, After: o.Patience}
	patient, cancel := context.WithTimeoutCause(ctx, o.Patience, silent)
	defer cancel()
	conn, err := connect(patient, address)
	if err == nil {
		c := &Client{conn: conn, address: address, quiet: o.Quiet}
		if err = c.greet(patient); err == nil {
			return c, nil
		}
		_ = conn.Close() // it is given up in any case
	}
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("connect to the daemon at %s: %w", address, ctx.Err())
	case patient.Err() != nil:
		return nil, silent
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w at %s: %w", ErrAbsent, address, err)
	}
	return nil, fmt.Errorf("connect to the daemon at %s: %w", address, err)
}

// connect waits where the daemon has more to accept than the kernel keeps for it.
func connect(ctx context.Context, address string) (*wire.Conn, error) {
	const pause = 50 * time.Millisecond
	for {
		conn, err := wire.Dial(ctx, address, wire.DialOptions{MaxMessage: maxMessage})
		if !errors.Is(err, syscall.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

// greet makes sure that who answers is a daemon of ours.
func (c *Client) greet(ctx context.Context) error {
	var info struct {
		Product    string   `json:"product"`
		Version    string   `json:"version"`
		Interfaces []string `json:"interfaces"`
	}
	if err := c.conn.Call(ctx, "org.varlink.service.GetInfo", nil, &info); err != nil {
		return err
	}
	if !slices.Contains(info.Interfaces, name) {
		return fmt.Errorf("%s answers there, and does not serve %s", info.Product, name)
	}
	c.version = info.Version
	return nil
}

// Address is where the daemon is, Version which one it is.
func (c *Client) Address() string { return c.address }
func (c *Client) Version() string { return c.version }

// Close ends the connection. A removal that goes on ends after the action that is being done.
func (c *Client) Close() error { return c.conn.Close() }

// call makes one call.
func (c *Client) call(ctx context.Context, method string, in, out any) error {
	return c.failed(method, "", c.conn.Call(ctx, name+"."+method, in, out))
}

// stream makes a call with more. each gets every reply, and whether it is the last one.
func stream[Reply any](ctx context.Context, c *Client, method string, in any, each func(reply Reply, last bool) error) error {
	return streamWith(ctx, c, method, in, nil, each)
}

// streamWith is stream with descriptors.
func streamWith[Reply any](ctx context.Context, c *Client, method string, in any, files []*os.File, each func(reply Reply, last bool) error) error {
	return c.conn.StreamWith(ctx, name+"."+method, in, files, func(parameters json.RawMessage, continues bool) error {
		var reply Reply
		if err := wire.Decode(parameters, &reply); err != nil {
			return err
		}
		return each(reply, !continues)
	})
}

// failed is what an error of a call means. wanted is the revision that was asked for, if any.
func (c *Client) failed(method, wanted string, err error) error {
	reply, ok := errors.AsType[*wire.Error](err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return fmt.Errorf("ask the daemon at %s: %w", c.address, err)
	case reply.Name == "org.varlink.service.PermissionDenied":
		return &DeniedError{Address: c.address, Method: method}
	}
	err = transcribe.Error(reply, wanted)
	if errors.Is(err, reply) {
		return fmt.Errorf("the daemon at %s, of version %s, does not take %s as it was called: %w", c.address, c.version, method, err)
	}
	return err
}

// Store is the store that the daemon serves. Of its options nothing is told.
func (c *Client) Store(ctx context.Context) (core.StoreInfo, error) {
	var out transcribe.GetStoreOut
	err := c.call(ctx, "GetStore", nil, &out)
	return core.StoreInfo{GraphRoot: out.GraphRoot, RunRoot: out.RunRoot, GraphDriver: out.GraphDriver}, err
}
