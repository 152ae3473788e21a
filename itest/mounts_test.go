package itest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestHostDirectoryBelowLayer: today's library deletes through such a mount.
func TestHostDirectoryBelowLayer(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		for i, where := range []string{"etc", "."} {
			data := s.path(fmt.Sprintf("data%d", i))
			if err := os.MkdirAll(filepath.Join(data, "deep"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(data, "deep", "precious"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			id := s.unknown(fmt.Sprintf("u%d", i), image)
			layer := s.layerDirectory(id)
			if s.driver == "overlay" {
				// Mount count 0: below the writable layer itself, not below a mount of it.
				layer = filepath.Join(layer, "diff")
			}
			if err := os.MkdirAll(filepath.Join(layer, where), 0o755); err != nil {
				t.Fatal(err)
			}
			s.bind(s.path(fmt.Sprintf("data%d", i)), filepath.Join(layer, where))
		}
		r := s.unmoor("rmi", "--force=idle", image)
		for i := range 2 {
			if b, err := os.ReadFile(s.path(fmt.Sprintf("data%d/deep/precious", i))); err != nil || string(b) != "data" {
				t.Errorf("the host's data is gone: %v %q; %v", err, b, r)
			}
		}
		if r.code != 0 && r.code != 2 {
			t.Errorf("neither removed nor refused: %v", r)
		}
		if r.code == 0 && s.hasImage(target) {
			t.Errorf("said to be removed, but it is there: %v", r)
		}
		t.Logf("exit %d", r.code)
		// The store opens, and works.
		s.unmoor("ps").wantCode(t, 0)
		s.podman("ps", "-a", "--external")
		s.importImage("bystander", bystander)
		if r.code == 0 {
			s.check()
		}
	})
}

// TestHostDirectoryInUseBelowLayer: the mount below the layer directory cannot be taken away.
func TestHostDirectoryInUseBelowLayer(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		data := s.path("data")
		if err := os.MkdirAll(data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(data, "precious"), []byte("data"), 0o600); err != nil {
			t.Fatal(err)
		}
		id := s.unknown("u", image)
		at := filepath.Join(s.layerDirectory(id), "diff", "mnt")
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		s.bind(s.path("data"), at)
		holder := s.shell("sleep", `cd "$1"; exec sleep 1002`, at)
		// Engines are not asked meanwhile: as they end they unmount the driver's home, lazily, and all
		// that is mounted below it with it.
		r := s.unmoor("rmi", "--force=idle", image).wantCode(t, 2)
		r.wantSaid(t, strconv.Itoa(holder.pid))
		if !s.hasContainer(id) || !holder.alive() {
			t.Errorf("the container or its user is gone after %v", r)
		}
		if b, err := os.ReadFile(filepath.Join(at, "precious")); err != nil || string(b) != "data" {
			t.Errorf("the host's data is gone: %v %q", err, b)
		}
	})
}

// use is one way to use, or not to use, an unknown container.
type use struct {
	name string
	// begin uses the container that is mounted at merged; the pid is 0 where no process is to be
	// named.
	begin func(s *scenario, id, merged string) (pid int)
	// idle is whether it is no use, so that the container may go.
	idle bool
	// reaches is the container's file as the process has it, below /proc/PID; $DIR is the scenario's
	// directory. Empty where no file of a process shows the use.
	reaches string
}

