package daemon

import (
	"context"
	"time"

	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// heartbeat is how often a monitor hears that there is nothing to tell: so that both sides learn of the
// other one's end.
const heartbeat = 30 * time.Second

// monitorBatch is how many events are taken from the ring at once.
const monitorBatch = 64

func (h *handlers) Monitor(ctx context.Context, c removal.VarlinkCall, afterSequence *int64) error {
	if !c.WantsMore() {
		return wire.ReplyExpectedMore(ctx, c.Call)
	}
	leave, err := h.gate.monitor(callOf(ctx).caller)
	if err != nil {
		return c.ReplyOperationFailed(ctx, err.Error())
	}
	defer leave()
	c.Continues = true
	m := &monitor{ring: h.events, c: c, heartbeat: h.options.heartbeat}
	// What is published from here on is told, and what was before it where that is asked for.
	oldest, next := h.events.span()
	m.seen = next - 1
	switch {
	case afterSequence == nil:
	case *afterSequence == 0:
		m.seen = oldest - 1
	default:
		m.seen = *afterSequence
	}
	if lost, err := m.replay(ctx, next); lost || err != nil {
		return err
	}
	yes := true
	if err := c.ReplyMonitor(ctx, &yes, nil, &m.seen, nil); err != nil {
		return err
	}
	return m.watch(ctx)
}

// monitor is one that watches.
type monitor struct {
	ring      *ring
	c         removal.VarlinkCall
	heartbeat time.Duration
	// seen is the last event that it has.
	seen int64
}

// replay sends what it has not seen of the events before next. lost is whether it was answered that some
// are not kept any more.
func (m *monitor) replay(ctx context.Context, next int64) (lost bool, err error) {
	for {
		events, _, ok := m.ring.after(m.seen, monitorBatch)
		if !ok {
			return true, m.lost(ctx)
		}
		for _, e := range events {
			if e.Sequence >= next {
				return false, nil
			}
			if err := m.send(ctx, e); err != nil {
				return false, err
			}
		}
		if len(events) == 0 {
			return false, nil
		}
	}
}

// watch sends what comes, until ctx ends or the monitor is too slow for what is kept.
func (m *monitor) watch(ctx context.Context) error {
	timer := time.NewTimer(m.heartbeat)
	defer timer.Stop()
	yes := true
	for {
		events, changed, ok := m.ring.after(m.seen, monitorBatch)
		if !ok {
			return m.lost(ctx)
		}
		for _, e := range events {
			if err := m.send(ctx, e); err != nil {
				return err
			}
		}
		if len(events) > 0 {
			timer.Reset(m.heartbeat)
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-timer.C:
			if err := m.c.ReplyMonitor(ctx, nil, &yes, &m.seen, nil); err != nil {
				return err
			}
			timer.Reset(m.heartbeat)
		}
	}
}

func (m *monitor) send(ctx context.Context, e service.Event) error {
	w := transcribe.FromEvent(e)
	if err := m.c.ReplyMonitor(ctx, nil, nil, nil, &w); err != nil {
		return err
	}
	m.seen = e.Sequence
	return nil
}

// lost ends the answers.
func (m *monitor) lost(ctx context.Context) error {
	oldest, _ := m.ring.span()
	return m.c.ReplyEventsLost(ctx, oldest)
}
