package podman_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/podman"
)

func TestStop(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		running := s.run("--name", "running", "--restart", "always", "localhost/bb", "sleep", "1000")
		paused := s.run(append([]string{"--name", "paused"}, deaf...)...)
		s.podman("pause", "paused")
		removed := s.run(append([]string{"--name", "removed", "--rm"}, deaf...)...)
		created := s.create("--name", "created", "localhost/bb", "sleep", "1000")
		initialized := s.create("--name", "initialized", "localhost/bb", "sleep", "1000")
		s.podman("init", "initialized")
		vanished := s.create("--name", "vanished", "localhost/bb", "sleep", "1000")
		bystander := s.run("--name", "bystander", "localhost/bb", "sleep", "1000")
		handles := s.handles(p, running, paused, removed, created, initialized, vanished)
		s.podman("rm", "vanished")

		began := time.Now()
		s.succeeded(p.Stop(context.Background(), s.store, handles, 1500*time.Millisecond), len(handles))
		if took := time.Since(began); took < 1500*time.Millisecond || took > 10*time.Second {
			t.Errorf("it took %s", took)
		}
		// Podman removes a --rm container in the background.
		s.wait("the --rm container to go", func() bool { _, there := s.states()["removed"]; return !there })
		states := s.states()
		for _, name := range []string{"running", "paused", "initialized"} {
			if state := states[name]; state != "exited" && state != "stopped" {
				t.Errorf("%s is %s", name, state)
			}
		}
		if states["created"] != "created" || states["bystander"] != "running" {
			t.Errorf("the states are %v", states)
		}

		began = time.Now()
		again := p.Stop(context.Background(), s.store, handles, 10*time.Second)
		s.succeeded(again, len(handles))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("stopping what is stopped took %s", took)
		}

		// Killed at once; and one that was started anew is another one.
		handles = s.handles(p, bystander)
		s.podman("restart", "-t", "0", "bystander")
		outcomes := p.Stop(context.Background(), s.store, handles, 0)
		if !errors.Is(outcomes[0].Err, core.ErrPlanStale) {
			t.Errorf("the restarted container: %v", outcomes[0].Err)
		}
		handles = s.handles(p, bystander)
		began = time.Now()
		s.succeeded(p.Stop(context.Background(), s.store, handles, 0), 1)
		if took := time.Since(began); took > 8*time.Second { // its own grace period is 10 s
			t.Errorf("killing at once took %s", took)
		}
	})
}

func TestStopsSideBySide(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		var ids []core.ContainerID
		for range 8 {
			ids = append(ids, s.run(deaf...))
		}
		const grace = 8 * time.Second
		handles := s.handles(p, ids...)
		began := time.Now()
		s.succeeded(p.Stop(context.Background(), s.store, handles, grace), len(ids))
		took := time.Since(began)
		t.Logf("8 containers that ignore SIGTERM, grace %s: %s", grace, took.Round(time.Millisecond))
		if took >= 2*grace { // two waves
			t.Errorf("they were not stopped side by side: %s", took)
		}
	})
}

func TestRemove(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		base := s.create("--name", "base", "-v", "/anonymous", "localhost/bb", "sleep", "1000")
		sharer := s.create("--name", "sharer", "--net", "container:base", "localhost/bb", "true")
		second := s.create("--name", "second", "--ipc", "container:sharer", "--net", "none", "localhost/bb", "true")
		restarted := s.create("--name", "restarted", "localhost/bb", "sleep", "1000")
		paused := s.create("--name", "paused", "localhost/bb", "sleep", "1000")
		vanished := s.create("--name", "vanished", "localhost/bb", "sleep", "1000")
		s.create("--name", "bystander", "localhost/bb", "sleep", "1000")
		handles := s.handles(p, base, sharer, second, restarted, paused, vanished)
		s.podman("start", "restarted", "paused", "bystander")
		s.podman("pause", "paused")
		s.podman("rm", "vanished")

		outcomes := p.Remove(context.Background(), s.store, handles)
		if len(outcomes) != len(handles) {
			t.Fatalf("%d outcomes", len(outcomes))
		}
		for i, o := range outcomes {
			if o.Container != handles[i].Container.ID {
				t.Errorf("outcome %d is of %s", i, o.Container.Short())
			}
			switch o.Container {
			case restarted, paused:
				if !errors.Is(o.Err, core.ErrStillInUse) || o.StorageRemoved {
					t.Errorf("a container that runs again: %+v", o)
				}
			case vanished:
				if o.Err != nil || o.StorageRemoved {
					t.Errorf("a container that was gone: %+v", o)
				}
			default:
				if o.Err != nil || !o.StorageRemoved {
					t.Errorf("%s: %+v", o.Container.Short(), o)
				}
			}
		}
		s.gone(base, sharer, second, vanished)
		if states := s.states(); len(states) != 3 || states["restarted"] != "running" || states["paused"] != "paused" {
			t.Errorf("left are %v", states)
		}
		if volumes := s.podman("volume", "ls", "-q"); volumes == "" {
			t.Error("the anonymous volume is gone, which podman rmi --force keeps")
		}
	})
}

