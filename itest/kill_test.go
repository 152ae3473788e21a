package itest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
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

// wantCompleted runs the same command again and checks that nothing is left. It returns what that said.
func (s *scenario) wantCompleted(target string, processes []process) result {
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
	return r
}

// dieAt runs a command that is to be killed at a step.
func (s *scenario) dieAt(step string, args ...string) result {
	return s.do(s.gen.command(append(s.environment(), "UNMOOR_FAILPOINT="+step), failpointBinary, append(s.storeFlags(), args...)...))
}

// steps are all that a removal of the small scene takes.
var steps = []string{
	"begin", "stop", "kill", "look", "remove", "recheck", "unmount", "delete_container", "store_delete_container",
	"store_announce", "look_image", "unmount_image", "delete_image", "store_delete", "store_complete", "end",
}

var stepLine = regexp.MustCompile(`(?m)^step ([a-z_]+)$`)

// TestKilledAtEveryStep kills the process at every step of Execute, each in a fresh store; then the
// store opens, its check is clean, and the same command completes.
func TestKilledAtEveryStep(t *testing.T) {
	on(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		small(s)
		r := s.dieAt("list", killArgs...).wantCode(t, 0)
		var reached []string
		count := map[string]int{}
		for _, m := range stepLine.FindAllStringSubmatch(r.stderr, -1) {
			count[m[1]]++
			step := m[1]
			if n := count[m[1]]; n > 1 {
				step = fmt.Sprintf("%s:%d", m[1], n)
			}
			reached = append(reached, step)
		}
		if got, want := slices.Sorted(maps.Keys(count)), slices.Sorted(slices.Values(steps)); !slices.Equal(got, want) {
			t.Fatalf("steps\n got %v\nwant %v", got, want)
		}
		t.Logf("%d steps: %s", len(reached), strings.Join(reached, " "))
		if testing.Short() || s.gen == generations[1] && s.driver == "vfs" {
			// The other three have all of them.
			reached = []string{reached[len(reached)/2]}
		}
		for _, step := range reached {
			t.Run(step, func(t *testing.T) {
				s := newScenario(t, s.gen, s.driver)
				target, processes := small(s)
				r := s.dieAt(step, killArgs...)
				if r.code == 0 && (strings.HasPrefix(step, "look:") || strings.HasPrefix(step, "kill:")) {
					t.Skip("what was left needed no second look this time")
				}
				if r.code != -1 {
					t.Fatalf("not killed: %v", r)
				}
				s.unmoor("ps").wantCode(t, 0)
				want := 0
				if step == "end" {
					want = 1 // there was nothing left to do
				}
				s.wantCompleted(target, processes).wantCode(t, want)
			})
		}
	})
}

// TestKilledBeforeUntag: one name of several.
func TestKilledBeforeUntag(t *testing.T) {
	hostOnly(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		const more = "localhost/unmoor/more:latest"
		target := s.importImage("image", image)
		s.podman("tag", image, more)
		if r := s.dieAt("untag", "rmi", more); r.code != -1 {
			t.Fatalf("not killed: %v", r)
		}
		s.unmoor("rmi", more).wantCode(t, 0)
		if !s.hasImage(target) {
			t.Error("the image is gone, and it has another name")
		}
		s.unmoor("rmi", more).wantCode(t, 1)
		s.check()
	})
}

// TestKilledBetweenParents: an image whose dangling parents go with it. The same command ends what was
// begun, though the image that it names is gone, and also where it is killed in turn.
func TestKilledBetweenParents(t *testing.T) {
	hostOnly(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		const child = "localhost/unmoor/child:latest"
		for _, scene := range [][]string{
			{"store_announce"}, {"look_image"}, {"store_delete"}, {"store_complete"},
			{"look_image:2"}, {"unmount_image:2"}, {"delete_image:2"}, {"store_delete:2"}, {"store_complete:2"},
			{"look_image:3"}, {"unmount_image:3"}, {"delete_image:3"}, {"store_delete:3"}, {"store_complete:3"},
			// The completing one dies too, with the first image gone; and the one after that.
			{"store_complete", "begin"}, {"store_complete", "store_announce"}, {"store_complete", "store_delete"},
			{"store_complete", "store_complete"}, {"store_complete", "end"}, {"look_image:2", "look_image:2"},
			{"store_complete:2", "store_complete"}, {"store_complete", "store_complete", "store_complete"},
		} {
			t.Run(strings.Join(scene, " then "), func(t *testing.T) {
				s := newScenario(t, s.gen, s.driver)
				base := s.importImage("image", image)
				s.write("Containerfile", "FROM "+image+"\nRUN touch /one\nRUN touch /two\nRUN touch /three\n")
				s.podman("build", "--layers", "--network", "none", "-t", child, "-f", s.path("Containerfile"), s.path("tmp"))
				if n := len(s.images()); n != 4 {
					t.Fatalf("%d images, want the base, two without a name and the child", n)
				}
				for _, step := range scene {
					if r := s.dieAt(step, "rmi", child); r.code != -1 {
						t.Fatalf("not killed at %s: %v", step, r)
					}
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
