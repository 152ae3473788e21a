package hooks_test

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// places are the directories of a registry.
type places struct{ plugins, hints string }

func newPlaces(t testing.TB) places {
	p := places{filepath.Join(t.TempDir(), "plugins"), filepath.Join(t.TempDir(), "state", "hints")}
	if err := os.Mkdir(p.plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p places) registry(t testing.TB, entries ...hooks.Entry) *hooks.Registry {
	t.Helper()
	r, err := hooks.New(entries, hooks.Options{Directory: p.plugins, Hints: p.hints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// holding asks about container 1, which has the hint of these tests, and 2, which has not.
func holding(t testing.TB, r *hooks.Registry) (fits, other core.Holding) {
	t.Helper()
	h := r.Claim(t.Context(), theStore, store(t))
	return h[id(1)], h[id(2)]
}

// statuses are NAME SOURCE STATE, in order.
func statuses(r *hooks.Registry) []string {
	var all []string
	for _, s := range r.Status() {
		all = append(all, s.Name+" "+string(s.Source)+" "+string(s.State))
	}
	return all
}

func wantStatuses(t testing.TB, r *hooks.Registry, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, statuses(r)); diff != "" {
		t.Errorf("-want +got: %s in %+v", diff, r.Status())
	}
}

// TestDirectory: each socket is a plugin from the moment when it is there. One that has gone keeps what it
// would own, over a restart too, until it is unregistered.
func TestDirectory(t *testing.T) {
	here := newPlaces(t)
	r := here.registry(t, entry("builtin", saying(notMine)))
	if h, _ := holding(t, r); h.Kind != core.Unowned {
		t.Errorf("nobody is there, and yet %+v", h)
	}
	lima := serveRaw(t, here.plugins, "lima", with("Claim", each("reports", `{"id":%q,"ownership":"mine","state":"stopped","use":"idle","evidence":[]}`)))
	if h, _ := holding(t, r); h.Owner() != "lima" {
		t.Errorf("it came, and yet %+v", h)
	}
	if diff := cmp.Diff([]string{"builtin", "lima"}, r.Names()); diff != "" {
		t.Error(diff)
	}
	lima.close()
	gone := func(r *hooks.Registry) {
		t.Helper()
		fits, other := holding(t, r)
		if fits.Kind != core.Undetermined || !slices.Equal(fits.Owners, []string{"lima"}) || other.Kind != core.Unowned {
			t.Errorf("it has gone, and yet %+v; %+v", fits, other)
		}
		if !strings.HasPrefix(fits.Reason, "lima, which may own it, cannot be reached: ") ||
			fits.Advice != "start the plugin lima, or where it is gone for good: unmoor plugins unregister lima" {
			t.Errorf("%q; %q", fits.Reason, fits.Advice)
		}
		wantStatuses(t, r, "builtin builtin ready", "lima directory unreachable")
	}
	gone(r)
	again := here.registry(t, entry("builtin", saying(notMine)))
	gone(again)
	if pin := again.Pins(t.Context(), theStore, twoImages(), nil)[imageID(1)]; pin.Pinned != core.PinnedUnknown || !slices.Equal(pin.Owners, []string{"lima"}) {
		t.Errorf("it could pin: %+v", pin)
	}
	if err := r.Unregister("nobody"); err == nil || !strings.Contains(err.Error(), "no such plugin") {
		t.Errorf("%v", err)
	}
	if err := r.Unregister("builtin"); err == nil {
		t.Error("what is built in was unregistered")
	}
	if err := r.Unregister("lima"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*hooks.Registry{r, again, here.registry(t, entry("builtin", saying(notMine)))} {
		if h, _ := holding(t, r); h.Kind != core.Unowned {
			t.Errorf("it is gone for good, and yet %+v", h)
		}
		wantStatuses(t, r, "builtin builtin ready")
	}
}

// TestSocketThatNobodyServes: it may own anything, since it was never known what; and nothing once it has
// gone.
func TestSocketThatNobodyServes(t *testing.T) {
	here := newPlaces(t)
	l, err := net.Listen("unix", filepath.Join(here.plugins, "lima.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	r := here.registry(t)
	if fits, other := holding(t, r); fits.Kind != core.Undetermined || other.Kind != core.Undetermined || !strings.Contains(fits.Reason, "connection refused") {
		t.Errorf("%+v; %+v", fits, other)
	}
	if err := r.Unregister("lima"); err == nil || !strings.Contains(err.Error(), "lima.sock is there") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(here.plugins, "lima.sock")); err != nil {
		t.Fatal(err)
	}
	if fits, other := holding(t, r); fits.Kind != core.Unowned || other.Kind != core.Unowned {
		t.Errorf("%+v; %+v", fits, other)
	}
}

// TestNameClash: the earlier source has the name, and the other one is shown with the reason.
func TestNameClash(t *testing.T) {
	here := newPlaces(t)
	elsewhere := t.TempDir()
	builtin := serveRaw(t, here.plugins, "podman", nil)
	configured := serveRaw(t, here.plugins, "lima", nil)
	same := serveRaw(t, here.plugins, "same", nil)
	off := serveRaw(t, here.plugins, "off", nil)
	r := here.registry(t, entry("podman", saying(notMine)), socketEntry("lima", serveRaw(t, elsewhere, "lima", nil).address()),
		socketEntry("same", same.address()), hooks.Entry{Name: "off", Disabled: true})
	holding(t, r)
	wantStatuses(t, r, "podman builtin ready", "lima configured ready", "same configured ready", "off configured disabled",
		"lima directory refused", "podman directory refused")
	for _, s := range r.Status() {
		if s.State != hooks.StateRefused {
			continue
		}
		want := "config.toml has a section [plugin.lima]"
		if s.Name == "podman" {
			want = "that plugin is built in"
			if s.Advice != `set [plugin.podman] socket = "`+builtin.address()+`" in config.toml to use it in place of the one that is built in` {
				t.Errorf("%q", s.Advice)
			}
		}
		if s.LastError != "the name is taken: "+want || s.Advice == "" {
			t.Errorf("%+v", s)
		}
	}
	if n := builtin.called("Claim") + configured.called("Claim") + off.called("Claim"); n > 0 {
		t.Errorf("those that lost were asked %d times", n)
	}
	for _, p := range []*rawPlugin{configured, off} {
		if _, err := r.Register(t.Context(), p.address()); err == nil || !strings.Contains(err.Error(), "is taken") {
			t.Errorf("%v", err)
		}
	}
	if s, err := r.Register(t.Context(), same.address()); err != nil || s.Source != hooks.SourceConfigured {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestDistrust: a socket that others may have put there is not asked, and one that was known before keeps
// what it would own.
func TestDistrust(t *testing.T) {
	for name, spoil := range map[string]func(here places) error{
		"the group can write": func(here places) error { return os.Chmod(here.plugins, 0o775) },
		"anybody can write":   func(here places) error { return os.Chmod(here.plugins, 0o757) },
		"anybody can write above": func(here places) error {
			return os.Chmod(filepath.Dir(here.plugins), 0o777)
		},
		"another one's directory": func(here places) error { return os.Chown(here.plugins, 12345, -1) },
		"another one's socket": func(here places) error {
			return os.Lchown(filepath.Join(here.plugins, "lima.sock"), 12345, -1)
		},
		"no socket": func(here places) error {
			path := filepath.Join(here.plugins, "lima.sock")
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.WriteFile(path, nil, 0o600)
		},
		"a link to a socket": func(here places) error {
			path := filepath.Join(here.plugins, "lima.sock")
			if err := os.Rename(path, path+".real"); err != nil {
				return err
			}
			return os.Symlink(path+".real", path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "another one's") && os.Geteuid() != 0 {
				lacking(t, "needs root, to give files away")
			}
			here := newPlaces(t)
			lima := serveRaw(t, here.plugins, "lima", nil)
			if err := spoil(here); err != nil {
				t.Fatal(err)
			}
			r := here.registry(t)
			if h, _ := holding(t, r); h.Kind != core.Unowned {
				t.Errorf("%+v", h)
			}
			wantStatuses(t, r, "lima directory refused")
			if n := lima.called("Describe"); n > 0 {
				t.Errorf("it was asked %d times", n)
			}
			if _, err := r.Register(t.Context(), lima.address()); err == nil {
				t.Error("it was registered")
			}
			if err := r.Unregister("lima"); err == nil {
				t.Error("it was unregistered")
			}
		})
		t.Run(name+", where it was known", func(t *testing.T) {
			if strings.HasPrefix(name, "another one's") && os.Geteuid() != 0 {
				lacking(t, "needs root, to give files away")
			}
			here := newPlaces(t)
			lima := serveRaw(t, here.plugins, "lima", nil)
			r := here.registry(t)
			holding(t, r)
			before := lima.called("Claim")
			if err := spoil(here); err != nil {
				t.Fatal(err)
			}
			for _, r := range []*hooks.Registry{r, here.registry(t)} {
				if fits, other := holding(t, r); fits.Kind != core.Undetermined || other.Kind != core.Unowned {
					t.Errorf("%+v; %+v", fits, other)
				}
				wantStatuses(t, r, "lima directory unreachable")
			}
			if n := lima.called("Claim"); n > before {
				t.Errorf("it was asked %d times", n-before)
			}
		})
	}
}

// TestNamesOfSockets: what cannot be a plugin's name is shown, and not asked; what is no .sock is nothing.
func TestNamesOfSockets(t *testing.T) {
	here := newPlaces(t)
	for _, name := range []string{"Lima", "kernel", "none", "-x", "a.b"} {
		serveRaw(t, here.plugins, name, nil)
	}
	if err := os.WriteFile(filepath.Join(here.plugins, "lima.sock.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := here.registry(t)
	if h, _ := holding(t, r); h.Kind != core.Unowned {
		t.Errorf("%+v", h)
	}
	wantStatuses(t, r, "-x directory refused", "Lima directory refused", "a.b directory refused", "kernel directory refused", "none directory refused")
}

// TestKeptRecords: what is kept is read strictly. Of a file that makes no sense it is known alone that a
// plugin of that name was there, which may own anything.
func TestKeptRecords(t *testing.T) {
	here := newPlaces(t)
	lima := serveRaw(t, here.plugins, "lima", nil)
	holding(t, here.registry(t))
	lima.close()
	path := filepath.Join(here.hints, "lima.json")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(here.hints)
	if err != nil || len(entries) != 1 {
		t.Errorf("beside it lie %v, %v", entries, err)
	}
	change := func(old, new string) []byte {
		changed := strings.Replace(string(good), old, new, 1)
		if changed == string(good) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return []byte(changed)
	}
	for name, text := range map[string][]byte{
		"empty":            {},
		"cut":              good[:len(good)/2],
		"null":             []byte("null"),
		"no hints":         change(`"claimHints"`, `"hints"`),
		"a hint of none":   change(`"metadataKey"`, `"x"`),
		"another's":        change(`"name": "lima"`, `"name": "colima"`),
		"no source":        change(`"directory"`, `"builtin"`),
		"another address":  change(`"unix:`, `"tcp:`),
		"too large":        append(slices.Clone(good), make([]byte, 2<<20)...),
		"one more at last": append(slices.Clone(good), "{}"...),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		r := here.registry(t)
		fits, other := holding(t, r)
		if fits.Kind != core.Undetermined || other.Kind != core.Undetermined || !strings.Contains(other.Reason, path) ||
			!strings.Contains(other.Advice, "unmoor plugins unregister lima") {
			t.Errorf("%s: %+v", name, other)
		}
	}
	for name, spoil := range map[string]func() error{
		"a file that others can write to": func() error { return os.Chmod(path, 0o666) },
		"a link": func() error {
			if err := os.Rename(path, path+".real"); err != nil {
				return err
			}
			return os.Symlink(path+".real", path)
		},
	} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if _, other := holding(t, here.registry(t)); other.Kind != core.Undetermined {
			t.Errorf("%s: %+v", name, other)
		}
	}
	if err := here.registry(t).Unregister("lima"); err != nil {
		t.Fatal(err)
	}
	if _, other := holding(t, here.registry(t)); other.Kind != core.Unowned {
		t.Errorf("%+v", other)
	}
	if err := os.Chmod(here.hints, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := hooks.New(nil, hooks.Options{Hints: here.hints}); err == nil || !strings.Contains(err.Error(), "written to by others") {
		t.Errorf("a directory that anybody can empty: %v", err)
	}
}

// TestHintsThatCannotBeKept: where it cannot be told what is kept, nothing is asked; where nothing can be
// kept, a plugin is asked all the same.
func TestHintsThatCannotBeKept(t *testing.T) {
	here := newPlaces(t)
	above := filepath.Dir(here.hints)
	block := func() {
		t.Helper()
		if err := os.WriteFile(above, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	block()
	if _, err := hooks.New(nil, hooks.Options{Hints: here.hints}); err == nil {
		t.Error("what is kept could not be read")
	}
	if err := os.Remove(above); err != nil {
		t.Fatal(err)
	}
	r := here.registry(t)
	block()
	lima := serveRaw(t, here.plugins, "lima", nil)
	if h, _ := holding(t, r); h.Kind != core.Unowned {
		t.Errorf("%+v", h)
	}
	lima.close()
	if fits, other := holding(t, r); fits.Kind != core.Undetermined || other.Kind != core.Unowned {
		t.Errorf("in this process it is known: %+v; %+v", fits, other)
	}
}

// TestHintsReplaced: each description replaces the one before, and a plugin without hints may own anything.
func TestHintsReplaced(t *testing.T) {
	here := newPlaces(t)
	for i, hints := range []string{testHint, `{"metadataKey":"pod-id"}`, ``, testHint} {
		lima := serveRaw(t, here.plugins, "lima", with("Describe", described(strings.Replace(describing("lima"), testHint, hints, 1))))
		if h, _ := holding(t, here.registry(t)); h.Kind != core.Unowned {
			t.Fatalf("%+v", h)
		}
		lima.close()
		fits, other := holding(t, here.registry(t))
		want := []core.HoldingKind{core.Undetermined, core.Unowned}
		switch i {
		case 1:
			want = []core.HoldingKind{core.Unowned, core.Undetermined}
		case 2:
			want = []core.HoldingKind{core.Undetermined, core.Undetermined}
		}
		if fits.Kind != want[0] || other.Kind != want[1] {
			t.Errorf("%s: %s, %s", hints, fits.Kind, other.Kind)
		}
	}
}

// TestRegister: a plugin is registered under its own name, beyond this process, until it is unregistered.
func TestRegister(t *testing.T) {
	here := newPlaces(t)
	elsewhere := t.TempDir()
	r := here.registry(t, entry("podman", saying(notMine)))
	lima := serveRaw(t, elsewhere, "lima", nil)
	s, err := r.Register(t.Context(), lima.address())
	if err != nil || s.Name != "lima" || s.Source != hooks.SourceRegistered || s.State != hooks.StateReady || s.Address != lima.address() ||
		!slices.Equal(s.Capabilities, []string{"stop", "remove", "pin", "list", "build"}) || s.ProtocolVersion != 1 || s.EngineVersion != "1.2" {
		t.Fatalf("%+v, %v", s, err)
	}
	again := here.registry(t, entry("podman", saying(notMine)))
	holding(t, again)
	wantStatuses(t, again, "podman builtin ready", "lima registered ready")
	if n := lima.called("Claim"); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	// It may move.
	moved := serveRaw(t, t.TempDir(), "lima", nil)
	if s, err := r.Register(t.Context(), moved.address()); err != nil || s.Address != moved.address() {
		t.Fatalf("%+v, %v", s, err)
	}
	wantStatuses(t, r, "podman builtin ready", "lima registered ready")
	moved.close()
	if fits, other := holding(t, r); fits.Kind != core.Undetermined || other.Kind != core.Unowned {
		t.Errorf("%+v; %+v", fits, other)
	}
	if err := r.Unregister("lima"); err != nil {
		t.Fatal(err)
	}
	if fits, _ := holding(t, r); fits.Kind != core.Unowned {
		t.Errorf("%+v", fits)
	}
	for name, on := range map[string]map[string]answerer{
		"podman": nil,
		"kernel": nil,
		"deaf":   with("Describe", func(net.Conn, request) bool { return false }),
		"new":    with("Describe", described(strings.Replace(describing("new"), "[1]", "[2]", 1))),
		"vague":  with("Describe", described("{}")),
	} {
		p := serveRaw(t, elsewhere, name, on)
		if s, err := r.Register(t.Context(), p.address()); err == nil || !strings.HasPrefix(err.Error(), "register the plugin at "+p.address()+": ") {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
	for _, address := range []string{"", "unix:", "unix:@abstract", "unix:relative", "tcp:localhost:1", "exec:/bin/true", "unix:/nowhere/x.sock"} {
		if s, err := r.Register(t.Context(), address); err == nil {
			t.Errorf("%s: %+v", address, s)
		}
	}
	wantStatuses(t, r, "podman builtin ready")
	if left, err := filepath.Glob(filepath.Join(here.hints, "*")); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestConfigure: what has left the configuration keeps what it would own, until it is unregistered; what
// is the same goes on; what an operator turns off is nobody's.
func TestConfigure(t *testing.T) {
	here := newPlaces(t)
	lima := serveRaw(t, t.TempDir(), "lima", nil)
	r := here.registry(t, entry("podman", saying(notMine)), socketEntry("lima", lima.address()))
	holding(t, r)
	configure := func(entries ...hooks.Entry) {
		t.Helper()
		if err := r.Configure(entries); err != nil {
			t.Fatal(err)
		}
	}
	required := socketEntry("lima", lima.address())
	required.Required = true
	configure(entry("podman", saying(notMine)), required)
	holding(t, r)
	if n := lima.called("Describe"); n != 1 || !r.Status()[1].Required {
		t.Errorf("it was asked %d times who it is: %+v", n, r.Status())
	}
	before := lima.called("Claim")
	configure(entry("podman", saying(notMine)))
	fits, other := holding(t, r)
	if fits.Kind != core.Undetermined || other.Kind != core.Unowned || !strings.Contains(fits.Reason, "config.toml has no section [plugin.lima] any more") ||
		fits.Advice != "put [plugin.lima] back into config.toml, or where it is gone for good: unmoor plugins unregister lima" {
		t.Errorf("%+v; %+v", fits, other)
	}
	configure(entry("podman", saying(notMine)), hooks.Entry{Name: "lima", Disabled: true})
	if fits, _ := holding(t, r); fits.Kind != core.Unowned {
		t.Errorf("%+v", fits)
	}
	wantStatuses(t, r, "podman builtin ready", "lima configured disabled")
	if n := lima.called("Claim"); n > before {
		t.Errorf("it was asked %d times", n-before)
	}
	configure(entry("podman", saying(mine)))
	if fits, _ := holding(t, r); fits.Kind != core.Undetermined {
		t.Errorf("%+v", fits)
	}
	if err := r.Unregister("lima"); err != nil {
		t.Fatal(err)
	}
	if fits, _ := holding(t, r); fits.Owner() != "podman" {
		t.Errorf("%+v", fits)
	}
	if err := r.Configure([]hooks.Entry{{Name: "x"}}); err == nil {
		t.Error("a configuration without sense was taken")
	}
	if diff := cmp.Diff([]string{"podman"}, r.Names()); diff != "" {
		t.Error(diff)
	}
}

// TestServedElsewhere: an engine that is built in may be served by a process of its own; what it looks
// like is known even when that was never reached.
func TestServedElsewhere(t *testing.T) {
	here := newPlaces(t)
	e := socketEntry("podman", "unix:"+filepath.Join(here.plugins, "podman.sock"))
	e.Hints = testHints
	r := here.registry(t, e)
	if fits, other := holding(t, r); fits.Kind != core.Undetermined || other.Kind != core.Unowned ||
		!strings.Contains(fits.Advice, `[plugin.podman] when_unavailable = "ignore" in config.toml`) {
		t.Errorf("%+v; %+v", fits, other)
	}
	serveRaw(t, here.plugins, "podman", nil)
	if fits, _ := holding(t, r); fits.Kind != core.Unowned {
		t.Errorf("%+v", fits)
	}
	wantStatuses(t, r, "podman configured ready")
}

// TestAdviceOfDirectoryPlugin: an operator who wants to go on without it needs its address in the
// configuration.
func TestAdviceOfDirectoryPlugin(t *testing.T) {
	here := newPlaces(t)
	lima := serveRaw(t, here.plugins, "lima", with("Claim", saying1(`{}`)))
	fits, _ := holding(t, here.registry(t))
	want := `report this as a fault of the plugin lima, or set [plugin.lima] address = "` + lima.address() +
		`" and when_unavailable = "ignore" in config.toml to treat its containers as nobody's`
	if fits.Advice != want {
		t.Errorf("%q\nis not\n%q", fits.Advice, want)
	}
}

// FuzzRecord: whatever lies in the file, it is read or it is not, and a plugin of that name is known.
func FuzzRecord(f *testing.F) {
	text, err := json.Marshal(map[string]any{"source": "directory", "address": "unix:/x/lima.sock", "description": json.RawMessage(describing("lima"))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		hints := t.TempDir()
		if err := os.WriteFile(filepath.Join(hints, "lima.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := hooks.New(nil, hooks.Options{Hints: hints})
		if err != nil {
			t.Fatal(err)
		}
		if all := r.Status(); len(all) != 1 || all[0].Name != "lima" {
			t.Errorf("%+v", all)
		}
	})
}

// lacking skips a test that cannot run here; CI has what it takes, and there it is a failure.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
