package itest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// documented are the exit codes of rmi.
var documented = []int{0, 1, 2, 125}

func TestTwoAtOnce(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		var all []process
		for i := range 2 {
			name := fmt.Sprintf("run%d", i)
			s.podman("run", "-d", "--name", name, image, "sleep", "1000")
			all = append(all, s.process(s.podmanPID(name)))
			s.podman("create", image, "true")
			s.buildah("from", "--pull-never", image)
			s.mountUnknown(s.unknown(fmt.Sprintf("u%d", i), image))
		}
		results := make([]result, 2)
		var both sync.WaitGroup
		for i := range results {
			both.Go(func() { results[i] = s.unmoor("rmi", "-f", "--time", "1", image) })
		}
		both.Wait()
		for _, r := range results {
			if !slices.Contains(documented, r.code) {
				t.Errorf("exit code %d is not a documented one: %v", r.code, r)
			}
		}
		// What the one did not finish the other may have found gone; together they are done, or the
		// same command completes.
		if s.hasImage(target) {
			t.Logf("neither finished:\n%v\n%v", results[0], results[1])
			s.unmoor("rmi", "-f", "--time", "1", image).wantCode(t, 0)
		}
		if results[0].code != 0 && results[1].code != 0 {
			t.Errorf("neither succeeded:\n%v\n%v", results[0], results[1])
		}
		wantGone(t, all)
		if left := s.containers(); len(left) > 0 {
			t.Errorf("containers are left: %v", left)
		}
		s.check()
		if lines := s.podmanContainers(); len(lines) > 0 {
			t.Errorf("podman still lists %v", lines)
		}
	})
}

// TestWhilePodmanWorks removes an image without the force to stop anything, while Podman creates,
// starts and removes containers of it. A container that was running when the removal began is never
// lost. With the force that stops them the image goes, now and then.
func TestWhilePodmanWorks(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		stop := make(chan struct{})
		var podman sync.WaitGroup
		for worker := range 2 {
			podman.Go(func() {
				for i := 0; ; i++ {
					// A rest, since where a container is always just being made the image is always kept.
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(700+300*worker) * time.Millisecond):
					}
					name := fmt.Sprintf("w%d-%d", worker, i)
					// The image may just be gone: that is an outcome, too.
					created := s.tryPodman("create", "--pull=never", "--name", name, image, "sleep", "1000")
					if created.code != 0 {
						continue
					}
					if s.tryPodman("start", name).code == 0 {
						s.tryPodman("rm", "-f", "-t", "0", name)
					}
				}
			})
		}
		codes, removed := map[int]int{}, 0
		// Longer where nothing was removed yet: on a loaded machine one round takes seconds.
		for began, i := time.Now(), 0; time.Since(began) < 6*time.Second || removed == 0 && time.Since(began) < time.Minute; i++ {
			kept := fmt.Sprintf("kept%d", i)
			if s.tryPodman("run", "-d", "--pull=never", "--name", kept, image, "sleep", "1000").code != 0 {
				s.importImage("image", image)
				continue
			}
			p := s.process(s.podmanPID(kept))
			r := s.unmoor("rmi", "--force=idle", image)
			codes[r.code]++
			// A container in use was there from the beginning: nothing may have changed.
			if r.code != 2 {
				t.Errorf("with a running container: %v", r)
			}
			wantAlive(t, p)
			s.podman("exec", kept, "cat", "/etc/name")
			s.podman("rm", "-f", "-t", "0", kept)

			r = s.unmoor("rmi", "--force=stop", "--time", "0", image)
			codes[r.code]++
			if r.code == 0 {
				removed++
			}
			if !slices.Contains(documented, r.code) {
				t.Errorf("exit code %d is not a documented one: %v", r.code, r)
			}
		}
		close(stop)
		podman.Wait()
		t.Logf("exit codes: %v", codes)
		if removed == 0 {
			t.Errorf("the image was never removed; exit codes %v", codes)
		}
		s.tryPodman("rm", "-f", "-a", "-t", "0")
		r := s.unmoor("rmi", "-f", "--ignore", "--time", "0", image).wantCode(t, 0)
		if strings.Contains(r.said(), "panic") {
			t.Error(r)
		}
		for _, line := range s.podmanContainers() {
			t.Errorf("podman still lists %s", line)
		}
		s.check()
	})
}
