package crio

import (
	"slices"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

func TestClaim(t *testing.T) {
	for _, s := range []struct {
		name  string
		flags []string
		pids  int
	}{
		{"with infra processes", []string{"-drop-infra-ctr=false", "-pause-command", "/bin/pause"}, 1},
		{"without infra processes", nil, 0},
	} {
		t.Run(s.name, func(t *testing.T) {
			n := newNode(t, s.flags...)
			pod := n.pod("web")
			running := n.run(pod, "app", obliging)
			created := n.create(pod, "next", obliging)
			exited := n.exited(pod, "init")
			ended := n.pod("ended")
			if _, err := n.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: ended}); err != nil {
				t.Fatal(err)
			}
			p := n.plugin()
			n.calls()
			claims := n.claims(p)
			if got := n.calls(); !slices.Equal(got, []string{"ImageFsInfo", "ListContainers", "ListPodSandbox"}) {
				t.Errorf("CRI-O was asked %v", got)
			}
			members := []core.ContainerID{core.ContainerID(running), core.ContainerID(created), core.ContainerID(exited)}
			slices.Sort(members)
			for _, want := range []struct {
				id, name string
				state    core.State
				use      core.Use
				pids     int
				along    []core.ContainerID
			}{
				{pod, "default/web/POD", core.StateRunning, core.UseInUse, s.pids, members},
				{running, "default/web/app", core.StateRunning, core.UseInUse, 1, nil},
				{created, "default/web/next", core.StateCreated, core.UseInUse, 1, nil},
				{exited, "default/web/init", core.StateStopped, core.UseIdle, 0, nil},
				{ended, "default/ended/POD", core.StateStopped, core.UseIdle, 0, nil},
			} {
				c := claims[want.id]
				processes := core.Processes(c.Evidence)
				if c.Ownership != core.OwnershipMine || c.DisplayName != want.name || c.State != want.state || c.Use != want.use ||
					len(processes) != want.pids || !slices.Equal(c.TakesAlong, want.along) {
					t.Errorf("%s: %+v", want.name, c)
				}
				for _, process := range processes {
					if process.StartTime == 0 || process.OnHost || process.Command == "" {
						t.Errorf("%s: process %+v", want.name, process)
					}
				}
			}
		})
	}
}

// The process ends while CRI-O is down: its record is old, the pid no evidence.
func TestClaimAfterRestart(t *testing.T) {
	n := newNode(t)
	pod := n.pod("web")
	lives, ends := n.run(pod, "lives", obliging), n.run(pod, "ends", obliging)
	n.stop()
	p := n.plugin()
	if _, err := p.Claim(t.Context(), n.store, n.stored()); err == nil {
		t.Fatal("a claim without CRI-O")
	}
	n.must(runc(n, "kill", ends, "KILL"))
	n.start()
	n.eventually("the end is known", func() bool { return n.state(ends) == cri.ContainerState_CONTAINER_EXITED })
	claims := n.claims(p)
	if c := claims[lives]; c.Use != core.UseInUse || len(core.Processes(c.Evidence)) != 1 {
		t.Errorf("lives: %+v", c)
	}
	if c := claims[ends]; c.Use != core.UseIdle || len(core.Processes(c.Evidence)) != 0 {
		t.Errorf("ends: %+v", c)
	}
}

