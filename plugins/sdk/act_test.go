package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
)

// TestOutcomes: exactly one outcome a handle, whatever the plugin says.
func TestOutcomes(t *testing.T) {
	ok := func(n int) core.Outcome { return core.Outcome{Container: id(n), StorageRemoved: true} }
	for _, test := range []struct {
		name   string
		answer func(context.Context) []core.Outcome
		// problem and words in the message of containers 1 and 2; empty for success
		first, second string
	}{
		{"all well", func(context.Context) []core.Outcome { return []core.Outcome{ok(2), ok(1)} }, "", ""},
		{"one is left out", func(context.Context) []core.Outcome { return []core.Outcome{ok(1)} }, "", "failed: the plugin gave no outcome"},
		{"one twice", func(context.Context) []core.Outcome { return []core.Outcome{ok(1), ok(2), ok(2)} }, "", "failed: the plugin gave more than one outcome"},
		{"another one's", func(context.Context) []core.Outcome { return []core.Outcome{ok(1), ok(2), ok(9)} }, "", ""},
		{"along goes what is no ID", func(context.Context) []core.Outcome {
			return []core.Outcome{ok(1), {Container: id(2), Along: []core.ContainerID{"web"}}}
		}, "", "failed: the plugin's outcome makes no sense"},
		{"panic", func(context.Context) []core.Outcome { panic("oh") }, "failed: stop panicked: oh", "failed: stop panicked: oh"},
		{"panic half-way", func(ctx context.Context) []core.Outcome { Settled(ctx, ok(1)); panic("oh") }, "", "failed: stop panicked: oh"},
		{"told before", func(ctx context.Context) []core.Outcome {
			Settled(ctx, ok(1))
			Settled(ctx, core.Outcome{Container: id(1), Err: errors.New("no")})
			Settled(ctx, ok(9))
			return []core.Outcome{ok(1), ok(2)}
		}, "", ""},
		{"told before and not again", func(ctx context.Context) []core.Outcome {
			Settled(ctx, core.Outcome{Container: id(2), Err: errors.New("no")})
			return []core.Outcome{ok(1)}
		}, "", "failed: no"},
		{"problems", func(context.Context) []core.Outcome {
			return []core.Outcome{{Container: id(1), Err: fmt.Errorf("it runs: %w", core.ErrStillInUse), StorageRemoved: true},
				{Container: id(2), Err: fmt.Errorf("crio's: %w", core.ErrNotOwner)}}
		}, "still_in_use: it runs", "not_owner: crio's"},
		{"stale", func(context.Context) []core.Outcome {
			return []core.Outcome{ok(1), {Container: id(2), Err: core.ErrPlanStale}}
		}, "", "revision_mismatch: the plan no longer holds"},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := serveFake(t, fake{stop: func(ctx context.Context, _ []core.Handle, _ time.Duration) []core.Outcome { return test.answer(ctx) }}, nil)
			for _, more := range []bool{false, true} {
				var all []protocol.StopOut
				var err error
				if more {
					all, err = replies[protocol.StopOut](v, protocol.MethodStop, stopIn(1, 2))
				} else {
					var out protocol.StopOut
					out, err = call1[protocol.StopOut](v, protocol.MethodStop, stopIn(1, 2))
					all = []protocol.StopOut{out}
				}
				if err != nil {
					t.Fatal(err)
				}
				got := make(map[string]string)
				for _, out := range all {
					for _, o := range out.Outcomes {
						if _, doubled := got[o.Id]; doubled {
							t.Errorf("two outcomes of %s", o.Id)
						}
						got[o.Id] = ""
						if o.Problem != nil {
							got[o.Id] = string(*o.Problem) + ": " + *o.Message
							if o.StorageRemoved != nil {
								t.Errorf("%s is gone and not gone", o.Id)
							}
						}
					}
				}
				if len(got) != 2 {
					t.Errorf("%d outcomes: %v", len(got), got)
				}
				for n, want := range map[int]string{1: test.first, 2: test.second} {
					o, there := got[string(id(n))]
					if !there || (want == "") != (o == "") || !strings.HasPrefix(o, want) {
						t.Errorf("container %d (more: %t): %q, not %q", n, more, o, want)
					}
				}
			}
		})
	}
}

// TestStream: outcomes come when they are there, and signs of life in between.
func TestStream(t *testing.T) {
	first, second := make(chan struct{}), make(chan struct{})
	v := serveFake(t, fake{stop: func(ctx context.Context, handles []core.Handle, grace time.Duration) []core.Outcome {
		if grace != 10*time.Millisecond {
			t.Errorf("the grace period is %s", grace)
		}
		<-first
		Settled(ctx, core.Outcome{Container: id(2)})
		<-second
		return well(handles)
	}}, func(s *service) { s.heartbeat = 20 * time.Millisecond })
	beats, state := 0, 0
	err := v.dial().Stream(t.Context(), protocol.MethodStop, stopIn(1, 2, 3), func(parameters json.RawMessage, continues bool) error {
		var out protocol.StopOut
		if err := wire.Decode(parameters, &out); err != nil {
			return err
		}
		switch {
		case len(out.Outcomes) == 0 && continues:
			beats++
			if beats == 3 {
				close(first)
			}
			if beats == 6 {
				close(second)
			}
		case state == 0 && continues && len(out.Outcomes) == 1 && out.Outcomes[0].Id == string(id(2)):
			state = 1
		case state == 1 && !continues && len(out.Outcomes) == 2:
			state = 2
		default:
			return fmt.Errorf("in state %d: %s, continues: %t", state, parameters, continues)
		}
		return nil
	})
	if err != nil || state != 2 || beats < 6 {
		t.Errorf("%v, state %d, %d signs of life", err, state, beats)
	}
}

