package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// remote is a plugin on a socket. Each call has a connection of its own, and is begun by Describe where
// nothing is known yet or something went wrong since. What it hands out has the right form; what it says
// is checked by the registry, as any plugin's. Its errors are faults where the plugin is to blame.
type remote struct {
	// name is what the plugin has to be called; empty for any.
	name string
	dial dialer
	// learn is told of each description.
	learn func(protocol.Description)
	// explain may know more about a connection that was closed; it may be nil.
	explain func() error

	mu    sync.Mutex
	known *protocol.Description

	// working is whether it may still be at a stop or removal that was not waited for.
	working atomic.Bool
}

var (
	_ Plugin = (*remote)(nil)
	_ Pinner = (*remote)(nil)
	_ Lister = (*remote)(nil)

	_ Builder = (*remote)(nil)
)

// errNotOffered is the error of Pins, List and Build where the plugin lacks the capability.
var errNotOffered = errors.New("the plugin does not offer it")

// What is read of a plugin at most: of all the replies to a call, and of one description.
const (
	maxAnswer      = 16 << 20
	maxAnswerEach  = 64 << 10 // more for each that was asked about
	maxDescription = 1 << 20
	maxRecords     = 1 << 17
)

// What floods is slowed down by not being read.
const (
	betweenDescriptions = 100 * time.Millisecond
	betweenSigns        = 20 * time.Millisecond
)

// silence is how long Stop, Remove and Build may go without a reply. A plugin gives one every 5 s.
var silence = 15 * time.Second

func (p *remote) Describe(ctx context.Context) (core.Description, error) {
	d, err := p.meet(ctx)
	return d.Description, err
}

// meet asks for a description, whatever is known.
func (p *remote) meet(ctx context.Context) (protocol.Description, error) {
	conn, err := p.reach(ctx, wire.DialOptions{})
	if err != nil {
		return protocol.Description{}, err
	}
	defer conn.Close()
	return p.introduce(ctx, conn)
}

func (p *remote) reach(ctx context.Context, o wire.DialOptions) (*wire.Conn, error) {
	conn, err := p.dial(ctx, o)
	if err != nil && ctx.Err() == nil {
		err = &fault{faultUnreachable, err}
	}
	return conn, p.blame(ctx, err)
}

// open connects, and sees to it that the plugin has described itself.
func (p *remote) open(ctx context.Context) (*wire.Conn, protocol.Description, error) {
	conn, err := p.reach(ctx, wire.DialOptions{})
	if err != nil {
		return nil, protocol.Description{}, err
	}
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if known != nil {
		return conn, *known, nil
	}
	d, err := p.introduce(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, protocol.Description{}, err
	}
	return conn, d, nil
}

func (p *remote) introduce(ctx context.Context, conn *wire.Conn) (protocol.Description, error) {
	var out protocol.DescribeOut
	if err := conn.Call(ctx, protocol.MethodDescribe, nil, &out); err != nil {
		return protocol.Description{}, p.blame(ctx, err)
	}
	d, err := p.accept(out)
	return d, p.blame(ctx, err)
}

// accept checks a description, and knows it from now on.
func (p *remote) accept(out protocol.DescribeOut) (protocol.Description, error) {
	d, err := protocol.ToDescription(out)
	switch {
	case err != nil:
		return d, &fault{faultGarbage, err}
	case p.name != "" && d.Name != p.name:
		return d, &fault{faultIncompatible, fmt.Errorf("it says that its name is %q", d.Name)}
	case !d.Speaks():
		return d, incompatible(d.Versions)
	}
	p.mu.Lock()
	p.known = &d
	p.mu.Unlock()
	if p.learn != nil {
		p.learn(d)
	}
	return d, nil
}

func incompatible(versions []int64) *fault {
	return &fault{faultIncompatible, fmt.Errorf("of the protocol it speaks revision %v, and not %d", versions[:min(len(versions), 10)], protocol.Version)}
}

func (p *remote) forget() {
	p.mu.Lock()
	p.known = nil
	p.mu.Unlock()
}

// follow keeps a call of Describe open until ctx ends, or the plugin does. The first description is
// waited for no longer than first.
func (p *remote) follow(ctx context.Context, first time.Duration) error {
	defer p.forget()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(first, func() { cancel(&fault{faultSilent, fmt.Errorf("it did not describe itself within %s", first)}) })
	defer timer.Stop()
	conn, err := p.reach(ctx, wire.DialOptions{MaxMessage: maxDescription})
	if err != nil {
		return err
	}
	defer conn.Close()
	described := false
	err = conn.Stream(ctx, protocol.MethodDescribe, nil, func(parameters json.RawMessage, _ bool) error {
		timer.Stop()
		var out protocol.DescribeOut
		if err := wire.Decode(parameters, &out); err != nil {
			return &fault{faultGarbage, err}
		}
		if _, err := p.accept(out); err != nil {
			return err
		}
		described = true
		return pause(ctx, betweenDescriptions)
	})
	if err == nil {
		return &fault{faultUnreachable, errors.New("it has ended")}
	}
	var f *fault
	if err = p.blame(ctx, err); described && errors.As(err, &f) && f.kind == faultBroken {
		f.kind = faultUnreachable // between two calls this is no failure
	}
	return err
}

