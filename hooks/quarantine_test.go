package hooks_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// TestQuarantine: three failures within a minute, then it is left alone for longer and longer, until one
// right answer. What it may own is kept all the while.
func TestQuarantine(t *testing.T) {
	all := store(t)
	synctest.Test(t, func(t *testing.T) {
		var asked int
		manner := "garbage"
		p := fake{claim: func(ctx context.Context, c []core.Container) ([]core.Claim, error) {
			asked++
			switch manner {
			case "silent":
				<-ctx.Done()
				return nil, ctx.Err()
			case "broken":
				panic("oh")
			case "down":
				return nil, errDown
			case "right":
				return answering(func(core.Container) core.Claim { return notMine }).claim(ctx, c)
			}
			return nil, nil
		}}
		var events []hooks.State
		r, err := hooks.New([]hooks.Entry{entry("bad", p), entry("good", saying(notMine))}, hooks.Options{
			Changed: func(s hooks.PluginStatus) {
				if n := len(events); s.Name == "bad" && (n == 0 || events[n-1] != s.State) {
					events = append(events, s.State)
				}
			}})
		if err != nil {
			t.Fatal(err)
		}
		// claim asks once, and says whether the plugin was asked.
		claim := func() (core.Holding, bool) {
			before := asked
			holdings := r.Claim(t.Context(), core.StoreInfo{}, all)
			synctest.Wait()
			if manner != "right" && holdings[id(1)].Kind != core.Undetermined || holdings[id(2)].Kind != core.Unowned {
				t.Errorf("%+v", holdings)
			}
			return holdings[id(1)], asked > before
		}
		quarantined := func(d time.Duration) {
			t.Helper()
			for wait := range slices.Values([]time.Duration{0, d / 2, d/2 - time.Millisecond}) {
				time.Sleep(wait)
				h, wasAsked := claim()
				if wasAsked || !strings.Contains(h.Reason, "is in quarantine until ") || r.Status()[0].State != hooks.StateQuarantined {
					t.Errorf("after %s of %s: %v, %+v", wait, d, wasAsked, h)
				}
			}
			for _, o := range append(r.Stop(t.Context(), "bad", core.StoreInfo{}, handles(1), 0), r.Remove(t.Context(), "bad", core.StoreInfo{}, handles(1))...) {
				if o.Err == nil || !strings.Contains(o.Err.Error(), "is in quarantine until ") || !strings.Contains(o.Err.Error(), "restart it") {
					t.Errorf("%v", o.Err)
				}
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			if s := r.Status()[0].State; s != hooks.StateUnreachable {
				t.Errorf("after %s it is %s", d, s)
			}
		}
		fail := func() {
			t.Helper()
			if _, wasAsked := claim(); !wasAsked {
				t.Error("it was not asked")
			}
		}
		// Failures that are further apart do not count, nor does an engine that is down.
		for range 5 {
			fail()
			time.Sleep(31 * time.Second)
		}
		for _, manner = range []string{"down", "down", "down", "down", "garbage", "silent"} {
			fail()
		}
		manner = "broken"
		fail()
		for _, d := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
			quarantined(d)
			fail() // once is enough now
		}
		quarantined(10 * time.Minute)
		manner = "right"
		if h, _ := claim(); h.Kind != core.Unowned {
			t.Errorf("%+v", h)
		}
		manner = "garbage"
		fail()
		fail()
		fail()
		quarantined(30 * time.Second)
		fail()
		// An operator's word ends it too.
		if err := r.Configure([]hooks.Entry{entry("bad", p), entry("good", saying(notMine))}); err != nil {
			t.Fatal(err)
		}
		fail()
		for _, s := range []hooks.State{hooks.StateUnreachable, hooks.StateEngineUnavailable, hooks.StateQuarantined, hooks.StateReady} {
			if !slices.Contains(events, s) {
				t.Errorf("%s was not told: %v", s, events)
			}
		}
		if n := len(events); n > 1 && events[n-1] == events[n-2] {
			t.Errorf("told twice: %v", events)
		}
	})
}

// TestQuarantineOfAct: a plugin that fails in Stop is left alone as one that fails in Claim.
func TestQuarantineOfAct(t *testing.T) {
	p := serveRaw(t, t.TempDir(), "p", with("Stop", each("outcomes", `{"id":%q,"problem":"boredom"}`)))
	r := registry(t, socketEntry("p", p.address()))
	for range 5 {
		if o := r.Stop(t.Context(), "p", theStore, handles(1), 0)[0]; o.Err == nil {
			t.Errorf("%+v", o)
		}
	}
	if n := p.called("Stop"); n != 3 {
		t.Errorf("it was asked %d times", n)
	}
	if s := r.Status()[0]; s.State != hooks.StateQuarantined {
		t.Errorf("%+v", s)
	}
	// To describe itself is no proof of more.
	r.Describe(t.Context())
	if s := r.Status()[0]; s.State != hooks.StateQuarantined {
		t.Errorf("%+v", s)
	}
	// An operator who registers it again says that it was mended.
	if _, err := r.Register(t.Context(), p.address()); err != nil {
		t.Fatal(err)
	}
	r.Stop(t.Context(), "p", theStore, handles(1), 0)
	if n := p.called("Stop"); n != 4 {
		t.Errorf("it was asked %d times", n)
	}
}

// TestCrashesCount: a plugin that closes the connection in the middle of its calls has failed; one that is
// not there has not.
func TestCrashesCount(t *testing.T) {
	p := serveRaw(t, t.TempDir(), "p", with("Claim", anyMethod("reports")[2].answer))
	e := socketEntry("p", p.address())
	e.Hints = testHints
	gone := socketEntry("gone", "unix:/nowhere/gone.sock")
	gone.Hints = testHints
	r := registry(t, e, gone)
	for range 5 {
		holding(t, r)
	}
	wantStatuses(t, r, "p configured quarantined", "gone configured unreachable")
}
