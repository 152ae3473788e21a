package buildah

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

func want(t *testing.T, c core.Claim, o core.Ownership, u core.Use, s core.State) {
	t.Helper()
	if c.Ownership != o || c.Use != u || c.State != s {
		t.Fatalf("claim %s %s %q, want %s %s %q: %+v", c.Ownership, c.Use, c.State, o, u, s, c)
	}
}

// cleared checks that stopping left neither processes nor mounts nor bundles behind.
func (h *host) cleared() {
	h.t.Helper()
	left, err := filepath.Glob(h.outside(h.dir + "/tmp/buildah*"))
	if err != nil || len(left) > 0 {
		h.t.Errorf("left behind: %v %v", left, err)
	}
}

func TestIdleWorkingContainers(t *testing.T) {
	t.Parallel()
	for name, driver := range map[string]string{"overlay": "overlay", "vfs": "vfs"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, driver)
			h.must(h.buildah("from", "localhost/bb"))
			h.must(h.buildah("from", "scratch"))
			h.must(h.buildah("from", "--name", "mine", "localhost/bb"))
			h.must(h.buildah("mount", "mine"))
			h.must(h.buildah("config", "--label", "keep=yes", "mine"))
			h.must(h.podman("create", "--name", "theirs", "localhost/bb", "true"))
			h.must(h.podman("commit", "-q", "theirs", "localhost/committed"))
			claims := h.claims()
			for _, name := range []string{"bb-working-container", "working-container", "mine"} {
				want(t, claims[name], core.OwnershipMine, core.UseIdle, core.StateStopped)
				if claims[name].DisplayName != name || claims[name].Revision == "" {
					t.Errorf("%s: %+v", name, claims[name])
				}
			}
			if got := claims["mine"].Labels["keep"]; got != "yes" {
				t.Errorf("the labels of mine are %v", claims["mine"].Labels)
			}
			// podman commit has left a buildah.json in it.
			for _, c := range h.stored() {
				if c.Names[0] == "theirs" {
					if _, err := readRecord(c.Directory); err != nil {
						t.Errorf("podman commit leaves a record: %v", err)
					}
				}
			}
			want(t, claims["theirs"], core.OwnershipNotMine, core.UseUnknown, core.StateNone)
			handles := h.handles("bb-working-container", "mine")
			for _, o := range append(h.plugin.Stop(t.Context(), h.store, handles, time.Second), h.plugin.Remove(t.Context(), h.store, handles)...) {
				if o.Err != nil || o.StorageRemoved {
					t.Errorf("%+v", o)
				}
			}
			h.must(h.buildah("rm", "mine"))
			if o := h.plugin.Remove(t.Context(), h.store, handles[1:])[0]; o.Err != nil {
				t.Errorf("a container that is gone: %v", o.Err)
			}
			h.must(h.podman("rm", "theirs"))
		})
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	scenes := map[string]struct {
		driver string
		args   []string
		term   bool // whether sleep ends at SIGTERM: not as the first process of a pid namespace
	}{
		"oci":        {"overlay", []string{"--isolation", "oci", "--runtime", "runc", "--network", "none"}, false},
		"oci, vfs":   {"vfs", []string{"--isolation=oci", "--runtime=runc", "--network=none"}, false},
		"chroot":     {"overlay", []string{"--isolation", "chroot"}, true},
		"chroot vfs": {"vfs", []string{"--isolation", "chroot"}, true},
	}
	for name, scene := range scenes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, scene.driver)
			h.must(h.buildah("from", "--name", "live", "localhost/bb"))
			h.must(h.buildah("from", "--name", "idle", "localhost/bb"))
			r := h.start(h.buildah(append(append([]string{"run"}, scene.args...), "live", "sleep", "1201")...))
			pid := h.sleeper(r, 1201)
			claims := h.claims()
			want(t, claims["live"], core.OwnershipMine, core.UseInUse, core.StateRunning)
			want(t, claims["idle"], core.OwnershipMine, core.UseIdle, core.StateStopped)
			for _, p := range append([]int{r.Process.Pid, pid}, h.below(r.Process.Pid)...) {
				// What the runtime starts for a moment may come and go.
				args, _ := readArgs(p)
				helps := len(args) > 0 && slices.Contains(children, args[0])
				if (helps || p == pid || p == r.Process.Pid) && !names(p, claims["live"]) {
					t.Errorf("pid %d is not in the evidence %+v", p, claims["live"].Evidence)
				}
			}
			handles := h.handles("live")
			if o := h.plugin.Remove(t.Context(), h.store, handles)[0]; !errors.Is(o.Err, core.ErrStillInUse) {
				t.Errorf("remove of a running one: %v", o.Err)
			}
			grace := 500 * time.Millisecond
			if scene.term {
				grace = 20 * time.Second
			}
			begin := time.Now()
			if o := h.plugin.Stop(t.Context(), h.store, handles, grace)[0]; o.Err != nil {
				t.Fatal(o.Err)
			}
			took := time.Since(begin)
			t.Logf("stopped in %v with a grace period of %v", took, grace)
			if polite := took < grace; polite != scene.term {
				t.Errorf("stopped in %v with a grace period of %v", took, grace)
			}
			if !r.ended() {
				h.eventually("buildah run has ended", r.ended)
			}
			h.cleared()
			want(t, h.claims()["live"], core.OwnershipMine, core.UseIdle, core.StateStopped)
			h.must(h.buildah(append(append([]string{"run"}, scene.args...), "live", "true")...))
		})
	}
}