// blame finds out who is to blame for an error of a call: a fault is the plugin's, an error of ctx the
// caller's, any other one its engine's. Nothing is known of the plugin after the first kind.
func (p *remote) blame(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	var f *fault
	var reply *wire.Error
	switch {
	case errors.As(err, &f):
	case errors.As(context.Cause(ctx), &f):
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &reply):
		err := refusal(reply)
		if !errors.As(err, &f) {
			return err
		}
	case hungUp(err):
		f = &fault{faultBroken, errors.New("it closed the connection in the middle of a call")}
		if p.explain != nil {
			if why := p.explain(); why != nil {
				f.err = why
			}
		}
	default:
		f = &fault{faultGarbage, err}
	}
	p.forget()
	return f
}

// refusal is what an error reply means.
func refusal(reply *wire.Error) error {
	switch reply.Name {
	case protocol.ErrorEngineUnavailable:
		var unavailable iounmoorplugin.EngineUnavailable
		if err := wire.Decode(reply.Parameters, &unavailable); err != nil {
			return &fault{faultGarbage, fmt.Errorf("its error EngineUnavailable: %w", err)}
		}
		return protocol.ToError(unavailable)
	case protocol.ErrorUnsupportedVersion:
		var unsupported iounmoorplugin.UnsupportedProtocolVersion
		if err := wire.Decode(reply.Parameters, &unsupported); err != nil {
			return &fault{faultGarbage, fmt.Errorf("its error UnsupportedProtocolVersion: %w", err)}
		}
		return incompatible(unsupported.Supported)
	case "org.varlink.service.PermissionDenied":
		return &fault{faultUnreachable, errors.New("it does not let this user call it")}
	}
	return &fault{faultGarbage, fmt.Errorf("there is no error %.200q", reply.Error())}
}

func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// bound is what a call may bring.
type bound struct {
	// items is at most how many; bytes how large all replies are together.
	items, bytes int
	// silence is how long a reply may take.
	silence time.Duration
}

// boundOf has no silence: a deadline is there.
func boundOf(n int) bound {
	return bound{items: n, bytes: maxAnswer + n*maxAnswerEach, silence: forEver}
}

const forEver time.Duration = 1 << 62

// listen is a context that ends once a plugin was silent for so long. Its timer is to be reset with each
// sign of life.
func listen(ctx context.Context, silence time.Duration) (context.Context, *time.Timer, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(silence, func() {
		cancel(&fault{faultSilent, fmt.Errorf("it gave no sign of life for %s", silence)})
	})
	return ctx, timer, func() {
		timer.Stop()
		cancel(nil)
	}
}

// collect makes a call with more and reads the items of all its replies. With an error it returns those
// that came before.
func collect[Out, W, M any](ctx context.Context, p *remote, conn *wire.Conn, method string, in any, most bound,
	items func(Out) []W, read func(W) (M, error)) ([]M, error) {
	ctx, timer, end := listen(ctx, most.silence)
	defer end()
	var all []M
	err := conn.Stream(ctx, method, in, func(parameters json.RawMessage, continues bool) error {
		timer.Reset(most.silence)
		if most.bytes -= len(parameters); most.bytes < 0 {
			return &fault{faultGarbage, errors.New("its answer has no end")}
		}
		var out Out
		if err := wire.Decode(parameters, &out); err != nil {
			return &fault{faultGarbage, err}
		}
		got := items(out)
		if len(got) > most.items-len(all) {
			return &fault{faultGarbage, fmt.Errorf("it gave more answers than the %d that were due", most.items)}
		}
		read, err := readAll(got, read)
		if err != nil {
			return &fault{faultGarbage, err}
		}
		all = append(all, read...)
		if len(got) == 0 && continues {
			return pause(ctx, betweenSigns)
		}
		return nil
	})
	return all, p.blame(ctx, err)
}

func readAll[W, M any](all []W, read func(W) (M, error)) ([]M, error) {
	done := make([]M, len(all))
	for i, w := range all {
		var err error
		if done[i], err = read(w); err != nil {
			return nil, err
		}
	}
	return done, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// socketPath is the path of an address of the form unix:/path.
func socketPath(address string) (string, error) {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok || !strings.HasPrefix(path, "/") || strings.ContainsAny(path, ";\x00") {
		return "", fmt.Errorf("%.200q is no address of a socket, such as unix:/run/unmoor/plugins/lima.sock", address)
	}
	return path, nil
}