// TestRemoveNothingUnnamed: what would go along stays where it has no handle of its own, and so does
// all that would take it along.
func TestRemoveNothingUnnamed(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		base := s.create("--name", "base", "localhost/bb", "sleep", "1000")
		sharer := s.create("--name", "sharer", "--net", "container:base", "localhost/bb", "true")
		second := s.create("--name", "second", "--ipc", "container:sharer", "--net", "none", "localhost/bb", "true")
		other := s.create("--name", "other", "localhost/bb", "true")
		s.podman("pod", "create", "--name", "web", "--infra-image", "localhost/bb", "--infra-command", "sleep 1000")
		member := s.create("--name", "member", "--pod", "web", "localhost/bb", "true")
		var infra core.ContainerID
		for id, c := range s.claim(p) {
			if c.Group == "web" && id != member {
				infra = id
			}
		}
		refused := func(o core.Outcome, naming core.ContainerID) {
			t.Helper()
			if !errors.Is(o.Err, core.ErrStillInUse) || !strings.Contains(o.Err.Error(), naming.Short()) || o.StorageRemoved || len(o.Along) > 0 {
				t.Errorf("not refused for the sake of %s: %+v", naming.Short(), o)
			}
		}
		for _, o := range p.Remove(context.Background(), s.store, s.handles(p, base, sharer, other, infra)) {
			switch o.Container {
			case base, sharer:
				refused(o, second)
			case infra:
				refused(o, member)
			default:
				if o.Err != nil || !o.StorageRemoved {
					t.Errorf("one without company: %+v", o)
				}
			}
		}
		if states := s.states(); len(states) != 5 {
			t.Errorf("left are %v", states)
		}
		if pods := s.podman("pod", "ps", "--format", "{{.Name}}"); pods != "web" {
			t.Errorf("pods left: %q", pods)
		}

		// A pod stays whole.
		unnamed := s.create("--name", "member2", "--pod", "web", "localhost/bb", "true")
		for _, o := range p.Remove(context.Background(), s.store, s.handles(p, infra, member)) {
			refused(o, unnamed)
		}
		s.podman("rm", "member2")

		// A claim that leaves out the last of the chain does not let it go unseen.
		handles := s.handles(p, base, sharer)
		for i := range handles {
			if handles[i].Container.ID == base {
				handles[i].Claim.TakesAlong = []core.ContainerID{sharer}
			}
		}
		for _, o := range p.Remove(context.Background(), s.store, handles) {
			refused(o, second)
		}

		// Company that is gone keeps nothing.
		handles = s.handles(p, base, sharer, infra)
		s.podman("rm", "second", "member")
		s.succeeded(p.Remove(context.Background(), s.store, handles), 3)
		s.gone(base, sharer, second, infra, member, other)
	})
}

