package sdk

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
)

const (
	// describeTime is what a plugin may take to describe itself; longer is not ready. tail is how long
	// after it ends a plugin that was told so may still say who it is.
	describeTime = 5 * time.Second
	tail         = 500 * time.Millisecond
	// soon is how long a caller waits for a better description than that of an engine that is not ready.
	soon = time.Second
	// lookAgain is how often an engine that is not ready is looked at while somebody watches.
	lookAgain = 5 * time.Second
)

// engine is the description of a plugin as it is known. It is looked at anew when a call shows that it is
// not right any more, and while it is not ready.
type engine struct {
	plugin Plugin
	log    *slog.Logger
	// ctx is that of the service.
	ctx          context.Context
	capabilities protocol.Capabilities
	again        time.Duration
	work         sync.WaitGroup

	mu    sync.Mutex
	known protocol.DescribeOut
	// changed is closed when known changes, looking when the look at hand ends; nil where there is none.
	changed chan struct{}
	looking chan struct{}
}

// newEngine describes the plugin for the first time. Without a name there is no plugin.
func newEngine(ctx context.Context, p Plugin, log *slog.Logger) (*engine, error) {
	e := &engine{plugin: p, log: log, ctx: ctx, again: lookAgain, changed: make(chan struct{}),
		capabilities: protocol.Capabilities{Stop: true, Remove: true}}
	_, e.capabilities.Pin = p.(Pinner)
	_, e.capabilities.List = p.(Lister)
	_, e.capabilities.Build = p.(Builder)
	d, failed := e.ask()
	known, err := e.wire(d, failed == nil)
	if err != nil {
		if failed != nil {
			err = fmt.Errorf("%w (and says: %w)", err, failed)
		}
		return nil, fmt.Errorf("the plugin does not say who it is: %w", err)
	}
	if failed != nil {
		log.Warn("the engine cannot answer", "plugin", d.Name, "error", failed)
	}
	e.known = known
	return e, nil
}

// ask has the plugin describe itself. One that does not look at ctx is not waited for.
func (e *engine) ask() (core.Description, error) {
	ctx, cancel := context.WithTimeout(e.ctx, describeTime)
	defer cancel()
	type answer struct {
		d   core.Description
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		d, err := guard(e.log, "Describe", func() (core.Description, error) { return e.plugin.Describe(ctx) })
		answers <- answer{d, err}
	}()
	select {
	case a := <-answers:
		return a.d, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-answers:
		return a.d, a.err
	case <-time.After(tail):
		return core.Description{}, fmt.Errorf("it did not describe itself within %s", describeTime)
	}
}

func (e *engine) wire(d core.Description, ready bool) (protocol.DescribeOut, error) {
	return protocol.FromDescription(protocol.Description{Description: d, Versions: []int64{protocol.Version},
		Capabilities: e.capabilities, Ready: ready})
}

func (e *engine) name() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known.Name
}

// now is what is known, and a channel that is closed when it changes.
func (e *engine) now() (protocol.DescribeOut, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known, e.changed
}

// answered notes whether the engine could be asked something.
func (e *engine) answered(err error) {
	if known, _ := e.now(); known.Ready != (err == nil) {
		e.look()
	}
}

// look has the plugin describe itself anew. The channel is closed when that is done.
func (e *engine) look() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.looking != nil {
		return e.looking
	}
	done := make(chan struct{})
	e.looking = done
	e.work.Go(func() {
		defer close(done)
		d, err := e.ask()
		e.learn(d, err)
	})
	return done
}

// learn takes a new description. Of one with an error nothing counts but that: the plugin said who it is
// before.
func (e *engine) learn(d core.Description, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.looking = nil
	next := e.known
	next.Ready = false
	if err == nil && d.Name != e.known.Name {
		err = fmt.Errorf("it calls itself %.80q now", d.Name)
	}
	if err == nil {
		var described protocol.DescribeOut
		if described, err = e.wire(d, true); err == nil {
			next = described
		}
	}
	if reflect.DeepEqual(next, e.known) {
		return
	}
	if next.Ready != e.known.Ready {
		e.log.Info("the engine's readiness changed", "plugin", next.Name, "ready", next.Ready, "error", err)
	}
	e.known = next
	close(e.changed)
	e.changed = make(chan struct{})
}

// watch returns when what is known has changed, and ctx's error when it ends first. Meanwhile an engine
// that is not ready is looked at again and again.
func (e *engine) watch(ctx context.Context, ready bool, changed <-chan struct{}) error {
	var tick <-chan time.Time
	if !ready {
		t := time.NewTicker(e.again)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-changed:
			return nil
		case <-tick:
			e.look()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// fresh is now; of an engine that is not ready, after a look that does not take long.
func (e *engine) fresh(ctx context.Context) (protocol.DescribeOut, <-chan struct{}) {
	if known, changed := e.now(); known.Ready {
		return known, changed
	}
	wait := time.NewTimer(soon)
	defer wait.Stop()
	select {
	case <-e.look():
	case <-wait.C:
	case <-ctx.Done():
	}
	return e.now()
}

// wait returns when nothing looks any more.
func (e *engine) wait() { e.work.Wait() }
