package hooks_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
	"github.com/unmoor/unmoor/plugins/sdk"
)

// TestMain is a plugin's process too: this executable, run as `hooks.test plugin MANNER`.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "plugin" {
		os.Exit(plugin(os.Args[2], os.Args[3:]))
	}
	os.Exit(m.Run())
}

// plugin is a plugin's process in one of several manners.
func plugin(manner string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch manner {
	case "exits":
		fmt.Fprintln(os.Stderr, "there is no engine here")
		return 3
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "loud":
		for i := range 5000 {
			fmt.Fprintln(os.Stderr, "line", i, strings.Repeat("x", 2000))
		}
	case "watched": // is another process, whose child is the plugin, and which is killed
		r, err := hooks.New([]hooks.Entry{{Name: "lima", Command: []string{os.Args[0], "plugin", "good", args[0]}}}, hooks.Options{})
		if err != nil {
			panic(err)
		}
		r.Claim(ctx, theStore, many(1, 0))
		select {}
	}
	if err := sdk.Serve(ctx, lima{manner: manner, args: args}, sdk.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// lima is an engine that owns what has the hint of these tests.
type lima struct {
	manner string
	args   []string
}

func (l lima) Describe(context.Context) (core.Description, error) {
	return core.Description{Name: "lima", Engine: "Lima", EngineVersion: "1.0", Hints: testHints}, nil
}

func (l lima) Claim(_ context.Context, _ core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	if len(l.args) > 0 {
		if err := os.WriteFile(l.args[0], []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return nil, err
		}
	}
	if l.manner == "dies in claim" {
		os.Exit(4)
	}
	var claims []core.Claim
	for _, c := range containers {
		claim := notMine
		if strings.Contains(c.Metadata, metadataKey) && !strings.Contains(c.Metadata, "pod-id") {
			claim = mine
		}
		claim.Container = c.ID
		claims = append(claims, claim)
	}
	return claims, nil
}

func (l lima) Stop(_ context.Context, _ core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome {
	switch l.manner {
	case "dies in stop":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "slow":
		time.Sleep(grace)
		os.WriteFile(l.args[0], []byte("stopped"), 0o600)
	}
	return settled(handles)
}

func (l lima) Remove(_ context.Context, _ core.StoreInfo, handles []core.Handle) []core.Outcome {
	return settled(handles)
}

func settled(handles []core.Handle) []core.Outcome {
	var outcomes []core.Outcome
	for _, h := range handles {
		outcomes = append(outcomes, core.Outcome{Container: h.Container.ID, StorageRemoved: true})
	}
	return outcomes
}

// journal is a log that can be read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// commanded is a registry of a plugin that is started, as it is by this executable.
func commanded(t testing.TB, manner string, args ...string) (*hooks.Registry, *journal) {
	t.Helper()
	var j journal
	e := hooks.Entry{Name: "lima", Command: append([]string{os.Args[0], "plugin", manner}, args...), Hints: testHints,
		ClaimTimeout: 20 * time.Second, StopMargin: 20 * time.Second, RemoveTimeout: 20 * time.Second}
	r, err := hooks.New([]hooks.Entry{e, entry("other", saying(notMine))}, hooks.Options{Logger: j.logger()})
	if err != nil {
		t.Fatal(err)
	}
	return r, &j
}

// alive is whether the process whose pid is in the file is there, and no zombie.
func alive(path string) bool {
	pid, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", string(pid), "stat"))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// TestCommand: a plugin is started for the first call, serves the later ones, finds its own socket as a
// service manager's, and is ended.
func TestCommand(t *testing.T) {
	noLeaks(t)
	t.Setenv("NOTIFY_SOCKET", "/run/not-for-plugins")
	pid := filepath.Join(t.TempDir(), "pid")
	r, j := commanded(t, "good", pid)
	if alive(pid) {
		t.Error("it was started before there was anything to ask")
	}
	first := ""
	for range 3 {
		if fits, other := holding(t, r); fits.Owner() != "lima" || other.Kind != core.Unowned {
			t.Fatalf("%+v; %+v; log: %s", fits, other, j)
		}
		now, err := os.ReadFile(pid)
		if err != nil || first != "" && string(now) != first {
			t.Errorf("it is process %s, and was %s; %v", now, first, err)
		}
		first = string(now)
	}
	for _, o := range r.Stop(t.Context(), "lima", theStore, handles(1), 0) {
		if o.Err != nil {
			t.Error(o.Err)
		}
	}
	s := r.Status()[0]
	if s.State != hooks.StateReady || s.Source != hooks.SourceConfigured || !strings.HasPrefix(s.Address, os.Args[0]+" plugin good") || s.EngineVersion != "1.0" {
		t.Errorf("%+v", s)
	}
	if !alive(pid) {
		t.Error("it has ended by itself")
	}
	r.Close()
	if alive(pid) {
		t.Error("it was not ended")
	}
	if fits, _ := holding(t, r); fits.Kind != core.Undetermined {
		t.Errorf("after the end: %+v", fits)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "unmoor-plugin-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestCommandsThatFail: the container is kept, and the message says how the command ended, or why there
// is none.
func TestCommandsThatFail(t *testing.T) {
	noLeaks(t)
	for manner, said := range map[string]string{
		"exits":         "exit status 3: there is no engine here",
		"dies in claim": "exit status 4",
	} {
		r, j := commanded(t, manner)
		for range 2 { // it is started again
			fits, other := holding(t, r)
			if fits.Kind != core.Undetermined || other.Kind != core.Unowned || !strings.Contains(fits.Reason, said) || !strings.Contains(fits.Advice, "lima") {
				t.Errorf("%s: %+v; log: %s", manner, fits, j)
			}
		}
		if manner == "exits" && !strings.Contains(j.String(), "there is no engine here") {
			t.Errorf("the log lacks its words: %s", j)
		}
		r.Close()
	}
	e := hooks.Entry{Name: "lima", Command: []string{"/nowhere/lima"}, Hints: testHints}
	fits, _ := holding(t, registry(t, e))
	if fits.Kind != core.Undetermined || !strings.Contains(fits.Reason, "start its command /nowhere/lima") {
		t.Errorf("%+v", fits)
	}
}

// TestDiesWithinStop: what it was stopping is a failure that says so; the next call starts it again.
func TestDiesWithinStop(t *testing.T) {
	noLeaks(t)
	r, j := commanded(t, "dies in stop")
	o := r.Stop(t.Context(), "lima", theStore, handles(1), 0)[0]
	if o.Err == nil || !strings.Contains(o.Err.Error(), "signal: killed") || !strings.HasPrefix(o.Err.Error(), "lima: stop container ") {
		t.Errorf("%v; log: %s", o.Err, j)
	}
	if fits, _ := holding(t, r); fits.Owner() != "lima" {
		t.Errorf("%+v", fits)
	}
	r.Close()
}

// TestStopIsNotBrokenOff: neither by a caller that goes away, nor by our own end.
func TestStopIsNotBrokenOff(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	r, _ := commanded(t, "slow", done)
	holding(t, r)
	if err := os.Remove(done); err != nil { // which Claim wrote
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	o := r.Stop(ctx, "lima", theStore, handles(1), 1500*time.Millisecond)[0]
	if o.Err == nil {
		t.Errorf("it was not given up: %+v", o)
	}
	r.Close()
	if text, err := os.ReadFile(done); err != nil || string(text) != "stopped" {
		t.Errorf("the stop was broken off: %q, %v", text, err)
	}
}

// TestDeafCommand: one that ignores SIGTERM is killed.
func TestDeafCommand(t *testing.T) {
	noLeaks(t)
	hooks.SetEndGrace(t, 300*time.Millisecond)
	r, j := commanded(t, "deaf")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // by then it does not heed SIGTERM
	defer cancel()
	r.Claim(ctx, theStore, store(t))
	r.Close()
	if !strings.Contains(j.String(), "is killed") {
		t.Errorf("log: %s", j)
	}
}

// TestLoudCommand: a flood of output neither stops the plugin nor fills the log.
func TestLoudCommand(t *testing.T) {
	r, j := commanded(t, "loud")
	if fits, _ := holding(t, r); fits.Owner() != "lima" {
		t.Errorf("%+v", fits)
	}
	r.Close()
	if n := strings.Count(j.String(), "\n"); n < 50 || n > 400 || len(j.String()) > n*1300 {
		t.Errorf("%d lines and %d bytes were logged", n, len(j.String()))
	}
}

// TestKilled: where we are killed, the plugins that we started are asked to end.
func TestKilled(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0], "plugin", "watched", pid)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	eventually(t, "the plugin is there", func() bool { return alive(pid) })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the plugin has ended", func() bool { return !alive(pid) })
}
