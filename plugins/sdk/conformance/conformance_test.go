package conformance

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/sdk"
)

// raw is the plugin of testdata, built once.
var raw string

func TestMain(m *testing.M) {
	// They wait for each other's end more than they work.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(func() int {
		directory, err := os.MkdirTemp("", "conformance")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(directory)
		raw = filepath.Join(directory, "plugin")
		if out, err := exec.Command("go", "build", "-o", raw, "./testdata/plugin").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build the plugin: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// quick are options for a plugin that has nothing to wait for; its machine may have other things to do.
func quick() Options {
	return Options{Deadline: 5 * time.Second, Silence: 3 * time.Second, Watch: 50 * time.Millisecond, Grace: time.Second}
}

// scene is a store with one container of the raw plugin's engine.
type scene struct {
	options Options
	args    []string
	id      string
	layer   string
	engine  string
}

func newScene(t *testing.T, state string) *scene {
	t.Helper()
	dir := t.TempDir()
	s := &scene{id: strings.Repeat("ab", 32), layer: filepath.Join(dir, "layer"), engine: filepath.Join(dir, "engine"), options: quick()}
	for _, d := range []string{s.layer, s.engine} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.engine, s.id), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
	s.options.Store = core.StoreInfo{GraphRoot: dir, RunRoot: dir + "-run", GraphDriver: "vfs"}
	s.options.Container = &core.Container{ID: core.ContainerID(s.id), Metadata: `{"raw":true}`, Directory: filepath.Join(dir, "container"),
		Layer: core.Layer{Directory: s.layer, MountPoint: s.layer, Driver: "vfs"}}
	s.args = []string{"-engine", s.engine, "-graph", dir}
	return s
}

