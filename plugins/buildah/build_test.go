package buildah

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

const oneStep = "FROM localhost/bb\nRUN sleep 1203\n"

func (h *host) build(program string, text string) *exec.Cmd {
	h.put("context/Containerfile", text)
	h.put("context/file", "content")
	args := []string{"build", "--network", "none", "--isolation", "oci", "--layers=false", "-t", "localhost/built", h.dir + "/context"}
	if program == "podman" {
		return h.podman(args...)
	}
	return h.buildah(args...)
}

func TestBuildStep(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"buildah", "podman"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "overlay")
			h.must(h.buildah("from", "--name", "left", "localhost/bb"))
			apart()
			r := h.start(h.build(program, oneStep))
			pid := h.sleeper(r, 1203)
			claims := h.claims()
			built := claims["bb-working-container"]
			want(t, built, core.OwnershipMine, core.UseInUse, core.StateBuilding)
			if !names(pid, built) || !names(r.Process.Pid, built) || !strings.HasPrefix(built.Group, "build pid ") {
				t.Errorf("%+v", built)
			}
			want(t, claims["left"], core.OwnershipMine, core.UseIdle, core.StateStopped)
			if o := h.plugin.Stop(t.Context(), h.store, h.handles("bb-working-container"), 200*time.Millisecond)[0]; o.Err != nil {
				t.Fatal(o.Err)
			}
			h.eventually("the build has ended", r.ended)
			h.cleared()
			if c, there := h.claims()["bb-working-container"]; there {
				t.Logf("%s keeps the container of a failed build", program)
				want(t, c, core.OwnershipMine, core.UseIdle, core.StateStopped)
			}
		})
	}
}

// apart lets more time pass than the slack between a container and a builder.
func apart() { time.Sleep(slack + 100*time.Millisecond) }

// TestBetweenSteps: a live build without a process in its container, and the leftover that it is
// after its death.
func TestBetweenSteps(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"buildah", "podman"} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "overlay")
			h.must(h.buildah("from", "--name", "left", "localhost/bb"))
			apart()
			r := h.start(h.build(program, oneStep))
			pid := h.sleeper(r, 1203)
			// Held here, the builder does not notice that its step has ended.
			for _, p := range append([]int{r.Process.Pid}, h.below(r.Process.Pid)...) {
				if p != pid {
					syscall.Kill(p, syscall.SIGSTOP)
				}
			}
			for _, p := range h.below(r.Process.Pid) {
				syscall.Kill(p, syscall.SIGKILL)
			}
			h.eventually("nothing is in the container", func() bool {
				return h.claims()["bb-working-container"].Use != core.UseInUse
			})
			claims := h.claims()
			c := claims["bb-working-container"]
			want(t, c, core.OwnershipMine, core.UseUnknown, core.StateBuilding)
			if !names(r.Process.Pid, c) || c.Evidence[0].Process == nil {
				t.Errorf("%+v", c)
			}
			t.Log(c.Evidence[0].Detail)
			want(t, claims["left"], core.OwnershipMine, core.UseIdle, core.StateStopped)
			handles := h.handles("bb-working-container")
			// The same, had the clock been set forward since the build began.
			s, err := h.plugin.look(h.store, h.stored())
			if err != nil {
				t.Fatal(err)
			}
			s.boot = s.boot.Add(time.Hour)
			c = s.judge(handles[0].Container, func(string) bool { return false }).claim
			want(t, c, core.OwnershipMine, core.UseUnknown, core.StateBuilding)
			t.Log(c.Evidence[0].Detail)
			if o := h.plugin.Stop(t.Context(), h.store, handles, 0)[0]; !errors.Is(o.Err, core.ErrStillInUse) {
				t.Errorf("stop between two steps: %v", o.Err)
			}
			if o := h.plugin.Remove(t.Context(), h.store, handles)[0]; o.Err != nil {
				t.Errorf("remove of what the plan knew to be unknown: %v", o.Err)
			}
			stale := handles[0]
			stale.Claim.Use = core.UseIdle
			if o := h.plugin.Remove(t.Context(), h.store, []core.Handle{stale})[0]; !errors.Is(o.Err, core.ErrStillInUse) {
				t.Errorf("remove of what the plan took for idle: %v", o.Err)
			}
			// The window before the record: the same builder, a container without one.
			record := filepath.Join(handles[0].Container.Directory, stateFile)
			if err := os.Rename(record, record+".away"); err != nil {
				t.Fatal(err)
			}
			want(t, h.claims()["bb-working-container"], core.OwnershipUnknown, core.UseUnknown, core.StateNone)
			r.Process.Kill()
			<-r.done
			want(t, h.claims()["bb-working-container"], core.OwnershipNotMine, core.UseUnknown, core.StateNone)
			if err := os.Rename(record+".away", record); err != nil {
				t.Fatal(err)
			}
			want(t, h.claims()["bb-working-container"], core.OwnershipMine, core.UseIdle, core.StateStopped)
		})
	}
}

