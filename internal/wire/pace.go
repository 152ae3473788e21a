package wire

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// backOff is how long to wait after one failure, and after more.
type backOff struct{ last time.Duration }

func (b *backOff) first() bool { return b.last == 0 }
func (b *backOff) over()       { b.last = 0 }

// sleep waits from 5 ms to 1 s, or until ctx ends.
func (b *backOff) sleep(ctx context.Context) {
	b.last = min(max(2*b.last, 5*time.Millisecond), time.Second)
	timer := time.NewTimer(b.last)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// throttle logs no more than ten lines a second, at whatever rate clients like to cause them.
type throttle struct {
	mu    sync.Mutex
	since time.Time
	n     int
	held  int
}

func (t *throttle) log(l *slog.Logger, level slog.Level, message string, args ...any) {
	held, ok := t.pass(time.Now())
	if !ok {
		return
	}
	if held > 0 {
		args = append(args, "held_back", held)
	}
	l.Log(context.Background(), level, message, args...)
}

// pass says whether a line may pass, and how many could not since one did.
func (t *throttle) pass(now time.Time) (held int, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.since) >= time.Second {
		t.since, t.n = now, 0
	}
	if t.n++; t.n > 10 {
		t.held++
		return 0, false
	}
	held, t.held = t.held, 0
	return held, true
}

// slots are what handlers wait for. Some are kept for the privileged.
type slots struct {
	all      chan struct{}
	ordinary chan struct{}
}

func newSlots(n, kept int) slots {
	return slots{make(chan struct{}, n), make(chan struct{}, n-kept)}
}

// take waits for one, and returns ctx's error where that ends first.
func (s slots) take(ctx context.Context, privileged bool) error {
	if !privileged {
		if err := enter(ctx, s.ordinary); err != nil {
			return err
		}
	}
	err := enter(ctx, s.all)
	if err != nil && !privileged {
		<-s.ordinary
	}
	return err
}

func (s slots) give(privileged bool) {
	<-s.all
	if !privileged {
		<-s.ordinary
	}
}

func enter(ctx context.Context, c chan struct{}) error {
	select {
	case c <- struct{}{}:
		return nil
	default:
	}
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