// TestCallerGoesAway: what was begun is not broken off.
func TestCallerGoesAway(t *testing.T) {
	begun, release, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	v := serveFake(t, fake{remove: func(ctx context.Context, handles []core.Handle) []core.Outcome {
		close(begun)
		<-release
		done <- ctx.Err()
		return well(handles)
	}}, func(s *service) { s.heartbeat = 5 * time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	c := v.dial()
	over := make(chan error, 1)
	in := stopIn(1)
	go func() {
		over <- c.Stream(ctx, protocol.MethodRemove, protocol.RemoveIn{ProtocolVersion: 1, Store: in.Store, Handles: in.Handles},
			func(json.RawMessage, bool) error { return nil })
	}()
	<-begun
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	// Others are answered meanwhile.
	if _, err := call1[protocol.ClaimOut](v, protocol.MethodClaim, claimIn(1)); err != nil {
		t.Error(err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("the work's context ended: %v", err)
	}
}

// TestEnd: told to end, the plugin lets what runs end first, and its caller knows how.
func TestEnd(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	v := serveFake(t, fake{stop: func(ctx context.Context, handles []core.Handle, _ time.Duration) []core.Outcome {
		close(begun)
		<-release
		if ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		ended.Store(true)
		return well(handles)
	}}, func(s *service) { s.heartbeat = 5 * time.Millisecond })
	idle := v.dial()
	c := v.dial()
	type result struct {
		outcomes int
		err      error
	}
	over := make(chan result, 1)
	beats := make(chan struct{}, 1000)
	go func() {
		var r result
		r.err = c.Stream(context.Background(), protocol.MethodStop, stopIn(1, 2), func(parameters json.RawMessage, _ bool) error {
			var out protocol.StopOut
			err := wire.Decode(parameters, &out)
			r.outcomes += len(out.Outcomes)
			beats <- struct{}{}
			return err
		})
		over <- r
	}()
	<-begun
	v.end()
	// New callers are refused, and those at hand still hear of it.
	for {
		fresh, err := wire.Dial(t.Context(), "unix:"+v.socket, wire.DialOptions{})
		if err != nil {
			break
		}
		fresh.Close()
	}
	for range 3 {
		<-beats
	}
	if err := idle.Call(t.Context(), protocol.MethodDescribe, nil, nil); err == nil {
		t.Error("a plugin that is about to end takes calls")
	}
	close(release)
	if r := <-over; r.err != nil || r.outcomes != 2 {
		t.Errorf("%+v", r)
	}
	v.close()
	if !ended.Load() {
		t.Error("it ended before its work did")
	}
}

// TestHungWork: a plugin that never returns costs its own containers, not its caller's time for ever.
func TestHungWork(t *testing.T) {
	release := make(chan struct{})
	var told atomic.Bool
	v := serveFake(t, fake{stop: func(ctx context.Context, handles []core.Handle, _ time.Duration) []core.Outcome {
		<-ctx.Done()
		told.Store(true)
		<-release
		return well(handles)
	}}, func(s *service) { s.patience = 50 * time.Millisecond })
	t.Cleanup(func() { close(release) })
	out, err := call1[protocol.StopOut](v, protocol.MethodStop, stopIn(1))
	if err != nil || len(out.Outcomes) != 1 || out.Outcomes[0].Problem == nil || !strings.Contains(*out.Outcomes[0].Message, "did not return") {
		t.Errorf("%+v, %v", out, err)
	}
	if !told.Load() {
		t.Error("it was not told that its time is over")
	}
}

// TestEndlessGrace: the longest grace period there is leaves time.
func TestEndlessGrace(t *testing.T) {
	v := serveFake(t, fake{stop: func(ctx context.Context, handles []core.Handle, grace time.Duration) []core.Outcome {
		if end, ok := ctx.Deadline(); !ok || time.Until(end) < grace || grace < 365*24*time.Hour {
			t.Errorf("a grace period of %s ends at %s", grace, end)
		}
		return well(handles)
	}}, nil)
	ns := make([]int, protocol.MaxBatch)
	for i := range ns {
		ns[i] = i
	}
	in := stopIn(ns...)
	in.GracePeriodMs = 1<<63 - 1
	if _, err := call1[protocol.StopOut](v, protocol.MethodStop, in); err != nil {
		t.Error(err)
	}
}
