package itest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one live process, told from a later one with the same pid.
type process struct {
	pid       int
	startTime string
	command   string
}

func (p process) String() string { return fmt.Sprintf("%d/%s", p.pid, p.startTime) }

// alive is whether the process is there and no zombie.
func (p process) alive() bool {
	start, state, err := stat(p.pid)
	return err == nil && start == p.startTime && state != "Z" && state != "X"
}

// kill sends SIGKILL, if it is still the same process.
func (p process) kill() error {
	// A descriptor of its directory in /proc names the process and no later one.
	fd, err := unix.Open(of(p.pid, ""), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

// processOf reads who has the pid now.
func processOf(pid int) (process, error) {
	start, _, err := stat(pid)
	if err != nil {
		return process{}, err
	}
	// One without a command line is a kernel thread or ending.
	command, _ := os.ReadFile(of(pid, "cmdline"))
	return process{pid, start, strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))}, nil
}

// of is a file of a process.
func of(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// stat reads start time (field 22) and state (field 3) of /proc/PID/stat.
func stat(pid int) (start, state string, err error) {
	b, err := os.ReadFile(of(pid, "stat"))
	if err != nil {
		return "", "", err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return "", "", fmt.Errorf("short stat of %d", pid)
	}
	return fields[19], fields[0], nil
}

// processesBelow lists the processes that belong to a directory of ours: its path is on their
// command line, or the file system at their root lies below it. Ours are named by a path that holds
// the pid of the run, so that nobody else's can be meant.
func processesBelow(dir string) []process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	own, _ := os.Readlink(of(os.Getpid(), "ns/mnt"))
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if _, state, err := stat(pid); err != nil || state == "Z" {
			continue
		}
		p, err := processOf(pid)
		if err != nil {
			continue
		}
		if containsPath(p.command, dir) || rootBelow(pid, own, dir) {
			found = append(found, p)
		}
	}
	return found
}

// containsPath is whether text names dir or something below it.
func containsPath(text, dir string) bool {
	for i := strings.Index(text, dir); i >= 0; {
		rest := text[i+len(dir):]
		if rest == "" || strings.ContainsAny(rest[:1], "/ ,:\n'\"") {
			return true
		}
		next := strings.Index(rest, dir)
		if next < 0 {
			return false
		}
		i += len(dir) + next
	}
	return false
}

func rootBelow(pid int, own, dir string) bool {
	if root, err := os.Readlink(of(pid, "root")); err == nil && containsPath(root, dir) {
		return true
	}
	if ns, err := os.Readlink(of(pid, "ns/mnt")); err != nil || ns == own {
		return false
	}
	info, err := os.ReadFile(of(pid, "mountinfo"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 5 && f[4] == "/" && containsPath(line, dir) {
			return true
		}
	}
	return false
}

// mountsBelow lists the mount points at or below dir, the last mounted first.
func mountsBelow(dir string) []string {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var found []string
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line)
		if len(f) > 5 && (f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			found = append([]string{f[4]}, found...)
		}
	}
	return found
}

// sweep ends the processes and mounts that belong to dir, deletes it, and says what it could not.
func sweep(dir string) []string {
	groups := map[string]bool{}
	for range 100 {
		left := processesBelow(dir)
		if len(left) == 0 {
			break
		}
		for _, p := range left {
			for _, group := range containerGroups(p.pid) {
				groups[group] = true
				// A process that was paused sees its SIGKILL once it is thawed.
				_ = os.WriteFile(filepath.Join(group, "freezer.state"), []byte("THAWED"), 0)
			}
			// One that is gone by now needs no signal; one that stays is reported below.
			_ = p.kill()
		}
		time.Sleep(20 * time.Millisecond)
	}
	for group := range groups {
		// Empty, and nobody's any more; one that has gone by itself is as good.
		_ = os.Remove(group)
	}
	var left []string
	for _, p := range processesBelow(dir) {
		left = append(left, fmt.Sprintf("process %d: %s", p.pid, p.command))
	}
	for _, m := range mountsBelow(dir) {
		// What is busy with none of our processes left has a mount below it in another namespace.
		if unix.Unmount(m, unix.UMOUNT_NOFOLLOW) != nil {
			if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				left = append(left, fmt.Sprintf("mount %s: %v", m, err))
			}
		}
	}
	for _, m := range mountsBelow(dir) {
		left = append(left, "mount "+m)
	}
	if len(left) > 0 {
		return left
	}
	// A mount that nobody told us of is not deleted through.
	if out, err := exec.Command("rm", "-rf", "--one-file-system", dir).CombinedOutput(); err != nil {
		return []string{fmt.Sprintf("directory: %v: %s", err, out)}
	}
	return nil
}

// containerGroups lists the directories of the control groups that a container's process is in.
func containerGroups(pid int) []string {
	text, err := os.ReadFile(of(pid, "cgroup"))
	if err != nil {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 || !strings.Contains(f[2], "/libpod-") && !strings.Contains(f[2], "/buildah-buildah") {
			continue
		}
		controller := strings.TrimPrefix(f[1], "name=")
		if f[0] == "0" {
			controller = "unified"
		}
		for _, dir := range []string{filepath.Join("/sys/fs/cgroup", controller), "/sys/fs/cgroup"} {
			if _, err := os.Stat(filepath.Join(dir, f[2])); err == nil {
				dirs = append(dirs, filepath.Join(dir, f[2]))
				break
			}
		}
	}
	return dirs
}

// sweepStale removes what runs left behind whose process is gone.
func sweepStale() error {
	dirs, err := filepath.Glob(filepath.Join(base, "r[0-9]*"))
	if err != nil {
		return err
	}
	sort.Strings(dirs)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), "r"))
		if err != nil {
			continue
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && pid != os.Getpid() && strings.Contains(exe, ".test") {
			continue
		}
		if left := sweep(dir); len(left) > 0 {
			return fmt.Errorf("clean up after an earlier run:\n  %s", strings.Join(left, "\n  "))
		}
	}
	return nil
}
