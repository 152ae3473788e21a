package itest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// scene is the great one: every owner of a shared store at once.
type scene struct {
	*scenario
	target string
	// inUse are the containers in use that an engine can stop, by name, with the pid of a process in
	// each; idle the others.
	inUse map[string]process
	idle  map[string]string
	// holder uses the unknown container named u-live; nil where the scene has none.
	holder  *background
	unknown string
	// all are the processes that must be gone in the end.
	all []process
	// beside runs in a container of the bystander image, infra in the pod's own.
	beside, infra process
	// bystander is the ID of that image; staying are all processes that must be there in the end.
	bystander string
	staying   []string
}

func newScene(s *scenario, holder bool) *scene {
	t := s.t
	t.Helper()
	sc := &scene{scenario: s, inUse: map[string]process{}, idle: map[string]string{}}
	sc.target = s.importImage("image", image)
	sc.bystander = s.importImage("bystander", bystander)
	beside := s.podman("run", "-d", "--name", "beside", bystander, "sleep", "1000")
	sc.beside = s.process(s.podmanPID("beside"))

	for _, name := range []string{"p-run1", "p-run2", "p-run3"} {
		// One that ends at SIGTERM, the others as PID 1 does: they ignore it.
		command := []string{"sleep", "1000"}
		if name == "p-run1" {
			command = []string{"sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"}
		}
		s.podman(append([]string{"run", "-d", "--name", name, image}, command...)...)
		sc.inUse[name] = s.process(s.podmanPID(name))
	}
	for _, name := range []string{"p-stop1", "p-stop2"} {
		sc.idle[name] = s.podman("create", "--name", name, image, "true")
	}
	sc.idle["p-stop3"] = "p-stop3"
	s.podman("run", "--name", "p-stop3", image, "true")
	s.podman("pod", "create", "--network", "none", "--name", "pod")
	s.podman("run", "-d", "--pod", "pod", "--name", "p-inpod", image, "sleep", "1000")
	sc.inUse["p-inpod"] = s.process(s.podmanPID("p-inpod"))
	infra := s.podman("pod", "inspect", "--format", "{{.InfraContainerID}}", "pod")
	sc.infra = s.process(s.podmanPID(infra))

	for _, name := range []string{"b-idle1", "b-idle2", "b-run"} {
		s.buildah("from", "--pull-never", "--name", name, image)
		sc.idle[name] = name
	}
	s.buildah("copy", "b-idle1", s.path("containers.conf"), "/etc/")
	delete(sc.idle, "b-run")
	sc.inUse["b-run"] = sc.buildahRun("b-run", "--network", "none")

	mounted := s.unknown("u-mounted", image)
	sc.idle["u-mounted"] = mounted
	merged := s.mountUnknown(mounted)
	s.bind(merged, merged)
	sc.idle["u-plain"] = s.unknown("u-plain", image)
	if holder {
		sc.unknown = s.unknown("u-live", image)
		sc.holder = s.pivoted(s.mountUnknown(sc.unknown), "sleep", "1001")
		sc.all = append(sc.all, sc.holder.process)
	}
	for _, p := range sc.inUse {
		sc.all = append(sc.all, p)
	}
	// Beside and the infra container keep theirs, and the conmon of each, which names it.
	for _, p := range processesBelow(s.dir) {
		if p.pid == sc.beside.pid || p.pid == sc.infra.pid || strings.Contains(p.command, beside) || strings.Contains(p.command, infra) {
			sc.staying = append(sc.staying, p.String()+" "+p.command)
		}
	}
	if len(sc.staying) < 4 {
		t.Fatalf("not two containers and their monitors: %v", sc.staying)
	}
	return sc
}

// buildahRun starts a live `buildah run` in a working container and returns a process in it.
func (s *scenario) buildahRun(name string, flags ...string) process {
	s.t.Helper()
	mark := "/bin/sleep 1" + strconv.FormatInt(time.Now().UnixNano()%1e8, 10)
	args := append([]string{"run"}, flags...)
	b := s.start(s.buildahCommand(append(append(args, name, "--"), strings.Fields(mark)...)...))
	var found process
	eventually(s.t, "buildah run has started", func() bool {
		if b.ended() {
			s.t.Fatalf("buildah run: %v: %s", b.err, b.out.String())
		}
		found = processNamed(mark)
		return found.pid != 0
	})
	return found
}

// processNamed finds the process that has exactly this command line.
func processNamed(command string) process {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " ")) != command {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if p, err := processOf(pid); err == nil {
			return p
		}
	}
	return process{}
}

