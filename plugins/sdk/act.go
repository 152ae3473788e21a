package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// A batch's share of time: what one container may take, and how many an engine stops side by side, at
// least.
const (
	each   = 200 * time.Millisecond
	atOnce = 8
)

// Stop has the plugin stop.
func (s *service) Stop(ctx context.Context, c call, version int64, store iounmoorplugin.Store, handles []iounmoorplugin.Handle, graceMs int64) error {
	info, asked, answered, err := s.admitHandles(ctx, &c, version, store, handles)
	if answered {
		return err
	}
	if graceMs < 0 {
		return s.invalid(ctx, &c, "gracePeriodMs", fmt.Errorf("%d ms are less than none", graceMs))
	}
	const most = math.MaxInt64 / int64(time.Millisecond) / (2 + protocol.MaxBatch/atOnce) // what follows cannot overflow
	grace := time.Duration(min(graceMs, most)) * time.Millisecond
	share := grace*time.Duration(1+len(asked)/atOnce) + each*time.Duration(len(asked))
	return s.act(ctx, &c, "stop", asked, share, c.ReplyStop, func(ctx context.Context) []core.Outcome {
		return s.plugin.Stop(ctx, info, asked, grace)
	})
}

// Remove has the plugin remove.
func (s *service) Remove(ctx context.Context, c call, version int64, store iounmoorplugin.Store, handles []iounmoorplugin.Handle) error {
	info, asked, answered, err := s.admitHandles(ctx, &c, version, store, handles)
	if answered {
		return err
	}
	return s.act(ctx, &c, "remove", asked, each*time.Duration(len(asked)), c.ReplyRemove, func(ctx context.Context) []core.Outcome {
		return s.plugin.Remove(ctx, info, asked)
	})
}

func (s *service) admitHandles(ctx context.Context, c *call, version int64, store iounmoorplugin.Store, handles []iounmoorplugin.Handle) (core.StoreInfo, []core.Handle, bool, error) {
	info, answered, err := s.admit(ctx, c, version, store)
	if answered {
		return info, nil, true, err
	}
	asked, err := read(handles, protocol.ToHandle, handleID)
	if err != nil {
		return info, nil, true, s.invalid(ctx, c, "handles", err)
	}
	return info, asked, false, nil
}

// act lets the plugin work and sends each outcome once it is there. The work does not end with ctx, which
// does when the caller goes away and when the plugin is to end; nor does act, before the work has.
func (s *service) act(ctx context.Context, c *call, verb string, handles []core.Handle, share time.Duration,
	reply func(context.Context, []iounmoorplugin.Outcome) error, work func(context.Context) []core.Outcome) error {
	l := newLedger(verb, handles, s.log)
	// Replies go out even while the plugin is about to end.
	sending := context.WithoutCancel(ctx)
	working, cancel := context.WithTimeout(context.WithValue(sending, ledgerKey{}, l), share+s.patience)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.finish(guard(s.log, verb, func() ([]core.Outcome, error) { return work(working), nil }))
	}()
	beat := time.NewTicker(s.heartbeat)
	defer beat.Stop()
	hung := time.NewTimer(share + s.patience + s.patience/10) // it does not look at its context
	defer hung.Stop()
	var gone error
	for more := true; more; {
		news := l.news
		if !c.WantsMore() {
			news = nil
		}
		select {
		case <-done:
			more = false
		case <-hung.C:
			l.finish(nil, errors.New("the plugin did not return"))
			more = false
		case <-beat.C:
		case <-news:
		}
		if gone == nil && (!more || c.WantsMore()) {
			c.Continues = more
			gone = reply(sending, l.take())
		}
	}
	return gone
}

// ledger has the outcomes of one call: exactly one a handle, whatever the plugin says.
type ledger struct {
	verb string
	log  *slog.Logger
	// news has something to take.
	news chan struct{}

	mu   sync.Mutex
	open map[core.ContainerID]bool
	// order is that of the handles.
	order   []core.ContainerID
	settled []iounmoorplugin.Outcome
}

func newLedger(verb string, handles []core.Handle, log *slog.Logger) *ledger {
	l := &ledger{verb: verb, log: log, news: make(chan struct{}, 1), open: make(map[core.ContainerID]bool, len(handles))}
	for _, h := range handles {
		l.open[h.Container.ID] = true
		l.order = append(l.order, h.Container.ID)
	}
	return l
}

// take returns the outcomes that were not taken yet.
func (l *ledger) take() []iounmoorplugin.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := append([]iounmoorplugin.Outcome{}, l.settled...)
	l.settled = nil
	return all
}

// settle notes the outcome of an open container.
func (l *ledger) settle(o core.Outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.open[o.Container] {
		l.log.Error("the plugin gave an outcome that nobody waits for", "verb", l.verb, "container", o.Container)
		return
	}
	l.enter(o)
	select {
	case l.news <- struct{}{}:
	default:
	}
}

func (l *ledger) enter(o core.Outcome) {
	w, err := protocol.FromOutcome(o)
	if err != nil {
		// Whatever went is not known to have gone; the kernel and the store say what is left. An error of a
		// container that was asked about can be sent.
		w, _ = protocol.FromOutcome(core.Outcome{Container: o.Container, Err: fmt.Errorf("the plugin's outcome makes no sense: %w", err)})
	}
	delete(l.open, o.Container)
	l.settled = append(l.settled, w)
}

// finish settles what is open by what the plugin returned, or by err.
func (l *ledger) finish(returned []core.Outcome, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := make(map[core.ContainerID][]core.Outcome, len(returned))
	for _, o := range returned {
		of[o.Container] = append(of[o.Container], o)
	}
	for _, id := range l.order {
		if !l.open[id] {
			continue
		}
		o := core.Outcome{Container: id, Err: err}
		switch all := of[id]; {
		case err != nil:
		case len(all) == 0:
			o.Err = errors.New("the plugin gave no outcome")
		case len(all) > 1:
			o.Err = errors.New("the plugin gave more than one outcome")
		default:
			o = all[0]
		}
		l.enter(o)
	}
}
