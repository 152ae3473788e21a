package crio

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

func runc(n *node, args ...string) *exec.Cmd {
	return exec.Command("runc", append([]string{"--root", n.dir + "/runc"}, args...)...)
}

func succeeded(t *testing.T, what string, outcomes []core.Outcome) {
	t.Helper()
	for _, o := range outcomes {
		if o.Err != nil {
			t.Errorf("%s %s: %v", what, o.Container.Short(), o.Err)
		}
	}
}

// Application containers go, and their pods live on.
func TestStopAndRemoveContainers(t *testing.T) {
	n := newNode(t)
	pod := n.pod("web")
	ids := []string{n.run(pod, "obliging", obliging), n.run(pod, "stubborn", stubborn), n.create(pod, "created", stubborn), n.exited(pod, "exited")}
	stays := n.run(pod, "stays", obliging)
	p := n.plugin()
	handles := n.handles(p, ids...)
	begin := time.Now()
	succeeded(t, "stop", p.Stop(t.Context(), n.store, handles, 700*time.Millisecond)) // is one second to CRI-O
	if took := time.Since(begin); took < time.Second || took > 4*time.Second {
		t.Errorf("the stops took %v", took)
	}
	for _, id := range ids {
		if s := n.state(id); s != cri.ContainerState_CONTAINER_EXITED {
			t.Errorf("%.12s is %s", id, s)
		}
	}
	outcomes := p.Remove(t.Context(), n.store, handles)
	succeeded(t, "remove", outcomes)
	for _, o := range outcomes {
		if !o.StorageRemoved || n.there(string(o.Container)) || n.listed(string(o.Container)) {
			t.Errorf("%+v", o)
		}
	}
	if n.state(stays) != cri.ContainerState_CONTAINER_RUNNING || !n.listed(pod) || !n.there(pod) {
		t.Error("the pod does not live on")
	}
	// Once more: what CRI-O does not know is done.
	succeeded(t, "stop again", p.Stop(t.Context(), n.store, handles, 0))
	for _, o := range p.Remove(t.Context(), n.store, handles) {
		if o.Err != nil || o.StorageRemoved {
			t.Errorf("again: %+v", o)
		}
	}
}

// A pod takes its containers along, whether or not they are handles of their own.
func TestStopAndRemovePods(t *testing.T) {
	for _, s := range []struct {
		name  string
		flags []string
	}{
		{"without infra processes", nil},
		{"with infra processes that ignore SIGTERM", []string{"-drop-infra-ctr=false"}},
		{"with obliging infra processes", []string{"-drop-infra-ctr=false", "-pause-command", "/bin/pause"}},
	} {
		t.Run(s.name, func(t *testing.T) {
			n := newNode(t, s.flags...)
			alone, shared := n.pod("alone"), n.pod("shared")
			along := []string{n.run(alone, "a", stubborn), n.exited(alone, "b")}
			handled := n.run(shared, "c", obliging)
			p := n.plugin()
			handles := n.handles(p, handled, shared, alone)
			begin := time.Now()
			succeeded(t, "stop", p.Stop(t.Context(), n.store, handles, time.Second))
			if took := time.Since(begin); took > 6*time.Second {
				t.Errorf("the stops took %v", took)
			}
			outcomes := p.Remove(t.Context(), n.store, handles)
			succeeded(t, "remove", outcomes)
			for _, o := range outcomes {
				if !o.StorageRemoved {
					t.Errorf("%+v", o)
				}
			}
			slices.Sort(along)
			got := outcomes[2].Along
			slices.Sort(got)
			if len(got) != 2 || string(got[0]) != along[0] || string(got[1]) != along[1] {
				t.Errorf("along went %v, not %v", got, along)
			}
			if left := n.stored(); len(left) != 0 {
				t.Errorf("in the store are left %v", left)
			}
			succeeded(t, "remove again", p.Remove(t.Context(), n.store, handles))
		})
	}
}