// TestService: podman system service may be building.
func TestService(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	h.must(h.buildah("from", "--name", "before", "localhost/bb"))
	apart()
	socket := h.dir + "/podman.sock"
	r := h.start(h.podman("system", "service", "--time=0", "unix://"+socket))
	h.eventually("the service listens", func() bool { _, err := os.Stat(socket); return err == nil })
	h.must(h.buildah("from", "--name", "after", "localhost/bb"))
	claims := h.claims()
	want(t, claims["before"], core.OwnershipMine, core.UseIdle, core.StateStopped)
	want(t, claims["after"], core.OwnershipMine, core.UseUnknown, core.StateBuilding)
	if !names(r.Process.Pid, claims["after"]) {
		t.Errorf("%+v", claims["after"])
	}
}

// TestServiceBuild: a build for a client of podman system service, which lives on after it.
func TestServiceBuild(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	socket := h.dir + "/podman.sock"
	service := h.start(h.podman("system", "service", "--time=0", "unix://"+socket))
	h.eventually("the service listens", func() bool { _, err := os.Stat(socket); return err == nil })
	h.put("context/Containerfile", oneStep)
	client := exec.Command("podman", "--url", "unix://"+socket, "build", "--network", "none", "--isolation", "oci",
		"--layers=false", "-t", "localhost/built", h.dir+"/context")
	client.Env = h.podman().Env
	c := h.start(client)
	pid := h.sleeper(service, 1203)
	claim := h.claims()["bb-working-container"]
	want(t, claim, core.OwnershipMine, core.UseInUse, core.StateBuilding)
	if !names(pid, claim) || !names(service.Process.Pid, claim) {
		t.Errorf("%+v", claim)
	}
	begin := time.Now()
	if o := h.plugin.Stop(t.Context(), h.store, h.handles("bb-working-container"), 200*time.Millisecond)[0]; o.Err != nil {
		t.Fatal(o.Err)
	}
	_, kept := h.claims()["bb-working-container"]
	t.Logf("stopped in %v; the container is kept: %v", time.Since(begin), kept)
	h.eventually("the client has ended", c.ended)
	if service.ended() {
		t.Error("the service was ended")
	}
	h.must(h.podman("ps"))
}

// TestStubbornBuild: a step that answers SIGTERM with success lets the build go on to its next one.
func TestStubbornBuild(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	r := h.start(h.build("buildah", "FROM localhost/bb\nRUN trap 'exit 0' TERM; while :; do sleep 0.1; done & sleep 1205\nRUN sleep 1207\n"))
	h.sleeper(r, 1205)
	if o := h.plugin.Stop(t.Context(), h.store, h.handles("bb-working-container"), 500*time.Millisecond)[0]; o.Err != nil {
		t.Error(o.Err)
	}
	h.eventually("the build has ended", r.ended)
	for name, c := range h.claims() {
		if c.Use != core.UseIdle {
			t.Errorf("%s: %+v", name, c)
		}
	}
}