// TestManyRuns: the stops run side by side.
func TestManyRuns(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	all := []string{"a", "b", "c", "d"}
	for _, name := range all {
		h.must(h.buildah("from", "--name", name, "localhost/bb"))
		h.sleeper(h.start(h.buildah("run", "--isolation", "oci", "--runtime", "runc", "--network", "none", name, "sleep", "1206")), 1206)
	}
	const grace = 6 * time.Second
	handles := h.handles(all...)
	begin := time.Now()
	for _, o := range h.plugin.Stop(t.Context(), h.store, handles, grace) {
		if o.Err != nil {
			t.Error(o.Err)
		}
	}
	took := time.Since(begin)
	t.Logf("four stops with a grace period of %v took %v", grace, took)
	if took >= 2*grace {
		t.Error("they were not stopped side by side")
	}
	h.cleared()
}

// TestOrphan: what runs in a container outlives a killed buildah run under oci isolation.
func TestOrphan(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	h.must(h.buildah("from", "--name", "live", "localhost/bb"))
	r := h.start(h.buildah("run", "--isolation", "oci", "--runtime", "runc", "--network", "none", "live", "sleep", "1202"))
	pid := h.sleeper(r, 1202)
	helper := h.below(r.Process.Pid)
	t.Cleanup(func() { syscall.Kill(pid, syscall.SIGKILL) })
	r.Process.Kill()
	<-r.done
	h.eventually("the helper is gone", func() bool {
		s, err := readStat(helper[0])
		return err != nil || s.dead() || helper[0] == pid
	})
	c := h.claims()["live"]
	want(t, c, core.OwnershipMine, core.UseInUse, core.StateRunning)
	if !names(pid, c) {
		t.Errorf("pid %d is not in the evidence %+v", pid, c.Evidence)
	}
	if o := h.plugin.Stop(t.Context(), h.store, h.handles("live"), 0)[0]; o.Err != nil {
		t.Error(o.Err)
	}
	want(t, h.claims()["live"], core.OwnershipMine, core.UseIdle, core.StateStopped)
}

// TestHeldCommand: a command that names the container is use before and after its own processes.
func TestHeldCommand(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	h.must(h.buildah("from", "--name", "named", "localhost/bb"))
	h.put("context/file", "x")
	// It waits for the other end of a pipe.
	ignore := filepath.Join(h.dir, "ignore")
	if err := syscall.Mkfifo(ignore, 0o600); err != nil {
		t.Fatal(err)
	}
	r := h.start(h.buildah("copy", "-q", "--contextdir", h.dir+"/context", "--ignorefile", ignore, "named", h.dir+"/context/file", "/"))
	r.Process.Signal(syscall.SIGSTOP)
	c := h.claims()["named"]
	want(t, c, core.OwnershipMine, core.UseInUse, core.StateBuilding)
	if !names(r.Process.Pid, c) {
		t.Errorf("%+v", c)
	}
	if o := h.plugin.Stop(t.Context(), h.store, h.handles("named"), 100*time.Millisecond)[0]; o.Err != nil {
		t.Errorf("a held copy is ended forcibly: %v", o.Err)
	}
	h.eventually("the copy has ended", r.ended)
}

