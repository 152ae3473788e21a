package itest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestRootless: an ordinary user's Podman, whose containers and mounts are in namespaces of its own.
func TestRootless(t *testing.T) { hostOnly(t, []string{"overlay", "vfs"}, rootless) }

// TestRootlessDefault: Podman with its own temporary directory. With another one it forks once more (v4.3.1),
// and is not our parent in its namespaces.
func TestRootlessDefault(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		conf, err := os.ReadFile(s.path("containers.conf"))
		if err != nil {
			t.Fatal(err)
		}
		s.write("containers.conf", strings.Replace(string(conf), "tmp_dir=", "#tmp_dir=", 1))
		rootless(t, s)
	})
}

func rootless(t *testing.T, s *scenario) {
	who, err := user.Lookup("unmoor-itest")
	if err != nil {
		skip(t, "no user unmoor-itest with subordinate IDs: run itest/setup.sh")
	}
	uid, uidErr := strconv.Atoi(who.Uid)
	gid, gidErr := strconv.Atoi(who.Gid)
	if uidErr != nil || gidErr != nil {
		t.Fatalf("user %v", who)
	}
	for _, dir := range []string{"home", "runtime"} {
		if err := os.Mkdir(s.path(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{".", "tmp", "btmp", "home", "runtime"} {
		if err := os.Chown(s.path(dir), uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	// The process that keeps Podman's namespaces outlives every command.
	t.Cleanup(func() {
		if out, err := exec.Command("pkill", "-KILL", "-u", who.Uid).CombinedOutput(); err != nil {
			t.Errorf("end what user %s runs: %v: %s", who.Username, err, out)
		}
	})
	as := func(program string, args ...string) result {
		t.Helper()
		cmd := s.gen.command(s.environment(), program, append(s.storeFlags(), args...)...)
		cmd.Env = append(cmd.Env, "HOME="+s.path("home"), "XDG_RUNTIME_DIR="+s.path("runtime"))
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if last := args[len(args)-1]; last == image && args[0] == "import" {
			archive, err := os.Open(run + "/image.tar")
			if err != nil {
				t.Fatal(err)
			}
			defer archive.Close()
			cmd.Stdin = archive
		}
		return s.do(cmd)
	}
	as("podman", "import", "-q", "-", image).wantCode(t, 0)
	as("podman", "run", "-d", "--name", "web", image, "sleep", "1000").wantCode(t, 0)
	as("podman", "create", "--name", "made", image, "true").wantCode(t, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(as("podman", "inspect", "--type", "container", "--format", "{{.State.Pid}}", "web").wantCode(t, 0).stdout))
	if err != nil {
		t.Fatal(err)
	}
	web := s.process(pid)
	as(unmoorBinary, "rmi", "--force=idle", image).wantCode(t, 2).wantSaid(t, "web", strconv.Itoa(pid))
	as(unmoorBinary, "doctor").wantCode(t, 0).wantSaid(t, "Nothing is wrong")
	wantAlive(t, web)
	if s.driver == "vfs" {
		// Nothing but a look into every process shows a vfs container idle, and those outside of the
		// user namespace cannot be looked into, or have files open on mounts that cannot be seen from it.
		r := as(unmoorBinary, "rmi", "-f", "--time", "1", image).wantCode(t, 2).wantSaid(t, "may be in use", "as root")
		if !strings.Contains(r.said(), "cannot be looked into") && !strings.Contains(r.said(), "a mount that is in no namespace") {
			t.Errorf("it does not say why: %v", r)
		}
		wantAlive(t, web)
		as("podman", "rm", "-f", "-t", "0", "web", "made").wantCode(t, 0)
		return
	}
	// Root's CRI-O, which the user cannot reach, has root's store.
	if err := os.Mkdir(s.path("crio"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", s.path("crio/crio.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s.write("unmoor.toml", fmt.Sprintf("[plugin.crio]\naddress = \"unix://%s\"\n", s.path("crio/crio.sock")))
	as(unmoorBinary, "--config", s.path("unmoor.toml"), "rmi", "-f", "--time", "1", image).wantCode(t, 0)
	wantGone(t, []process{web})
	if left := strings.TrimSpace(as("podman", "ps", "-aq").wantCode(t, 0).stdout); left != "" {
		t.Errorf("podman still lists %s", left)
	}
	if left := strings.TrimSpace(as("podman", "images", "-q").wantCode(t, 0).stdout); left != "" {
		t.Errorf("podman still has image %s", left)
	}
}
