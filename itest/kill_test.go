package itest

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

// small is a scene with a container of each owner, some in use.
func small(s *scenario) (target string, processes []process) {
	t := s.t
	t.Helper()
	target = s.importImage("image", image)
	s.podman("run", "-d", "--name", "p-run", image, "sleep", "1000")
	processes = append(processes, s.process(s.podmanPID("p-run")))
	s.podman("create", "--name", "p-created", image, "true")
	s.buildah("from", "--pull-never", "--name", "b-idle", image)
	s.buildah("from", "--pull-never", "--name", "b-run", image)
	processes = append(processes, s.buildahRun("b-run", "--network", "none"))
	s.mountUnknown(s.unknown("u-mounted", image))
	live := s.shell("sleep", `exec chroot "$1" sleep 1010`, s.mountUnknown(s.unknown("u-live", image)))
	processes = append(processes, live.process)
	return target, processes
}

var killArgs = []string{"rmi", "--force=kill", "--time", "0", image}

// wantCompleted runs the same command again and checks that nothing is left.
func (s *scenario) wantCompleted(target string, processes []process) {
	t := s.t
	t.Helper()
	// What the killed one had begun, its children may still be ending.
	quiet := func() bool {
		for _, p := range processesBelow(s.dir) {
			if !strings.Contains(p.command, "conmon") && (strings.Contains(p.command, " rm ") || strings.Contains(p.command, " stop ") || strings.Contains(p.command, " container cleanup ")) {
				return false
			}
		}
		return true
	}
	eventually(t, "the engine's commands have ended", quiet)
	there := s.hasImage(target)
	r := s.unmoor(killArgs...)
	if r.code != 0 && (there || r.code != 1) {
		t.Errorf("the same command does not complete: %v", r)
	}
	if s.hasImage(target) {
		t.Errorf("the image is still there after %v", r)
	}
	if left := s.containers(); len(left) > 0 {
		t.Errorf("containers are left after %v: %v", r, left)
	}
	wantGone(t, processes)
	s.check()
	for _, line := range s.podmanContainers() {
		t.Errorf("podman still lists %s", line)
	}
	// The store works.
	s.importImage("image", image)
	s.podman("run", "--rm", image, "true")
}

var stepLine = regexp.MustCompile(`(?m)^step ([a-z_]+)$`)

// TestKilledAtEveryStep kills the process at every step of Execute, each in a fresh store; then the
// store opens, its check is clean, and the same command completes.
func TestKilledAtEveryStep(t *testing.T) {
	on(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		withFailpoint := func(s *scenario, value string) result {
			cmd := s.gen.command(append(s.environment(), "UNMOOR_FAILPOINT="+value), failpointBinary, append(s.storeFlags(), killArgs...)...)
			return s.do(cmd)
		}
		small(s)
		r := withFailpoint(s, "list").wantCode(t, 0)
		var steps []string
		count := map[string]int{}
		for _, m := range stepLine.FindAllStringSubmatch(r.stderr, -1) {
			count[m[1]]++
			step := m[1]
			if n := count[m[1]]; n > 1 {
				step = fmt.Sprintf("%s:%d", m[1], n)
			}
			steps = append(steps, step)
		}
		if len(steps) < 8 {
			t.Fatalf("too few steps: %v", r)
		}
		t.Logf("%d steps: %s", len(steps), strings.Join(steps, " "))
		if testing.Short() || s.gen == generations[1] && s.driver == "vfs" {
			// The other three have all of them.
			steps = []string{steps[len(steps)/2]}
		}
		for _, step := range steps {
			t.Run(step, func(t *testing.T) {
				s := newScenario(t, s.gen, s.driver)
				target, processes := small(s)
				r := withFailpoint(s, step)
				if r.code != -1 {
					t.Fatalf("not killed: %v", r)
				}
				s.unmoor("ps").wantCode(t, 0)
				s.wantCompleted(target, processes)
			})
		}
	})
}

// TestKilledBetweenParents: an image whose dangling parents go with it. The same command ends what was
// begun, though the image that it names is gone.
func TestKilledBetweenParents(t *testing.T) {
	hostOnly(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		const child = "localhost/unmoor/child:latest"
		build := func(s *scenario) (base string) {
			base = s.importImage("image", image)
			s.write("Containerfile", "FROM "+image+"\nRUN touch /one\nRUN touch /two\nRUN touch /three\n")
			s.podman("build", "--layers", "--network", "none", "-t", child, "-f", s.path("Containerfile"), s.path("tmp"))
			if n := len(s.images()); n != 4 {
				t.Fatalf("%d images, want the base, two without a name and the child", n)
			}
			return base
		}
		for _, step := range []string{"unmount_image:2", "delete_image:2", "store_announce:2", "store_delete:2", "store_complete:2",
			"unmount_image:3", "delete_image:3", "store_complete:3"} {
			t.Run(step, func(t *testing.T) {
				s := newScenario(t, s.gen, s.driver)
				base := build(s)
				cmd := s.gen.command(append(s.environment(), "UNMOOR_FAILPOINT="+step), failpointBinary, append(s.storeFlags(), "rmi", child)...)
				if r := s.do(cmd); r.code != -1 {
					t.Fatalf("not killed: %v", r)
				}
				r := s.unmoor("rmi", child).wantCode(t, 0)
				for _, i := range s.images() {
					if i.ID != base {
						t.Errorf("image %s is left after %v", i.ID, r)
					}
				}
				s.unmoor("rmi", child).wantCode(t, 1)
				s.check()
			})
		}
	})
}

// TestKilledAtAnyTime kills the process at instants that no step marks, within the library's own
// writes too.
func TestKilledAtAnyTime(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		_, _ = small(s)
		whole := s.unmoor(killArgs...).wantCode(t, 0).took
		rounds := 8
		if testing.Short() {
			rounds = 1
		}
		for i := range rounds {
			after := time.Duration(float64(whole) * (float64(i) + rand.Float64()) / float64(rounds))
			t.Run(fmt.Sprintf("%d", i), func(t *testing.T) {
				s := newScenario(t, s.gen, s.driver)
				target, processes := small(s)
				b := s.start(s.unmoorCommand(killArgs...))
				timer := time.AfterFunc(after, b.kill)
				<-b.done
				timer.Stop()
				t.Logf("killed after %v of %v: %v", after.Round(time.Millisecond), whole.Round(time.Millisecond), b.err)
				s.wantCompleted(target, processes)
			})
		}
	})
}