func TestPod(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		for _, name := range []string{"web", "other"} {
			s.podman("pod", "create", "--name", name, "--infra-image", "localhost/bb", "--infra-command", "sleep 1000")
		}
		member := s.run(append([]string{"--name", "member", "--pod", "web", "-v", "/anonymous"}, deaf...)...)
		idle := s.create("--name", "idle", "--pod", "web", "-v", "/anonymous", "localhost/bb", "true")
		s.run("--name", "bystander", "--pod", "other", "localhost/bb", "sleep", "1000")
		var infra core.ContainerID
		for id, c := range s.claim(p) {
			if c.Group == "web" && id != member && id != idle {
				infra = id
			}
		}

		// As long as a member runs, the pod is refused and stays whole.
		outcomes := p.Remove(context.Background(), s.store, s.handles(p, infra, member, idle))
		for _, o := range outcomes {
			if !errors.Is(o.Err, core.ErrStillInUse) {
				t.Errorf("removed while it runs: %+v", o)
			}
		}
		if states := s.states(); states["member"] != "running" || states["idle"] != "created" {
			t.Errorf("the states are %v", states)
		}
		s.succeeded(p.Stop(context.Background(), s.store, s.handles(p, infra), time.Second), 1)
		if state := s.states()["member"]; state != "exited" && state != "stopped" {
			t.Errorf("the member is %s", state)
		}

		// A container that joined since the claim was not seen by anybody.
		handles := s.handles(p, infra, member, idle)
		joined := s.create("--name", "joined", "--pod", "web", "localhost/bb", "true")
		for _, o := range p.Remove(context.Background(), s.store, handles) {
			if !errors.Is(o.Err, core.ErrPlanStale) {
				t.Errorf("the pod has grown: %+v", o)
			}
		}

		// A pod that was started since is refused, though Podman itself would kill an infra container.
		handles = s.handles(p, infra, member, idle, joined)
		s.podman("start", string(infra))
		for _, o := range p.Remove(context.Background(), s.store, handles) {
			if !errors.Is(o.Err, core.ErrStillInUse) {
				t.Errorf("an infra container that runs: %+v", o)
			}
		}
		s.podman("stop", "-t", "0", string(infra))
		s.succeeded(p.Remove(context.Background(), s.store, s.handles(p, infra, member, idle, joined)), 4)
		s.gone(infra, member, idle, joined)
		if volumes := strings.Fields(s.podman("volume", "ls", "-q")); len(volumes) != 2 {
			t.Errorf("of two anonymous volumes, which podman rmi --force keeps, there are %v", volumes)
		}
		if pods := s.podman("pod", "ps", "--format", "{{.Name}}"); pods != "other" {
			t.Errorf("pods left: %q", pods)
		}
		if state := s.states()["bystander"]; state != "running" {
			t.Errorf("the bystander is %s", state)
		}
	})
}

// TestPodsUnlisted: where the pods cannot be asked for, they stay whole.
func TestPodsUnlisted(t *testing.T) {
	everyGeneration(t, func(t *testing.T, s *scene) {
		s.podman("pod", "create", "--name", "web", "--infra-image", "localhost/bb", "--infra-command", "sleep 1000")
		member := s.create("--name", "member", "--pod", "web", "localhost/bb", "true")
		other := s.create("--name", "other", "localhost/bb", "true")
		infra := core.ContainerID(s.podman("ps", "-a", "--no-trunc", "-q", "--filter", "name=infra"))
		handles := s.handles(s.cli(), infra, member, other)
		for _, o := range s.failing(`*" pod ps "*`).Remove(context.Background(), s.store, handles) {
			if (o.Container == other) != (o.Err == nil) {
				t.Errorf("%+v", o)
			}
			if o.Err != nil && !strings.Contains(o.Err.Error(), "database is locked") {
				t.Error(o.Err)
			}
		}
		s.gone(other)
		if states := s.states(); len(states) != 2 {
			t.Errorf("left are %v", states)
		}
	})
}

// TestUnpauseOneByOne: one paused container that Podman stumbles over costs the others nothing.
func TestUnpauseOneByOne(t *testing.T) {
	s := newScene(t, generations()[0])
	a, b := s.run("--name", "a", "localhost/bb", "sleep", "1000"), s.run("--name", "b", "localhost/bb", "sleep", "1000")
	s.podman("pause", "a", "b")
	handles := s.handles(s.cli(), a, b)
	s.succeeded(s.failing(`*" unpause "*" "????*`).Stop(context.Background(), s.store, handles, 0), 2)
	if states := s.states(); states["a"] != "exited" || states["b"] != "exited" {
		t.Errorf("the states are %v", states)
	}
}

// failing is a plugin whose podman fails where its arguments match a pattern of the shell's.
func (s *scene) failing(pattern string) *podman.Plugin {
	s.t.Helper()
	script := "case \" $* \" in " + pattern + ") echo 'Error: database is locked' >&2; exit 125;; esac\nexec " + s.generation.podman + ` "$@"`
	return s.plugin(podman.Options{Command: fakePodman(s.t, script), TmpDir: s.tmpdir, Env: s.env, Settling: -1})
}