// CRI-O does not list what it is creating.
func TestClaimDuringCreation(t *testing.T) {
	n := newNode(t)
	pod := n.pod("web")
	n.control("hang creating")
	done := make(chan string)
	go func() {
		r, err := n.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: pod, Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: "slow"}, Image: &cri.ImageSpec{Image: app}, Command: stubborn}})
		if err != nil {
			t.Error(err)
		}
		done <- r.GetContainerId()
	}()
	n.eventually("its storage is there", func() bool { return len(n.stored()) == 2 })
	var c core.Container
	for _, c = range n.stored() {
		if string(c.ID) != pod {
			break
		}
	}
	p := n.plugin(Options{})
	claim := n.claims(p)[string(c.ID)]
	if claim.Ownership != core.OwnershipUnknown || !strings.Contains(claim.Evidence[0].Detail, "may still be creating") {
		t.Errorf("%+v", claim)
	}
	// Even taken for a forgotten one, it is not removed.
	eager := n.plugin()
	handles := n.handles(eager, string(c.ID))
	if handles[0].Claim.Ownership != core.OwnershipMine {
		t.Errorf("%+v", handles[0].Claim)
	}
	if o := eager.Remove(t.Context(), n.store, handles); o[0].Err == nil {
		t.Errorf("%+v", o)
	}
	n.control("")
	if id := <-done; !n.there(id) || n.claims(p)[id].State != core.StateCreated {
		t.Errorf("container %s is lost", id)
	}
}

func TestClaimOnAnotherStore(t *testing.T) {
	n := newNode(t)
	pod := n.pod("web")
	n.run(pod, "app", obliging)
	containers := n.stored()
	elsewhere := n.store
	elsewhere.GraphRoot = t.TempDir()
	p := n.plugin()
	claims, err := p.Claim(t.Context(), elsewhere, containers)
	if err != nil {
		t.Fatal(err)
	}
	// The very IDs: a copy, or the same store by another way. That cannot be told.
	for id, c := range index(t, containers, claims) {
		if c.Ownership != core.OwnershipUnknown {
			t.Errorf("%.12s: %+v", id, c)
		}
	}
	for i := range containers {
		containers[i].ID = core.ContainerID(strings.Repeat("0", 63) + string(rune('0'+i)))
	}
	claims, err = p.Claim(t.Context(), elsewhere, containers)
	if err != nil {
		t.Fatal(err)
	}
	for id, c := range index(t, containers, claims) {
		if c.Ownership != core.OwnershipNotMine {
			t.Errorf("%.12s: %+v", id, c)
		}
	}
}

func TestClaimOfUnknownStates(t *testing.T) {
	n := newNode(t)
	pod := n.pod("web")
	app := n.exited(pod, "app")
	n.control("unknown-state")
	claims := n.claims(n.plugin())
	for _, id := range []string{pod, app} {
		if c := claims[id]; c.Ownership != core.OwnershipMine || c.Use != core.UseUnknown || !c.State.Live() || len(c.Evidence) == 0 {
			t.Errorf("%+v", c)
		}
	}
	p := n.plugin()
	for _, o := range p.Remove(t.Context(), n.store, n.handles(p, app, pod)) {
		if o.Err == nil {
			t.Errorf("%+v", o)
		}
	}
	n.control("")
	if !n.there(app) || !n.there(pod) {
		t.Error("removed in an unknown state")
	}
}

// One claim is three calls, whatever the number of containers. The time is printed; what fails the test
// is a time that only a call for each container takes. Each one's record is read besides.
func TestClaimOfAThousand(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a thousand containers")
	}
	n := newNode(t, "-runtime", "none")
	const pods, each = 50, 19
	for i := range pods {
		pod := n.pod("p" + string(rune('a'+i%26)) + string(rune('a'+i/26)))
		for j := range each {
			n.run(pod, "c"+string(rune('a'+j)), stubborn)
		}
	}
	p, containers := n.plugin(), n.stored()
	if len(containers) != pods*(each+1) {
		t.Fatalf("%d containers", len(containers))
	}
	best := time.Hour
	for range 5 {
		begin := time.Now()
		claims, err := p.Claim(t.Context(), n.store, containers)
		if took := time.Since(begin); took < best {
			best = took
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range claims {
			if c.Ownership != core.OwnershipMine || c.Use != core.UseInUse {
				t.Fatalf("%+v", c)
			}
		}
	}
	t.Logf("a claim of %d containers takes %v", len(containers), best)
	if best > 2*time.Second {
		t.Errorf("a claim of %d containers takes %v", len(containers), best)
	}
}