// check starts the raw plugin and judges it.
func check(t *testing.T, o Options, args ...string) Report {
	t.Helper()
	p, err := Start(append([]string{raw}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	report, err := Run(t.Context(), p, o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// checkSocket lets the raw plugin serve a socket of its own.
func checkSocket(t *testing.T, o Options, args ...string) Report {
	t.Helper()
	dir, err := os.MkdirTemp("", "conformance") // which others may enter, unlike the test's own
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "raw.sock")
	cmd := exec.Command(raw, append(args, "-socket", path)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it serves for ever
		_ = cmd.Wait()
	}()
	if err := Socket(path).Revive(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := Run(t.Context(), Socket(path), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func failed(r Report) []string {
	var all []string
	for _, result := range r.Results {
		if result.Status == Fails {
			all = append(all, result.Rule)
		}
	}
	return all
}

func text(t *testing.T, r Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Text(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRaw: a plugin that was written with no library of ours keeps every rule.
func TestRaw(t *testing.T) {
	s := newScene(t, "running")
	r := check(t, s.options, s.args...)
	if len(failed(r)) > 0 || r.Count(Skipped) != 2 || r.Name != "raw" || r.Engine != "Raw" {
		t.Errorf("%s", text(t, r))
	}
	if exists(s.layer) || exists(filepath.Join(s.engine, s.id)) {
		t.Error("the container was not removed")
	}
	if os.Geteuid() != 0 {
		notRoot(t)
	}
	r = checkSocket(t, quick())
	if len(failed(r)) > 0 || !holds(r, "peer") || !holds(r, "describe-name") {
		t.Errorf("%s", text(t, r))
	}
}

func holds(r Report, rule string) bool {
	return slices.ContainsFunc(r.Results, func(x Result) bool { return x.Rule == rule && x.Status == Holds })
}

// breakages are ways for each rule to fail: words that the raw plugin is told. The rule is the first word.
var breakages = []string{
	"describe-answers", "describe-answers hang", "describe-form", "describe-form hint", "describe-name", "describe-version",
	"describe-same", "describe-stream", "describe-stream closes", "describe-aside",
	"service-info", "service-description", "interface-unknown", "method-unknown", "calls-in-turn",
	"version-unsupported", "version-unsupported list", "parameters-missing", "parameters-missing crash", "parameters-missing hang",
	"claim-answers", "claim-answers reason", "claim-answers hang", "claim-answers error", "claim-answers continues",
	"claim-form", "claim-form word", "claim-form null", "claim-once missing", "claim-once doubled", "claim-once foreign",
	"claim-nothing", "claim-batch", "claim-batch crash", "claim-stranger", "claim-other-store", "claim-same",
	"claim-aside", "claim-aside hang", "claim-metadata", "claim-more", "claim-more end",
	"stop-answers", "stop-form", "stop-once missing", "stop-once doubled", "stop-nothing", "stop-gone", "stop-gone storage",
	"stop-more", "stop-more end", "stop-alive",
	"remove-answers", "remove-form", "remove-once missing", "remove-once doubled", "remove-nothing", "remove-gone", "remove-gone storage",
	"remove-more", "remove-more end", "remove-alive",
	"pins-answers", "pins-answers error", "pins-form", "pins-once", "pins-nothing", "pins-stranger",
	"list-answers", "list-form", "list-mine", "list-mine other", "list-more",
	"build-answers", "build-answers success", "build-answers reason",
	"message-malformed", "message-malformed success", "message-cut", "caller-leaves", "callers-idle", "peer",
	"container-mine", "container-mine form", "container-hint", "container-store", "container-in-use", "container-revision",
	"container-stop", "container-stop-again", "container-remove", "container-remove record", "container-remove storage",
	"container-remove revision", "container-gone",
}

// TestBreakages: each rule can fail, and one mistake fails one rule.
func TestBreakages(t *testing.T) {
	covered := make(map[string]bool)
	for i, b := range breakages {
		rule, _, _ := strings.Cut(b, " ")
		covered[rule] = true
		if testing.Short() && i%10 != 0 {
			continue
		}
		t.Run(b, func(t *testing.T) {
			t.Parallel()
			var r Report
			switch {
			case rule == "describe-name":
				r = checkSocket(t, quick(), "-break", b)
			case rule == "peer":
				if os.Geteuid() != 0 {
					notRoot(t)
				}
				r = checkSocket(t, quick(), "-break", b)
			case strings.HasPrefix(rule, "container-"):
				s := newScene(t, "running")
				r = check(t, s.options, append(s.args, "-break", b)...)
			default:
				r = check(t, quick(), "-break", b)
			}
			if got := failed(r); len(got) != 1 || got[0] != rule {
				t.Errorf("%v fail: %s", got, text(t, r))
			}
			for _, result := range r.Results {
				if (result.Status == Holds) == (result.Evidence != "") {
					t.Errorf("%+v", result)
				}
			}
		})
	}
	for _, r := range rules() {
		if !covered[r.id] {
			t.Errorf("no plugin breaks %s", r.id)
		}
	}
}

// TestRules: each has an ID of its own, and needs what comes before it.
func TestRules(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range rules() {
		if seen[r.id] || r.text == "" {
			t.Errorf("%s: %q", r.id, r.text)
		}
		for _, n := range r.needs {
			if !seen[n] {
				t.Errorf("%s needs %s, which does not come before it", r.id, n)
			}
		}
		seen[r.id] = true
	}
}

// TestSkips: what is not there is not judged, and no failure.
func TestSkips(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		// rules that are skipped, and what for
		rules []string
		says  string
	}{
		{"no capabilities", []string{"-break", "no capabilities"}, []string{"stop-answers", "remove-answers", "pins-answers", "list-answers", "build-answers"}, "does not offer"},
		{"the engine is down", []string{"-down"}, []string{"claim-answers", "stop-answers", "pins-answers", "list-answers"}, "the engine cannot answer: the engine is down"},
		{"no container", nil, []string{"container-mine"}, "no container was named"},
		{"what needs it", nil, []string{"container-stop"}, "no container was named"},
		{"what needs more", []string{"-break", "claim-answers"}, []string{"claim-once", "container-mine"}, "claim-answers fails"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := check(t, quick(), test.args...)
			if len(failed(r)) > 0 && test.says != "claim-answers fails" {
				t.Errorf("%s", text(t, r))
			}
			for _, result := range r.Results {
				if slices.Contains(test.rules, result.Rule) && (result.Status != Skipped || !strings.Contains(result.Evidence, test.says)) {
					t.Errorf("%+v", result)
				}
			}
		})
	}
	t.Run("a stopped container", func(t *testing.T) {
		s := newScene(t, "stopped")
		r := check(t, s.options, s.args...)
		if len(failed(r)) > 0 || !holds(r, "container-gone") || holds(r, "container-in-use") || holds(r, "container-revision") {
			t.Errorf("%s", text(t, r))
		}
	})
}

// good is a plugin of the SDK's.
type good struct{}

func (good) Describe(context.Context) (core.Description, error) {
	return core.Description{Name: "good", Hints: []core.ClaimHint{{File: "good.json"}}}, nil
}

func (good) Claim(_ context.Context, _ core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	claims := make([]core.Claim, len(containers))
	for i, c := range containers {
		claims[i] = core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine}
	}
	return claims, nil
}

func (good) Stop(_ context.Context, _ core.StoreInfo, handles []core.Handle, _ time.Duration) []core.Outcome {
	outcomes := make([]core.Outcome, len(handles))
	for i, h := range handles {
		outcomes[i].Container = h.Container.ID
	}
	return outcomes
}

func (g good) Remove(ctx context.Context, store core.StoreInfo, handles []core.Handle) []core.Outcome {
	return g.Stop(ctx, store, handles, 0)
}

func (good) Pins(_ context.Context, _ core.StoreInfo, images []core.Image) ([]core.Pin, error) {
	pins := make([]core.Pin, len(images))
	for i, image := range images {
		pins[i] = core.Pin{Image: image.ID, Pinned: core.PinnedNo}
	}
	return pins, nil
}

func (good) List(context.Context, core.StoreInfo) ([]core.Claim, error) { return nil, nil }

// TestSDK: what the SDK serves keeps every rule.
func TestSDK(t *testing.T) {
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "good.sock")
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- sdk.Serve(ctx, good{}, sdk.Options{Socket: path, Logger: slog.New(slog.DiscardHandler)})
	}()
	if err := Socket(path).Revive(ctx); err != nil {
		t.Fatal(err)
	}
	r, err := Run(ctx, Socket(path), Options{Watch: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	skipped := 10 // without a container, and it builds nothing
	if os.Geteuid() != 0 {
		skipped++
	}
	if len(failed(r)) > 0 || r.Count(Skipped) != skipped {
		t.Errorf("%s", text(t, r))
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestNobodyThere: what cannot be reached is not judged.
func TestNobodyThere(t *testing.T) {
	if _, err := Run(t.Context(), Socket(filepath.Join(t.TempDir(), "x.sock")), quick()); err == nil {
		t.Error("a plugin that is not there was judged")
	}
	for _, command := range [][]string{nil, {"no-such-program-here"}} {
		if _, err := Start(command, io.Discard); err == nil {
			t.Errorf("%v was started", command)
		}
	}
	p, err := Start([]string{"sh", "-c", "echo it is broken >&2; exit 3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	<-p.exited
	if _, err := Run(t.Context(), p, quick()); err == nil || !strings.Contains(err.Error(), "exit status 3: it is broken") {
		t.Errorf("%v", err)
	}
	mute, err := Start([]string{"sleep", "1000"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	o := quick()
	o.Deadline = 50 * time.Millisecond
	if _, err := Run(t.Context(), mute, o); !errors.Is(err, errSilent) {
		t.Errorf("%v", err)
	}
}

// TestGone: a plugin that does not come back costs the rules that follow their judgement, and is told.
func TestGone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "raw.sock")
	cmd := exec.Command(raw, "-break", "parameters-missing crash", "-socket", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	if err := Socket(path).Revive(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), Socket(path), quick())
	if err != nil {
		t.Fatal(err)
	}
	if got := failed(r); len(got) != 1 || got[0] != "parameters-missing" {
		t.Errorf("%s", text(t, r))
	}
	if last := r.Results[len(r.Results)-1]; last.Status != Skipped {
		t.Errorf("%+v", last)
	}
	if !strings.Contains(text(t, r), "the plugin is gone") {
		t.Errorf("%s", text(t, r))
	}
}

// notRoot skips a test that needs root, and fails it in CI.
func notRoot(t *testing.T) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("only root can call as somebody else, and CI must be root")
	}
	t.Skip("only root can call as somebody else")
}