var uses = []use{
	{name: "working-directory", reaches: "cwd/name", begin: func(s *scenario, _, merged string) int {
		return s.shell("sleep", `cd "$1/etc"; exec sleep 1003`, merged).pid
	}},
	{name: "open-file", reaches: "fd/9", begin: func(s *scenario, _, merged string) int {
		return s.shell("sleep", `exec 9<"$1/etc/name" sleep 1004`, merged).pid
	}},
	{name: "mapped-file", begin: func(s *scenario, _, merged string) int { return s.helper("map", merged).pid }},
	{name: "executable", begin: func(s *scenario, _, merged string) int {
		return s.shell("busybox", `exec "$1/bin/busybox" sleep 1005`, merged).pid
	}},
	{name: "root-by-chroot", reaches: "root/etc/name", begin: func(s *scenario, _, merged string) int {
		return s.shell("sleep", `exec chroot "$1" sleep 1006`, merged).pid
	}},
	{name: "root-by-pivot", reaches: "root/etc/name", begin: func(s *scenario, _, merged string) int {
		return s.pivoted(merged, "sleep", "1007").pid
	}},
	{name: "bind-of-one-file", reaches: "root$DIR/onefile", begin: func(s *scenario, _, merged string) int {
		s.write("onefile", "")
		return s.shell("sleep", `exec unshare --mount --propagation private sh -c '
			mount --bind "$1/etc/name" "$2"; umount "$1"; exec sleep 1008' sh "$@"`, merged, s.path("onefile")).pid
	}},
	{name: "namespace-without-process", begin: func(s *scenario, id, merged string) int {
		dir := s.path("ns-" + id[:12])
		if err := s.gen.in("sh", "-ec", `mkdir "$1"; mount --bind "$1" "$1"; mount --make-private "$1"; touch "$1/mnt"
			unshare --mount="$1/mnt" --propagation private sh -ec '
				mount --bind "$1" "$1"; cd "$1"; pivot_root . old; exec /bin/umount -l /old' sh "$2"`, "sh", dir, merged); err != nil {
			s.t.Fatal(err)
		}
		return 0
	}},
	{name: "detached-mount", begin: func(s *scenario, _, merged string) int {
		s.helper("open_tree", merged)
		return 0 // a descriptor of a detached mount need not be told from another by who scans
	}},
	{name: "left-mounted", idle: true, begin: func(*scenario, string, string) int { return 0 }},
	{name: "inherited-copy", idle: true, begin: func(s *scenario, _, merged string) int {
		s.shell("sleep", `exec unshare --mount --propagation private sleep 1009`)
		return 0
	}},
	{name: "never-mounted", idle: true, begin: func(s *scenario, id, _ string) int {
		s.storage("unmount", id)
		return 0
	}},
}

// TestUses: who uses an unknown container is found out and named, the refused removal leaves them
// their files, and what is no use does not block.
func TestUses(t *testing.T) {
	on(t, []string{"overlay", "vfs", "fuse-overlayfs"}, func(t *testing.T, s *scenario) {
		if s.driver == "fuse-overlayfs" {
			s.driver = "overlay"
			s.options = []string{"overlay.mount_program=/usr/bin/fuse-overlayfs"}
			if s.gen.find("fuse-overlayfs") == "" {
				skip(t, "no fuse-overlayfs in this generation")
			}
		}
		target := s.importImage("image", image)
		var kept int
		for _, u := range uses {
			id := s.unknown(u.name, image)
			merged := s.mountUnknown(id)
			pid := u.begin(s, id, merged)
			layer := s.layerDirectory(id)
			why := s.unmoor("why", u.name).wantCode(t, 0)
			r := s.unmoor("rm", "--force=idle", u.name)
			if u.idle {
				if r.code != 0 || s.hasContainer(id) {
					t.Errorf("%s: idle, but kept: %v\n%v", u.name, r, why)
				}
				if _, err := os.Stat(layer); !os.IsNotExist(err) {
					t.Errorf("%s: its layer directory is left: %v", u.name, err)
				}
				continue
			}
			kept++
			if r.code != 2 || !s.hasContainer(id) {
				t.Errorf("%s: in use, but not refused: %v\n%v", u.name, r, why)
				continue
			}
			if pid == 0 {
				continue
			}
			for _, said := range []result{r, why} {
				if !strings.Contains(said.said(), strconv.Itoa(pid)) {
					t.Errorf("%s: pid %d is not named by %v", u.name, pid, said)
				}
			}
			wantAlive(t, s.process(pid))
			if u.reaches != "" {
				if err := s.process(pid).reaches(strings.ReplaceAll(u.reaches, "$DIR", s.dir)); err != nil {
					t.Errorf("%s: after the refusal the process does not see its files: %v", u.name, err)
				}
			}
		}
		// One blocker each, all of them in one refusal.
		r := s.unmoor("rmi", "-f", image).wantCode(t, 2)
		for _, u := range uses {
			if !u.idle {
				r.wantSaid(t, u.name)
			}
		}
		if got := len(s.containers()); got != kept {
			t.Errorf("%d containers in the store, want %d", got, kept)
		}
		if !s.hasImage(target) {
			t.Error("the image is gone")
		}
	})
}

// TestKillIgnoringSIGTERM: the unknown holder does not listen, and goes after the grace period.
func TestKillIgnoringSIGTERM(t *testing.T) {
	hostOnly(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		merged := s.mountUnknown(s.unknown("u", image))
		holder := s.start(s.gen.command(nil, "chroot", merged, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"))
		eventually(t, "the holder ignores SIGTERM", func() bool { return strings.Contains(holder.out.String(), "ready") })
		r := s.unmoor("rmi", "--force=kill", "--time", "1", image).wantCode(t, 0)
		if r.took.Seconds() < 1 {
			t.Errorf("the grace period was not kept: %v", r)
		}
		eventually(t, "the holder is gone", holder.ended)
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
		s.check()
	})
}