// What runs, or changed, since it was claimed is refused.
func TestRemoveRefuses(t *testing.T) {
	n := newNode(t)
	pod, busy := n.pod("web"), n.pod("busy")
	running, created := n.run(pod, "running", obliging), n.create(pod, "created", obliging)
	p := n.plugin()
	n.exited(busy, "one")
	handles := n.handles(p, running, created, pod, busy)
	member := n.run(busy, "new", obliging)
	for i, o := range p.Remove(t.Context(), n.store, handles[:3]) {
		if !errors.Is(o.Err, core.ErrStillInUse) || o.StorageRemoved {
			t.Errorf("%d: %+v", i, o)
		}
	}
	if o := p.Remove(t.Context(), n.store, handles[:1]); !errors.Is(o[0].Err, core.ErrStillInUse) {
		t.Errorf("alone: %+v", o)
	}
	// A pod that is stopped, with a container that the plan did not show.
	if _, err := n.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: busy}); err != nil {
		t.Fatal(err)
	}
	if o := p.Remove(t.Context(), n.store, handles[3:]); !errors.Is(o[0].Err, core.ErrPlanStale) {
		t.Errorf("a pod with a new container: %+v", o)
	}
	if n.state(running) != cri.ContainerState_CONTAINER_RUNNING || n.state(created) != cri.ContainerState_CONTAINER_CREATED || !n.there(member) {
		t.Error("what was refused is not as it was")
	}
	foreign := core.Handle{Container: core.Container{ID: "x"}, Claim: core.Claim{Revision: "another's"}}
	if o := p.Remove(t.Context(), n.store, []core.Handle{foreign}); !errors.Is(o[0].Err, core.ErrPlanStale) {
		t.Errorf("another's claim: %+v", o)
	}
	if o := p.Stop(t.Context(), n.store, []core.Handle{foreign}, 0); !errors.Is(o[0].Err, core.ErrPlanStale) {
		t.Errorf("another's claim: %+v", o)
	}
}

// What CRI-O forgot is left to the core, once its pod's shared memory is unmounted.
func TestRemoveForgotten(t *testing.T) {
	n := newNode(t)
	pod := n.pod("web")
	app := n.exited(pod, "app")
	n.stop()
	for _, c := range n.stored() { // so that the double cannot restore them
		if err := os.Remove(filepath.Join(c.Directory, "config.json")); err != nil {
			t.Fatal(err)
		}
	}
	n.start()
	p := n.plugin()
	handles := n.handles(p, app, pod)
	if c := handles[0].Claim; c.Ownership != core.OwnershipMine || c.Use != core.UseIdle || c.State != core.StateStopped {
		t.Errorf("%+v", c)
	}
	if c := handles[1].Claim; c.Ownership != core.OwnershipMine || c.Use != core.UseUnknown {
		t.Errorf("a pod with shared memory: %+v", c)
	}
	shm := shmPath(handles[1].Container)
	file, err := os.Create(filepath.Join(shm, "in-use"))
	if err != nil {
		t.Fatal(err)
	}
	if o := p.Remove(t.Context(), n.store, handles[1:]); !errors.Is(o[0].Err, core.ErrStillInUse) {
		t.Errorf("with a file open in its shared memory: %+v", o)
	}
	file.Close()
	succeeded(t, "stop", p.Stop(t.Context(), n.store, handles, 0))
	outcomes := p.Remove(t.Context(), n.store, handles)
	succeeded(t, "remove", outcomes)
	for _, o := range outcomes {
		if o.StorageRemoved || !n.there(string(o.Container)) {
			t.Errorf("%+v", o)
		}
	}
	if err := unix.Unmount(shm, unix.UMOUNT_NOFOLLOW); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the shared memory is still mounted: %v", err)
	}
	if c := n.claims(p)[pod]; c.Use != core.UseIdle {
		t.Errorf("%+v", c)
	}
}

// A pod whose storage somebody else has deleted cannot be stopped, and costs no more than its time.
func TestStopOfAWreck(t *testing.T) {
	n := newNode(t)
	pod := n.pod("web")
	wreck, fine := n.run(pod, "wreck", obliging), n.run(pod, "fine", obliging)
	p := n.plugin(Options{Settling: -1, StopMargin: time.Second})
	handles := n.handles(p, wreck, fine)
	n.must(n.command("-delete", wreck))
	begin := time.Now()
	outcomes := p.Stop(t.Context(), n.store, handles, time.Second)
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the stops took %v", took)
	}
	if outcomes[0].Err == nil || outcomes[1].Err != nil {
		t.Errorf("%+v", outcomes)
	}
}
