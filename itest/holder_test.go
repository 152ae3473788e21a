package itest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// helperVariable makes the test binary a process that uses a container: its value is how, its
// first argument the directory where the container is mounted.
const helperVariable = "UNMOOR_ITEST_HELPER"

// hold uses the container at os.Args[1] in one way, says "ready" and stays until it is killed.
func hold(how string) {
	dir := os.Args[1]
	var err error
	switch how {
	case "map":
		// Mapped, and the descriptor closed.
		var f *os.File
		if f, err = os.Open(filepath.Join(dir, "etc/name")); err == nil {
			_, err = unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ, unix.MAP_SHARED)
			err = errors.Join(err, f.Close())
		}
	case "open_tree":
		// A copy of the mount that is nowhere attached.
		_, err = unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	default:
		err = fmt.Errorf("no helper %q", how)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ready")
	for {
		if err := unix.Pause(); err != nil && !errors.Is(err, syscall.EINTR) {
			os.Exit(1)
		}
	}
}

// helper starts the test binary as a user of the container that is mounted at dir.
func (s *scenario) helper(how, dir string) *background {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	b := s.start(s.gen.command([]string{helperVariable + "=" + how}, self, dir))
	eventually(s.t, "the helper "+how+" is ready", func() bool {
		if b.ended() {
			s.t.Fatalf("helper %s: %s", how, b.out.String())
		}
		return strings.Contains(b.out.String(), "ready")
	})
	return b
}

// shell runs a script that ends with exec of a command, beside the test, and waits until the process
// is that command.
func (s *scenario) shell(comm, script string, args ...string) *background {
	s.t.Helper()
	b := s.start(s.gen.command(nil, "sh", append([]string{"-ec", script, "sh"}, args...)...))
	s.becomes(b, comm)
	return b
}

// becomes waits until a process has the name of a command.
func (s *scenario) becomes(b *background, comm string) {
	s.t.Helper()
	eventually(s.t, "a process has become "+comm, func() bool {
		if b.ended() {
			s.t.Fatalf("%s: %v: %s", b.cmd, b.err, b.out.String())
		}
		is, err := os.ReadFile(of(b.pid, "comm"))
		return err == nil && strings.TrimSpace(string(is)) == comm
	})
}

// pivoted starts a process in a mount namespace of its own whose root is the container, by
// pivot_root, so that nothing of it is to be seen in any path of ours.
func (s *scenario) pivoted(merged string, command ...string) *background {
	s.t.Helper()
	b := s.shell(filepath.Base(command[0]), `exec unshare --mount --propagation private sh -c '
		mount --bind "$1" "$1" && cd "$1" && pivot_root . old && shift &&
		exec /bin/sh -c "umount -l /old; exec \"\$@\"" sh "$@"' sh "$@"`, append([]string{merged}, command...)...)
	info, err := os.ReadFile(of(b.pid, "mountinfo"))
	if err != nil || strings.Contains(string(info), " /old ") {
		s.t.Fatalf("pivot_root left the old root there: %v", err)
	}
	return b
}

// sees says whether a process still sees the container's files at its root.
func (p process) sees(path string) error { return p.reaches("root" + path) }

// reaches says whether there is something in a file as a process has it: cwd/…, fd/N or root/….
func (p process) reaches(path string) error {
	b, err := os.ReadFile(of(p.pid, path))
	if err == nil && len(b) == 0 {
		return fmt.Errorf("%s is empty", path)
	}
	return err
}

// bind mounts source over target; sweep takes it away where the test does not.
func (s *scenario) bind(source, target string) {
	s.t.Helper()
	if err := s.gen.in("mount", "--bind", source, target); err != nil {
		s.t.Fatal(err)
	}
}
