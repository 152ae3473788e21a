package daemon

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/varlink/go/varlink"

	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// ErrPluginUnknown is of a plugin that nobody registered.
var ErrPluginUnknown = errors.New("no such plugin")

// Options of a Daemon.
type Options struct {
	// Logger is slog.Default if nil.
	Logger *slog.Logger
	// Comings, where set, is told of each event of an image or a container that came or went. It is called
	// from several goroutines at once, and what it waits for, a removal waits for.
	Comings func(service.Event)

	// heartbeat is another one than usual, for tests.
	heartbeat time.Duration
}

// Daemon is the service io.unmoor.Removal. Its methods may be called from several goroutines at once.
type Daemon struct {
	options    Options
	logger     *slog.Logger
	events     *ring
	operations *operations
	gate       *gate
	loads      *loadGate
	denials    denials

	// mu guards what follows.
	mu    sync.Mutex
	setup *Setup
	// replaced is closed when another setup is put in the place of this one.
	replaced chan struct{}
	// calls is how many handlers are at work, monitors not counted.
	calls int
	// stopping is closed when no more is to be begun, and idle once no handler is at work then.
	stopping chan struct{}
	idle     chan struct{}
}

// New makes a daemon that begins with a setup.
func New(s *Setup, o Options) *Daemon {
	d := &Daemon{options: o, logger: o.Logger, events: newRing(time.Now(), o.Comings), gate: newGate(), loads: newLoadGate(), setup: s,
		replaced: make(chan struct{}), stopping: make(chan struct{}), idle: make(chan struct{})}
	if d.logger == nil {
		d.logger = slog.Default()
	}
	if d.options.heartbeat == 0 {
		d.options.heartbeat = heartbeat
	}
	d.operations = newOperations(d.logger)
	return d
}

// Interface is what a wire.Server serves.
func (d *Daemon) Interface() wire.Interface {
	return &guarded{VarlinkInterface: removal.VarlinkNew(&handlers{Daemon: d}), daemon: d}
}

// PluginChanged tells those that watch how a plugin stands now.
func (d *Daemon) PluginChanged(p service.Plugin) {
	d.events.publish(service.Event{Type: service.EventPluginChanged, Plugin: &p})
}

// Stop refuses what comes, ends removals between two actions, and returns once all callers have their
// answers, or ctx ends. Monitors go on until their connections are closed. It is called once.
func (d *Daemon) Stop(ctx context.Context) error {
	d.mu.Lock()
	close(d.stopping)
	if d.calls == 0 {
		close(d.idle)
	}
	d.mu.Unlock()
	if err := d.operations.stop(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.idle:
		return nil
	}
}

// begin counts a handler, unless the daemon stops.
func (d *Daemon) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.stopping:
		return false
	default:
	}
	d.calls++
	return true
}

func (d *Daemon) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls--
	select {
	case <-d.stopping:
		if d.calls == 0 {
			close(d.idle)
		}
	default:
	}
}

// guarded lets through what the caller may call.
type guarded struct {
	*removal.VarlinkInterface
	daemon *Daemon
}

// methodSet is the interface that the handlers implement; the generated code does not export it.
var methodSet = reflect.TypeOf(removal.VarlinkNew).In(0)

func (g *guarded) VarlinkDispatch(ctx context.Context, c varlink.Call, method string) error {
	if _, there := methodSet.MethodByName(method); !there {
		return g.VarlinkInterface.VarlinkDispatch(ctx, c, method) // which says that there is none
	}
	d := g.daemon
	peer, known := wire.PeerOf(ctx)
	if !known {
		return wire.ReplyPermissionDenied(ctx, c)
	}
	if method != "Monitor" {
		if !d.begin() {
			reply := removal.VarlinkCall{Call: c}
			return reply.ReplyOperationFailed(ctx, errStopping.Error())
		}
		defer d.finish()
	}
	setup := d.use()
	defer d.release(setup)
	by := caller{Peer: peer, privileged: setup.Access.privileged(peer)}
	if !setup.Access.allows(ctx, peer, classes[method]) {
		d.denied(ctx, setup, by, method)
		return wire.ReplyPermissionDenied(ctx, c)
	}
	return g.VarlinkInterface.VarlinkDispatch(withCall(ctx, &call{caller: by, method: method, setup: setup}), c, method)
}

// denied writes down that somebody wanted what is not theirs.
func (d *Daemon) denied(ctx context.Context, s *Setup, by caller, method string) {
	unwritten, write := d.denials.note(denial{by.UID, method}, time.Now())
	if !write {
		return
	}
	who := s.recordCaller(ctx, by)
	d.logger.Warn("a call was denied", "method", method, "uid", who.UID, "pid", who.PID, "command", who.Command, "unit", who.Unit)
	// It is denied all the same, and the log says what was not written.
	_ = d.audit(s, record{Event: "denied", Method: method, Caller: who, Unwritten: unwritten})
}

// handlers are the methods of the interface.
type handlers struct{ *Daemon }

// untilStop is a context that ends when the daemon stops, too. The answer can be given all the same.
func (h *handlers) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-h.stopping:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
