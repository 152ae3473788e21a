package itest

import (
	"slices"
	"strconv"
	"testing"
)

// TestOwnMountNamespace runs the removal in a mount namespace that was made before the containers
// were started, so that it does not see their mounts: it looks through those of pid 1, or refuses.
// What is idle goes only with its mount on the host: else the store would be deleted below a mount.
func TestOwnMountNamespace(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		apart := s.shell("sleep", `exec unshare --mount --propagation private sleep 1011`)
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		p := s.process(s.podmanPID("p"))
		id := s.unknown("u", image)
		holder := s.pivoted(s.mountUnknown(id), "sleep", "1012")
		left := s.unknown("u-idle", image)
		mounted := s.mountUnknown(left)
		fromApart := func(args ...string) result {
			t.Helper()
			enter := append([]string{"--target", strconv.Itoa(apart.pid), "--mount", "--", unmoorBinary}, s.storeFlags()...)
			return s.do(s.gen.command(s.environment(), "nsenter", append(enter, args...)...))
		}
		before := s.look()
		for _, force := range []string{"--force=idle", "-f"} {
			r := fromApart("rmi", force, "--time", "0", image)
			if !slices.Contains([]int{2, 125}, r.code) {
				t.Errorf("neither blocked nor refused: %v", r)
			}
			t.Log(r)
		}
		s.wantSame(before)
		wantAlive(t, p, holder.process)
		s.podman("exec", "p", "cat", "/etc/name")
		if err := holder.sees("/etc/name"); err != nil {
			t.Errorf("the unknown holder does not see its files: %v", err)
		}
		r := fromApart("rm", "--force=idle", "u-idle")
		t.Log(r)
		switch onHost := slices.Contains(mountsBelow(s.dir), mounted); {
		case r.code == 0 && (onHost || s.hasContainer(left)):
			t.Errorf("said to be removed, and mounted on the host: %t: %v", onHost, r)
		case r.code != 0 && (!slices.Contains([]int{2, 125}, r.code) || !s.hasContainer(left)):
			t.Errorf("neither removed nor kept: %v", r)
		case r.code != 0 && s.driver == "overlay" && !onHost:
			t.Errorf("kept, and yet unmounted: %v", r)
		}
		s.unmoor("rmi", "--force=kill", "--time", "0", image).wantCode(t, 0)
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
		s.check()
	})
}

// TestOtherRunRoot names another run root than the engines', so that every mount count is 0.
func TestOtherRunRoot(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		p := s.process(s.podmanPID("p"))
		holder := s.pivoted(s.mountUnknown(s.unknown("u", image)), "sleep", "1013")
		s.mountUnknown(s.unknown("u-idle", image))
		before := s.look()
		for _, force := range []string{"--force=none", "--force=idle", "-f"} {
			r := s.do(s.gen.command(s.environment(), unmoorBinary, "--root", s.path("root"), "--runroot", s.path("run2"),
				"--storage-driver", s.driver, "rmi", force, "--time", "0", image))
			if !slices.Contains([]int{2, 125}, r.code) {
				t.Errorf("neither blocked nor refused: %v", r)
			}
		}
		s.wantSame(before)
		wantAlive(t, p, holder.process)
		s.podman("exec", "p", "cat", "/etc/name")
		if err := holder.sees("/etc/name"); err != nil {
			t.Errorf("the unknown holder does not see its files: %v", err)
		}
	})
}
