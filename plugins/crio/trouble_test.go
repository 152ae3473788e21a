package crio

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

// within runs f and fails the test where it takes longer than most.
// within limits what must not hang. It is wide, for a machine that is busy.
func within(t *testing.T, most time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > most {
		t.Errorf("it took %v, more than %v", took, most)
	}
}

// Whatever is the matter with CRI-O, a claim is an error within the time, and says what to do.
func TestClaimInTrouble(t *testing.T) {
	n := newNode(t)
	pod := n.pod("web")
	n.run(pod, "app", obliging)
	p := n.plugin(Options{Settling: -1, Timeout: 700 * time.Millisecond})
	containers := n.stored()
	for _, s := range []struct {
		scenario, says string
		switches       []string
		down           bool
	}{
		{"hung", "no answer in time", []string{"hang"}, false},
		{"hung in one question", "no answer in time", []string{"hang ImageFsInfo"}, false},
		{"too slow", "no answer in time", []string{"slow=5s"}, false},
		{"failing", "out of order", []string{"fail=out_of_order ListPodSandbox"}, false},
		{"garbage", "nonsense", []string{"garbage"}, false},
		{"garbage in one answer", "nonsense", []string{"garbage ListContainers"}, false},
		{"bytes that are no gRPC", "does not speak gRPC", []string{"bytes"}, false},
		{"down", "systemctl status crio", nil, true},
	} {
		t.Run(s.scenario, func(t *testing.T) {
			n.control(s.switches...)
			if s.down {
				n.stop()
				defer n.start()
			}
			defer n.control("")
			within(t, 4500*time.Millisecond, func() {
				claims, err := p.Claim(t.Context(), n.store, containers)
				if err == nil || !strings.Contains(err.Error(), s.says) {
					t.Errorf("claims %v, error %v", claims, err)
				}
				t.Log(err)
			})
			within(t, 4500*time.Millisecond, func() {
				if _, err := p.Describe(t.Context()); err == nil && len(s.switches) == 1 && !strings.Contains(s.switches[0], " ") && s.switches[0] != "garbage" {
					t.Error("it describes itself")
				}
			})
		})
	}
	t.Run("slow, but not too slow", func(t *testing.T) {
		n.control("slow=300ms")
		defer n.control("")
		if c := n.claims(p)[pod]; c.Use != core.UseInUse {
			t.Errorf("%+v", c)
		}
	})
	t.Run("the caller gives up", func(t *testing.T) {
		n.control("hang")
		defer n.control("")
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		within(t, 5*time.Second, func() {
			if _, err := p.Claim(ctx, n.store, containers); err == nil {
				t.Error("no error")
			}
		})
	})
	t.Run("no socket", func(t *testing.T) {
		p, err := New(Options{Address: "unix:" + n.dir + "/none.sock"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Claim(t.Context(), n.store, containers); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
		if d, err := p.Describe(t.Context()); !errors.Is(err, core.ErrEngineAbsent) || d.Name != Name || len(d.Hints) == 0 {
			t.Errorf("%+v, %v", d, err)
		}
	})
	if d, err := p.Describe(t.Context()); err != nil || d.EngineVersion != "1.37.0" || d.Name != Name {
		t.Errorf("%+v, %v", d, err)
	}
}

// Stops and removals end within their time, and nothing is lost.
func TestActInTrouble(t *testing.T) {
	n := newNode(t)
	pod, other := n.pod("web"), n.pod("other")
	app := n.run(pod, "app", obliging)
	done := n.exited(other, "done")
	p := n.plugin(Options{Settling: -1, Timeout: 500 * time.Millisecond, StopMargin: 500 * time.Millisecond, RemoveTimeout: 500 * time.Millisecond})
	toStop, toRemove := n.handles(p, app, other), n.handles(p, done)
	failed := func(t *testing.T, outcomes []core.Outcome) {
		t.Helper()
		for _, o := range outcomes {
			if o.Err == nil {
				t.Errorf("%+v", o)
			}
			t.Log(o.Err)
		}
	}
	for _, s := range []struct {
		scenario         string
		stop, remove     []string
		stopTime, remTim time.Duration
	}{
		{"hung", []string{"hang"}, []string{"hang"}, 15 * time.Second, 10 * time.Second},
		{"hung in the act", []string{"hang StopContainer StopPodSandbox"}, []string{"hang RemoveContainer"}, 25 * time.Second, 10 * time.Second},
		{"failing", []string{"fail=no StopContainer StopPodSandbox"}, []string{"fail=no RemoveContainer"}, 10 * time.Second, 10 * time.Second},
		{"garbage", []string{"fail=no StopContainer", "garbage ListContainers"}, []string{"garbage ContainerStatus"}, 10 * time.Second, 10 * time.Second},
		{"no gRPC", []string{"bytes"}, []string{"bytes"}, 10 * time.Second, 10 * time.Second},
	} {
		t.Run(s.scenario, func(t *testing.T) {
			defer n.control("")
			n.control(s.stop...)
			within(t, s.stopTime, func() { failed(t, p.Stop(t.Context(), n.store, toStop, time.Second)) })
			n.control(s.remove...)
			within(t, s.remTim, func() { failed(t, p.Remove(t.Context(), n.store, toRemove)) })
		})
	}
	t.Run("down", func(t *testing.T) {
		n.stop()
		defer n.start()
		failed(t, p.Stop(t.Context(), n.store, toStop, 0))
		failed(t, p.Remove(t.Context(), n.store, toRemove))
	})
	t.Run("restarting", func(t *testing.T) {
		n.control("hang StopContainer")
		defer n.control("")
		got := make(chan []core.Outcome)
		go func() { got <- p.Stop(t.Context(), n.store, toStop[:1], 5*time.Second) }()
		n.eventually("the stop is under way", func() bool {
			for _, call := range n.calls() {
				if call == "StopContainer" {
					return true
				}
			}
			return false
		})
		n.stop()
		within(t, 4*time.Second, func() { failed(t, <-got) }) // less than the grace period
		n.control("")
		n.start()
	})
	for _, id := range []string{app, done, pod, other} {
		if !n.there(id) || !n.listed(id) {
			t.Errorf("%.12s is lost", id)
		}
	}
	// And it goes on afterwards.
	handles := n.handles(p, app, done)
	succeeded(t, "stop", p.Stop(t.Context(), n.store, handles, time.Second))
	succeeded(t, "remove", p.Remove(t.Context(), n.store, handles))
}