// process is who has the pid now.
func (s *scenario) process(pid int) process {
	s.t.Helper()
	p, err := processOf(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// wantDone checks all that must hold after the removal.
func (sc *scene) wantDone(r result) {
	t := sc.t
	t.Helper()
	r.wantCode(t, 0)
	wantGone(t, sc.all)
	wantAlive(t, sc.beside, sc.infra)
	if sc.hasImage(sc.target) {
		t.Errorf("the image is still there after %v", r)
	}
	if !sc.hasImage(sc.bystander) {
		t.Errorf("the bystander's image is gone after %v", r)
	}
	// Nothing else is left of the engines: no conmon, no shim, no clean-up. Those end by themselves,
	// a moment after the container.
	sc.wantProcesses(sc.staying)
	if pods := sc.podmanPods(); len(pods) != 1 || !strings.Contains(pods[0], " pod Running [") || strings.Count(pods[0], "running") != 1 {
		t.Errorf("not the one pod with its infra container running: %v", pods)
	}
	for _, c := range sc.containers() {
		if c.Image == sc.target {
			t.Errorf("container %s %v is still there after %v", c.ID, c.Names, r)
		}
	}
	for _, line := range sc.podmanContainers() {
		if !strings.Contains(line, " beside ") && !strings.Contains(line, "-infra ") {
			t.Errorf("podman still lists %s", line)
		}
	}
	if out := sc.buildah("containers", "-q"); out != "" {
		t.Errorf("buildah still lists %s", out)
	}
	// The engines' own records are right: the bystander can be inspected, stopped, started.
	sc.podman("exec", "beside", "cat", "/etc/name")
	sc.podman("restart", "-t", "0", "beside")
	// What is mounted belongs to the containers that are left: the bystander, and the infra container
	// of the emptied pod.
	for _, m := range mountsBelow(sc.path("root")) {
		theirs := m == sc.path("root/overlay")
		for _, c := range sc.containers() {
			theirs = theirs || strings.Contains(m, "/"+c.ID+"/") || strings.Contains(m, "/"+c.Layer+"/")
		}
		if !theirs {
			t.Errorf("a mount is left: %s", m)
		}
	}
	sc.check()
}

// wantProcesses fails the test where the scenario's processes do not come to be these.
func (s *scenario) wantProcesses(want []string) {
	s.t.Helper()
	var diff string
	for range 500 {
		var now []string
		for _, p := range processesBelow(s.dir) {
			now = append(now, p.String()+" "+p.command)
		}
		if diff = cmp.Diff(want, now); diff == "" {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.t.Errorf("other processes than should be:\n%s", diff)
}

// wantAdvised fails the test where the line that names a container does not end in the force that
// removes it.
func (r result) wantAdvised(t *testing.T, name, force string) {
	t.Helper()
	for line := range strings.Lines(r.said()) {
		if strings.Contains(line, " "+name+" (") {
			if !strings.HasSuffix(strings.TrimSpace(line), " with "+force) {
				t.Errorf("%s is not named with %s, but as %s", name, force, line)
			}
			return
		}
	}
	t.Errorf("%s is not named by %v", name, r)
}

func TestRemoveSharedImage(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		sc := newScene(s, true)
		before := s.look()

		// What every refusal must say.
		holderPID := strconv.Itoa(sc.holder.pid)
		for _, refusal := range []struct {
			args []string
			want []string
		}{
			{[]string{"rmi", image}, append(keys(sc.inUse), keys(sc.idle)...)},
			{[]string{"rmi", "--force=idle", image}, keys(sc.inUse)},
			{[]string{"rmi", "-f", image}, nil},
			{[]string{"rmi", "--force=stop", "--time", "1", image}, nil},
		} {
			r := s.unmoor(refusal.args...).wantCode(t, 2)
			r.wantSaid(t, holderPID)
			r.wantAdvised(t, "u-live", "--force=kill")
			for _, name := range refusal.want {
				force := "--force"
				if _, ok := sc.idle[name]; ok {
					force = "--force=idle"
				}
				r.wantAdvised(t, name, force)
				if p, ok := sc.inUse[name]; ok && !strings.Contains(r.said(), strconv.Itoa(p.pid)) {
					t.Errorf("pid %d of %s is not named by %v", p.pid, name, r)
				}
			}
			s.wantSame(before)
		}
		// Looking changes nothing either.
		s.unmoor("plan", "--force=kill", image).wantCode(t, 0)
		s.unmoor("why", image).wantCode(t, 0).wantSaid(t, "u-live", holderPID, "p-run1", "b-run")
		s.unmoor("ps").wantCode(t, 0)
		s.unmoor("images").wantCode(t, 0)
		s.wantSame(before)
		if err := sc.holder.sees("/etc/name"); err != nil {
			t.Errorf("after the refusals the unknown holder does not see its files: %v", err)
		}
		if t.Failed() {
			t.FailNow()
		}

		r := s.unmoor("rmi", "--force=kill", "--time", "2", image)
		t.Logf("--force=kill took %v", r.took.Round(time.Millisecond))
		sc.wantDone(r)
	})
}

func TestForceStopWithoutUnknownHolder(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		sc := newScene(s, false)
		before := s.look()
		s.unmoor("rmi", "--force=idle", image).wantCode(t, 2)
		s.wantSame(before)
		r := s.unmoor("rmi", "-f", "--time", "2", image)
		t.Logf("-f took %v\n%s", r.took.Round(time.Millisecond), r.said())
		sc.wantDone(r)
		r.wantSaid(t, "Untagged", "Deleted")
	})
}

func TestStopsInParallel(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		const grace = 2 * time.Second
		s.importImage("image", image)
		var all []process
		for i := range 8 {
			name := fmt.Sprintf("stubborn%d", i)
			s.podman("run", "-d", "--name", name, image, "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
			all = append(all, s.process(s.podmanPID(name)))
		}
		ended := make(chan time.Duration)
		began := time.Now()
		go func() {
			for _, p := range all {
				for p.alive() && time.Since(began) < time.Minute {
					time.Sleep(5 * time.Millisecond)
				}
			}
			ended <- time.Since(began)
		}()
		r := s.unmoor("rmi", "-f", "--time", "2", image).wantCode(t, 0)
		stops := <-ended
		t.Logf("measured: 8 containers that ignore SIGTERM, grace period %v: all ended after %v, removed after %v",
			grace, stops.Round(time.Millisecond), r.took.Round(time.Millisecond))
		if stops > 2*grace {
			t.Errorf("the stops took %v, more than twice the grace period of %v", stops, grace)
		}
		if stops < grace {
			t.Errorf("the stops took %v, less than the grace period of %v", stops, grace)
		}
		s.check()
	})
}

func keys[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	return all
}
