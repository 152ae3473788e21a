package wire

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestThrottle(t *testing.T) {
	var out logged
	l := slog.New(slog.NewTextHandler(&out, nil))
	var th throttle
	for range 30 {
		th.log(l, slog.LevelWarn, "x")
	}
	if n := strings.Count(out.String(), "msg=x"); n < 10 || n > 20 { // the second may have changed once
		t.Errorf("%d lines", n)
	}
	th = throttle{}
	now := time.Now()
	for i := range 15 {
		if _, ok := th.pass(now); ok != (i < 10) {
			t.Errorf("line %d: %v", i, ok)
		}
	}
	if held, ok := th.pass(now.Add(time.Second)); !ok || held != 5 {
		t.Errorf("%d were held back, %v", held, ok)
	}
	if held, ok := th.pass(now.Add(time.Second)); !ok || held != 0 {
		t.Errorf("%d were held back, %v", held, ok)
	}
}

func TestQuota(t *testing.T) {
	const root, other, third = 0, 1 << 30, 1<<30 + 1
	q := newQuota(10, 6, 3)
	for _, step := range []struct {
		uid, n int
		ok     bool
	}{
		{other, 6, true}, {other, 1, false}, // its own bound
		{third, 1, true}, {third, 1, false}, // the rest is root's
		{root, 3, true}, {root, 1, false}, // there is no more
	} {
		if got := q.take(step.uid, step.n); got != step.ok {
			t.Errorf("%d takes %d: %v", step.uid, step.n, got)
		}
	}
	q.give(other, 6)
	if !q.take(third, 5) || q.taken() != 9 || len(q.byUID) != 2 {
		t.Errorf("%+v", q)
	}
}

func TestSlots(t *testing.T) {
	s := newSlots(4, 1)
	ctx := t.Context()
	for range 3 {
		if err := s.take(ctx, false); err != nil {
			t.Fatal(err)
		}
	}
	waiting := make(chan error, 1)
	go func() { waiting <- s.take(ctx, false) }()
	if err := s.take(ctx, true); err != nil { // there is one for root
		t.Fatal(err)
	}
	select {
	case <-waiting:
		t.Fatal("a fourth ordinary one has a place")
	case <-time.After(20 * time.Millisecond):
	}
	s.give(true)
	s.give(false)
	if err := await(t, "one is free", waiting); err != nil {
		t.Error(err)
	}
}
