package hooks_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// running is a registry whose Run runs until the test ends.
type running struct {
	*hooks.Registry
	mu     sync.Mutex
	events []hooks.PluginStatus
	stop   func()
}

func run(t testing.TB, o hooks.Options, entries ...hooks.Entry) *running {
	t.Helper()
	r := &running{}
	o.Changed = func(s hooks.PluginStatus) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, s)
	}
	var err error
	if r.Registry, err = hooks.New(entries, o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		r.Close()
	})
	t.Cleanup(r.stop)
	return r
}

// told are the events, NAME STATE each.
func (r *running) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.events {
		all = append(all, e.Name+" "+string(e.State))
	}
	return all
}

// becomes waits until the statuses are these.
func (r *running) becomes(t testing.TB, want ...string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !slices.Equal(statuses(r.Registry), want) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %v; but %+v; events %v", want, r.Status(), r.told())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestRun: plugins come and go by themselves, and each change is told once.
func TestRun(t *testing.T) {
	noLeaks(t)
	here := newPlaces(t)
	if err := os.RemoveAll(filepath.Dir(here.plugins)); err != nil {
		t.Fatal(err)
	}
	here.plugins = filepath.Join(here.plugins, "not", "yet")
	if err := os.MkdirAll(filepath.Dir(filepath.Dir(filepath.Dir(here.plugins))), 0o755); err != nil {
		t.Fatal(err)
	}
	r := run(t, hooks.Options{Directory: here.plugins, Hints: here.hints})
	for range 2 { // the directory may go and come back
		if err := os.MkdirAll(here.plugins, 0o755); err != nil {
			t.Fatal(err)
		}
		lima := serveRaw(t, here.plugins, "lima", nil)
		r.becomes(t, "lima directory ready")
		lima.close()
		r.becomes(t, "lima directory unreachable")
		if err := os.RemoveAll(filepath.Dir(here.plugins)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(here.plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	var ready atomic.Bool
	ready.Store(true)
	changes := make(chan bool)
	lima := serveRaw(t, here.plugins, "lima", with("Describe", func(c net.Conn, r request) bool {
		for {
			text := strings.Replace(describing("lima"), `"ready":true`, fmt.Sprintf(`"ready":%v`, ready.Load()), 1)
			if !r.More || !send(c, `{"continues":true,"parameters":`+text+`}`) {
				return r.More || send(c, `{"parameters":`+text+`}`)
			}
			if _, more := <-changes; !more {
				return false
			}
		}
	}))
	r.becomes(t, "lima directory ready")
	for _, state := range []string{"engine_unavailable", "ready"} {
		ready.Store(state == "ready")
		changes <- true
		r.becomes(t, "lima directory "+state)
	}
	if n := lima.called("Claim"); n > 0 {
		t.Errorf("it was asked %d times", n)
	}
	close(changes)
	lima.close()
	r.becomes(t, "lima directory unreachable")
	if err := r.Unregister("lima"); err != nil {
		t.Fatal(err)
	}
	r.becomes(t)
	want := strings.Fields("ready unreachable ready unreachable ready engine_unavailable ready unreachable unregistered")
	for i := range want {
		want[i] = "lima " + want[i]
	}
	got := slices.Compact(r.told())
	if len(got) > 0 && got[0] == "lima unreachable" {
		got = got[1:] // its socket was seen before it listened
	}
	if !slices.Equal(got, want) {
		t.Errorf("told were %v, not %v", got, want)
	}
	r.stop()
}

// TestRunRegistered: a plugin that was registered is reached again by itself, and what is configured too.
func TestRunRegistered(t *testing.T) {
	noLeaks(t)
	here := newPlaces(t)
	elsewhere := t.TempDir()
	r := run(t, hooks.Options{Directory: here.plugins, Hints: here.hints}, socketEntry("conf", "unix:"+filepath.Join(elsewhere, "conf.sock")),
		entry("podman", fake{describe: func(context.Context) (core.Description, error) { return core.Description{Name: "podman"}, nil }}))
	lima := serveRaw(t, elsewhere, "lima", nil)
	if _, err := r.Register(t.Context(), lima.address()); err != nil {
		t.Fatal(err)
	}
	r.becomes(t, "conf configured unreachable", "podman builtin ready", "lima registered ready")
	lima.close()
	conf := serveRaw(t, elsewhere, "conf", nil)
	r.becomes(t, "conf configured ready", "podman builtin ready", "lima registered unreachable")
	lima = serveRaw(t, elsewhere, "lima", nil)
	r.becomes(t, "conf configured ready", "podman builtin ready", "lima registered ready")
	if err := r.Configure(nil); err != nil {
		t.Fatal(err)
	}
	r.becomes(t, "conf configured unreachable", "lima registered ready")
	r.stop()
	lima.close()
	conf.close()
}

// TestRunCommand: a command is started at once, and again when it has died.
func TestRunCommand(t *testing.T) {
	noLeaks(t)
	pid := filepath.Join(t.TempDir(), "pid")
	e := hooks.Entry{Name: "lima", Command: []string{os.Args[0], "plugin", "good", pid}}
	r := run(t, hooks.Options{}, e)
	r.becomes(t, "lima configured ready")
	holding(t, r.Registry)
	text, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its death is told", func() bool { return slices.Contains(r.told(), "lima unreachable") })
	r.mu.Lock()
	for _, s := range r.events {
		if s.State == hooks.StateUnreachable && !strings.Contains(s.LastError, "signal: killed") {
			t.Errorf("%+v", s)
		}
	}
	r.mu.Unlock()
	r.becomes(t, "lima configured ready")
	if err := r.Configure(nil); err != nil {
		t.Fatal(err)
	}
	r.becomes(t, "lima configured unreachable") // it is kept in mind
	eventually(t, "it has ended", func() bool { return !alive(pid) })
	r.stop()
}

// TestRunFloods: descriptions without an end are not read faster than they are worth, and are told only
// where something changed.
func TestRunFloods(t *testing.T) {
	noLeaks(t)
	here := newPlaces(t)
	var written atomic.Int64
	lima := serveRaw(t, here.plugins, "lima", with("Describe", func(c net.Conn, r request) bool {
		for send(c, fmt.Sprintf(`{"continues":%v,"parameters":%s}`, r.More, describing("lima"))) && r.More {
			written.Add(1)
		}
		return true
	}))
	r := run(t, hooks.Options{Directory: here.plugins, Hints: here.hints})
	r.becomes(t, "lima directory ready")
	time.Sleep(500 * time.Millisecond) // this measures a rate
	if n := written.Load(); n > 2000 {
		t.Errorf("%d descriptions went out within half a second", n)
	}
	if got := r.told(); len(got) > 2 {
		t.Errorf("told were %v", got)
	}
	if h, _ := holding(t, r.Registry); h.Kind != core.Unowned {
		t.Errorf("%+v", h)
	}
	r.stop()
	lima.close()
}

// TestRunBad: a plugin that cannot describe itself is in quarantine in the end, and no others suffer.
func TestRunBad(t *testing.T) {
	noLeaks(t)
	here := newPlaces(t)
	bad := serveRaw(t, here.plugins, "bad", with("Describe", described("{}")))
	good := serveRaw(t, here.plugins, "good", nil)
	r := run(t, hooks.Options{Directory: here.plugins, Hints: here.hints})
	r.becomes(t, "bad directory quarantined", "good directory ready")
	s := r.Status()[0]
	if !strings.Contains(s.LastError, "it is in quarantine until ") || !strings.Contains(s.LastError, "at last it answered nonsense") || s.Advice == "" {
		t.Errorf("%+v", s)
	}
	asked := bad.called("Describe")
	h, _ := holding(t, r.Registry)
	if h.Kind != core.Undetermined || !strings.Contains(h.Reason, "bad, which may own it, is in quarantine until ") ||
		!strings.HasPrefix(h.Advice, "see why the plugin bad fails, and restart it (it is asked again at ") {
		t.Errorf("%+v", h)
	}
	if n := bad.called("Describe"); n > asked+1 || bad.called("Claim") > 0 {
		t.Errorf("it was asked all the same")
	}
	r.stop()
	bad.close()
	good.close()
}