func TestMemberAlone(t *testing.T) {
	everyGeneration(t, func(t *testing.T, s *scene) {
		p := s.cli()
		s.podman("pod", "create", "--name", "web", "--infra-image", "localhost/bb", "--infra-command", "sleep 1000")
		member := s.create("--name", "member", "--pod", "web", "localhost/bb", "true")
		s.succeeded(p.Remove(context.Background(), s.store, s.handles(p, member)), 1)
		s.gone(member)
		if pods := s.podman("pod", "ps", "--format", "{{.Name}}"); pods != "web" {
			t.Errorf("pods left: %q", pods)
		}
	})
}

func TestVolume(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		s.podman("volume", "create", "--driver", "image", "--opt", "image=localhost/bb", "data")
		mounter := s.create("--name", "mounter", "-v", "data:/data", "localhost/bb", "true")
		var volume core.ContainerID
		for id := range s.claim(p) {
			if id != mounter {
				volume = id
			}
		}
		// Without the container that mounts it, Podman refuses.
		handles := s.handles(p, volume)
		s.succeeded(p.Stop(context.Background(), s.store, handles, 0), 1)
		handles[0].Claim.TakesAlong = nil
		if o := p.Remove(context.Background(), s.store, handles); o[0].Err == nil {
			t.Error("removed a volume that a container mounts")
		}
		s.succeeded(p.Remove(context.Background(), s.store, s.handles(p, volume, mounter)), 2)
		s.gone(volume, mounter)
		if volumes := s.podman("volume", "ls", "-q"); volumes != "" {
			t.Errorf("volumes left: %q", volumes)
		}
	})
}

// TestOtherStores: without --tmpdir, with a storage option, and with vfs.
func TestOtherStores(t *testing.T) {
	t.Run("without --tmpdir and with an option", func(t *testing.T) {
		s := newScene(t, generations()[0])
		id := s.run("--name", "running", "localhost/bb", "sleep", "1000")
		tmpdir := s.tmpdir
		s.tmpdir = ""
		s.store.GraphOptions = []string{"overlay.mountopt=nodev"}
		if c := s.claim(s.cli())[id]; c.State != core.StateRunning {
			t.Errorf("it is %+v", c)
		}
		s.tmpdir = tmpdir
	})
	t.Run("vfs", func(t *testing.T) {
		s := newSceneOn(t, generations()[0], "vfs")
		p := s.cli()
		running := s.run(deaf...)
		created := s.create("localhost/bb", "true")
		handles := s.handles(p, running, created)
		for _, h := range handles {
			if h.Claim.Ownership != core.OwnershipMine {
				t.Errorf("%+v", h.Claim)
			}
		}
		s.succeeded(p.Stop(context.Background(), s.store, handles, 0), 2)
		s.succeeded(p.Remove(context.Background(), s.store, handles), 2)
		s.gone(running, created)
	})
}

func TestRemoveFifty(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		var ids []core.ContainerID
		for range 50 {
			ids = append(ids, s.create("localhost/bb", "true"))
		}
		began := time.Now()
		handles := s.handles(p, ids...)
		claimed := time.Since(began)
		began = time.Now()
		s.succeeded(p.Remove(context.Background(), s.store, handles), 50)
		t.Logf("50 created containers: claim %s, remove %s", claimed.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		s.gone(ids...)
	})
}

// TestEnvironment: what would make podman ask another host, or take over a socket of ours, is taken
// away.
func TestEnvironment(t *testing.T) {
	gone := []string{"CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINER_SSHKEY", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET"}
	for _, name := range gone {
		t.Setenv(name, "tcp://127.0.0.1:1")
	}
	out := filepath.Join(t.TempDir(), "env")
	s := &scene{t: t, command: fakePodman(t, "env >"+out+"; exit 1")}
	if _, err := s.cli().Claim(context.Background(), core.StoreInfo{}, []core.Container{podmans()}); err == nil {
		t.Error("no error")
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range gone {
		if strings.Contains(string(text), name+"=") {
			t.Errorf("the environment has %s", name)
		}
	}
	if !strings.Contains(string(text), "LC_ALL=C\n") {
		t.Errorf("the environment is %s", text)
	}
}