// TestOtherGeneration: buildah 1.39 in a root directory of its own, whose paths are not ours.
func TestOtherGeneration(t *testing.T) {
	t.Parallel()
	h := newTrixie(t)
	h.must(h.buildah("from", "--name", "live", "localhost/bb"))
	h.must(h.buildah("from", "--name", "idle", "localhost/bb"))
	want(t, h.claims()["idle"], core.OwnershipMine, core.UseIdle, core.StateStopped)
	for name, args := range map[string][]string{
		"oci":    {"--isolation", "oci", "--runtime", "runc", "--network", "none"},
		"chroot": {"--isolation", "chroot"},
	} {
		t.Run(name, func(t *testing.T) {
			r := h.start(h.buildah(append(append([]string{"run"}, args...), "live", "sleep", "1204")...))
			pid := h.sleeper(r, 1204)
			claims := h.claims()
			want(t, claims["live"], core.OwnershipMine, core.UseInUse, core.StateRunning)
			want(t, claims["idle"], core.OwnershipMine, core.UseIdle, core.StateStopped)
			if !names(pid, claims["live"]) || !names(r.Process.Pid, claims["live"]) {
				t.Errorf("%+v", claims["live"])
			}
			// Our own store at the same path is another one.
			elsewhere := h.store
			elsewhere.GraphRoot = t.TempDir()
			s, err := h.plugin.look(elsewhere, h.stored())
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range s.actors {
				if a.pid == r.Process.Pid {
					t.Errorf("pid %d counts as on a store that it is not on", a.pid)
				}
			}
			if o := h.plugin.Stop(t.Context(), h.store, h.handles("live"), 300*time.Millisecond)[0]; o.Err != nil {
				t.Fatal(o.Err)
			}
			h.eventually("buildah run has ended", r.ended)
			h.cleared()
		})
	}
	apart()
	for _, program := range []string{"buildah", "podman"} {
		t.Run(program+" build", func(t *testing.T) {
			r := h.start(h.build(program, oneStep))
			pid := h.sleeper(r, 1203)
			claims := h.claims()
			c := claims["bb-working-container"]
			want(t, c, core.OwnershipMine, core.UseInUse, core.StateBuilding)
			want(t, claims["idle"], core.OwnershipMine, core.UseIdle, core.StateStopped)
			if !names(pid, c) {
				t.Errorf("%+v", c)
			}
			for _, p := range append([]int{r.Process.Pid}, h.below(r.Process.Pid)...) {
				if p != pid {
					syscall.Kill(p, syscall.SIGSTOP)
				}
			}
			for _, p := range h.below(r.Process.Pid) {
				syscall.Kill(p, syscall.SIGKILL)
			}
			h.eventually("the builder is between two steps", func() bool {
				return h.claims()["bb-working-container"].Use == core.UseUnknown
			})
			if h.handles("bb-working-container")[0].Container.Layer.MountCount == 0 {
				t.Error("a live build's container is not mounted, by the store's count")
			}
			r.Process.Kill()
			<-r.done
			want(t, h.claims()["bb-working-container"], core.OwnershipMine, core.UseIdle, core.StateStopped)
			h.must(h.buildah("rm", "bb-working-container"))
		})
	}
}

// TestCanceledStop: the end of ctx ends the wait, and is no success.
func TestCanceledStop(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	h.must(h.buildah("from", "--name", "live", "localhost/bb"))
	r := h.start(h.buildah("run", "--isolation", "oci", "--runtime", "runc", "--network", "none", "live", "sleep", "1208"))
	pid := h.sleeper(r, 1208)
	handles := h.handles("live")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if o := h.plugin.Stop(ctx, h.store, handles, time.Minute)[0]; !errors.Is(o.Err, context.DeadlineExceeded) {
		t.Errorf("%v", o.Err)
	}
	if _, err := readStat(pid); err != nil {
		t.Errorf("it was ended within its grace period: %v", err)
	}
}
