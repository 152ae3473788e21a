package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// many makes containers, each with so much metadata.
func many(n, metadata int) []core.Container {
	all := make([]core.Container, n)
	for i := range all {
		all[i] = core.Container{ID: id(i + 1), Metadata: `{"image-name":"` + strings.Repeat("x", metadata) + `"}`}
	}
	return all
}

// TestBatches: a call has at most 1024 containers, handles or images and 8 MiB; all calls go over one
// connection, and one description is enough for all.
func TestBatches(t *testing.T) {
	var mu sync.Mutex
	sizes := make(map[string][]int)
	counted := func(method, list, item string) answerer {
		answer := each(list, item)
		return func(c net.Conn, r request) bool {
			mu.Lock()
			sizes[method] = append(sizes[method], len(r.ids()))
			mu.Unlock()
			return answer(c, r)
		}
	}
	p := serveRaw(t, t.TempDir(), "p", map[string]answerer{
		"Claim":  counted("Claim", "reports", `{"id":%q,"ownership":"mine","state":"stopped","use":"idle","evidence":[]}`),
		"Remove": counted("Remove", "outcomes", `{"id":%q,"storageRemoved":true}`),
		"Pins":   counted("Pins", "pins", `{"id":%q,"pinned":"no"}`),
	})
	e := socketEntry("p", p.address())
	e.ClaimTimeout = time.Minute
	r := registry(t, e)
	for _, test := range []struct {
		containers []core.Container
		sizes      string
	}{
		{many(1, 0), "[1]"}, {many(1024, 0), "[1024]"}, {many(2500, 0), "[1024 1024 452]"}, {many(10, 1<<20), "[7 3]"},
	} {
		if testing.Short() && len(test.containers) != 1024 {
			continue // the race detector is slow
		}
		called := func(method string) string {
			mu.Lock()
			defer mu.Unlock()
			defer delete(sizes, method)
			return fmt.Sprint(sizes[method])
		}
		var handles []core.Handle
		for _, c := range test.containers {
			claim := mine
			claim.Container = c.ID
			handles = append(handles, core.Handle{Container: c, Claim: claim})
		}
		for i, h := range r.Claim(t.Context(), theStore, test.containers) {
			if h.Owner() != "p" {
				t.Fatalf("container %s: %+v", i.Short(), h)
			}
		}
		for _, o := range r.Remove(t.Context(), "p", theStore, handles) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		if got := called("Claim"); got != test.sizes {
			t.Errorf("%d containers were asked about in %s, not in %s", len(test.containers), got, test.sizes)
		}
		// These calls are made side by side, in any order.
		if got := called("Remove"); strings.Count(got, " ") != strings.Count(test.sizes, " ") {
			t.Errorf("%d containers were removed in %s", len(test.containers), got)
		}
	}
	images := make([]core.Image, 1500)
	for i := range images {
		images[i].ID = imageID(i + 1)
	}
	for _, pin := range r.Pins(t.Context(), theStore, images, nil) {
		if pin.Pinned != core.PinnedNo {
			t.Fatalf("%+v", pin)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if got := fmt.Sprint(sizes["Pins"]); got != "[1024 476]" {
		t.Errorf("images were asked about in %s", got)
	}
	if n := p.called("Describe"); n != 1 {
		t.Errorf("it was asked %d times who it is", n)
	}
}

// TestUnaskable: what cannot be put to a plugin is in doubt, and nothing else is.
func TestUnaskable(t *testing.T) {
	p := serveRaw(t, t.TempDir(), "p", nil)
	r := registry(t, socketEntry("p", p.address()))
	all := []core.Container{{ID: id(1)}, {ID: "short"}, {ID: id(3), Metadata: "\xff"}, {ID: id(4), Metadata: strings.Repeat("x", 9<<20)}}
	holdings := r.Claim(t.Context(), theStore, all)
	for i, c := range all {
		h := holdings[c.ID]
		if want := i > 0; (h.Kind == core.Undetermined) != want || want && !strings.Contains(h.Reason, "cannot be asked about") {
			t.Errorf("container %d: %+v", i, h)
		}
	}
	for i, o := range r.Remove(t.Context(), "p", theStore, []core.Handle{{Container: all[1], Claim: core.Claim{Container: "short"}}, handles(1)[0]}) {
		if (o.Err == nil) != (i == 1) {
			t.Errorf("%+v", o)
		}
	}
	h := r.Claim(t.Context(), core.StoreInfo{GraphRoot: "relative"}, store(t))[id(1)]
	if h.Kind != core.Undetermined || h.Garbage || !strings.Contains(h.Reason, "relative") {
		t.Errorf("a store that cannot be named: %+v", h)
	}
}

// TestDescribedAnew: a plugin that failed is asked again who it is.
func TestDescribedAnew(t *testing.T) {
	var broken atomic.Bool
	good := honest("p")["Claim"]
	p := serveRaw(t, t.TempDir(), "p", with("Claim", func(c net.Conn, r request) bool { return !broken.Load() && good(c, r) }))
	r := registry(t, socketEntry("p", p.address()))
	for i, want := range []struct {
		broken    bool
		kind      core.HoldingKind
		described int
	}{{false, core.Unowned, 1}, {false, core.Unowned, 1}, {true, core.Undetermined, 1}, {false, core.Unowned, 2}} {
		broken.Store(want.broken)
		if h := r.Claim(t.Context(), theStore, store(t)[:1])[id(1)]; h.Kind != want.kind {
			t.Errorf("%d: %+v", i, h)
		}
		if n := p.called("Describe"); n != want.described {
			t.Errorf("%d: described %d times", i, n)
		}
	}
}

// TestCapabilities: a plugin is not asked for what it does not offer. What it cannot stop or remove stays.
func TestCapabilities(t *testing.T) {
	bare := strings.Replace(describing("p"), `["stop","remove","pin","list","build"]`, `["dance"]`, 1)
	p := serveRaw(t, t.TempDir(), "p", with("Describe", described(bare)))
	r := registry(t, socketEntry("p", p.address()))
	if pin := r.Pins(t.Context(), theStore, twoImages(), nil)[imageID(1)]; pin.Pinned != core.PinnedNo {
		t.Errorf("%+v", pin)
	}
	if all := r.Inventories(t.Context(), theStore, store(t)); len(all) > 0 {
		t.Errorf("%+v", all)
	}
	for _, o := range append(r.Stop(t.Context(), "p", theStore, handles(1), time.Second), r.Remove(t.Context(), "p", theStore, handles(1))...) {
		if o.Err == nil || !strings.Contains(o.Err.Error(), "do it with p itself") {
			t.Errorf("%+v", o)
		}
	}
	if n := p.called("Stop") + p.called("Remove") + p.called("Pins") + p.called("List"); n > 0 {
		t.Errorf("it was asked %d times", n)
	}
	if s := r.Status()[0]; s.State != hooks.StateReady || len(s.Capabilities) > 0 {
		t.Errorf("%+v", s)
	}
}

// TestEngineAbsent: an engine that is not on this machine pins nothing, unless it left a container.
func TestEngineAbsent(t *testing.T) {
	absent := saying1(`{"error":"io.unmoor.Plugin.EngineUnavailable","parameters":{"reason":"no socket","absent":true,"advice":"install it"}}`)
	p := serveRaw(t, t.TempDir(), "p", map[string]answerer{"Pins": absent, "Claim": absent, "List": absent})
	r := registry(t, socketEntry("p", p.address()))
	all := store(t)
	if pin := r.Pins(t.Context(), theStore, twoImages(), all[1:])[imageID(1)]; pin.Pinned != core.PinnedNo {
		t.Errorf("%+v", pin)
	}
	if pin := r.Pins(t.Context(), theStore, twoImages(), all)[imageID(1)]; pin.Pinned != core.PinnedUnknown || !strings.Contains(pin.Advice, "install it") {
		t.Errorf("%+v", pin)
	}
	if all := r.Inventories(t.Context(), theStore, all[1:]); len(all) != 1 || all[0].Err != nil {
		t.Errorf("%+v", all)
	}
	h := r.Claim(t.Context(), theStore, all)
	if h[id(1)].Kind != core.Undetermined || !strings.Contains(h[id(1)].Advice, "install it") || h[id(2)].Kind != core.Unowned {
		t.Errorf("%+v", h)
	}
	if s := r.Status()[0]; s.State != hooks.StateEngineUnavailable || s.LastError != "it cannot answer: no socket" {
		t.Errorf("%+v", s)
	}
}

// TestLongStop: signs of life keep a stop alive beyond the silence that is allowed, and outcomes may come
// one by one.
func TestLongStop(t *testing.T) {
	hooks.SetSilence(t, 500*time.Millisecond)
	p := serveRaw(t, t.TempDir(), "p", with("Stop", func(c net.Conn, r request) bool {
		for i := range 8 {
			outcomes := ""
			if i%4 == 3 {
				outcomes = fmt.Sprintf(`{"id":%q}`, r.ids()[i/4])
			}
			if !send(c, `{"continues":true,"parameters":{"outcomes":[`+outcomes+`]}}`) {
				return false
			}
			time.Sleep(100 * time.Millisecond)
		}
		return send(c, `{"parameters":{"outcomes":[]}}`)
	}))
	for _, o := range registry(t, socketEntry("p", p.address())).Stop(t.Context(), "p", theStore, handles(1, 2), time.Second) {
		if o.Err != nil {
			t.Error(o.Err)
		}
	}
}

// TestProblems: the words of an outcome are errors to branch on.
func TestProblems(t *testing.T) {
	for word, want := range map[string]error{"still_in_use": core.ErrStillInUse, "not_owner": core.ErrNotOwner, "revision_mismatch": core.ErrPlanStale, "failed": nil} {
		p := serveRaw(t, t.TempDir(), "p", with("Remove", each("outcomes", `{"id":%q,"problem":"`+word+`","message":"so it is"}`)))
		o := registry(t, socketEntry("p", p.address())).Remove(t.Context(), "p", theStore, handles(1))[0]
		if o.Err == nil || !strings.HasSuffix(o.Err.Error(), "so it is") || want != nil && !errors.Is(o.Err, want) {
			t.Errorf("%s: %v", word, o.Err)
		}
	}
}

// TestGracePeriod: it is told in milliseconds, and never becomes none.
func TestGracePeriod(t *testing.T) {
	for grace, want := range map[time.Duration]string{0: "0", time.Nanosecond: "1", 1500 * time.Microsecond: "2", 10 * time.Second: "10000", -time.Second: "0"} {
		told := make(chan string, 1)
		p := serveRaw(t, t.TempDir(), "p", with("Stop", func(_ net.Conn, r request) bool {
			told <- r.Parameters.GracePeriodMs.String()
			return false
		}))
		registry(t, socketEntry("p", p.address())).Stop(t.Context(), "p", theStore, handles(1), grace)
		if got := <-told; got != want {
			t.Errorf("%s is told as %s ms", grace, got)
		}
	}
}

// TestCallerGoesAway: a call that is given up is no answer, and ends at once.
func TestCallerGoesAway(t *testing.T) {
	noLeaks(t)
	asked := make(chan bool, 1)
	p := serveRaw(t, t.TempDir(), "p", with("Claim", func(c net.Conn, _ request) bool {
		asked <- true
		c.Read(make([]byte, 1))
		return false
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	e := socketEntry("p", p.address())
	e.WhenUnavailable = hooks.Ignore
	r := registry(t, e)
	if h := r.Claim(ctx, theStore, store(t))[id(1)]; h.Kind != core.Undetermined || !strings.Contains(h.Reason, "was not waited for") {
		t.Errorf("%+v", h)
	}
	if s := r.Status()[0]; s.State != hooks.StateReady {
		t.Errorf("%+v", s)
	}
	p.close()
}

// TestTwoOfOneEngine: what two plugins claim is kept, and the message says that both speak for one engine.
func TestTwoOfOneEngine(t *testing.T) {
	owning := with("Claim", each("reports", `{"id":%q,"ownership":"mine","state":"stopped","use":"idle","evidence":[]}`))
	other := map[string]answerer{"Claim": owning["Claim"], "Describe": described(strings.Replace(describing("other"), `"engine":"other"`, `"engine":"P"`, 1))}
	directory := t.TempDir()
	r := registry(t, socketEntry("p", serveRaw(t, directory, "p", owning).address()), socketEntry("other", serveRaw(t, directory, "other", other).address()))
	h := r.Claim(t.Context(), theStore, store(t))[id(1)]
	if h.Kind != core.Contested || !strings.Contains(h.Reason, "p and other both speak for P") || !strings.Contains(h.Advice, "[plugin.other] enabled = false") {
		t.Errorf("%+v", h)
	}
}
