package buildah

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// ticks is USER_HZ, in which /proc/PID/stat counts; it is 100 on every architecture of Linux that
// Go runs on.
const ticks = 100

// process is one process as it was seen.
type process struct {
	pid, parent int
	// start is in ticks after boot.
	start uint64
	// state is the letter of proc_pid_stat(5).
	state byte
	comm  string
	argv  []string
}

func (p process) dead() bool { return p.state == 'Z' || p.state == 'X' || p.state == 0 }

// stuck is whether the process makes no headway, so that what takes it a moment may take for ever.
func (p process) stuck() bool { return p.state == 'T' || p.state == 't' || p.state == 'D' }

func proc(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// pids lists the processes.
func pids() ([]int, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer d.Close() // only read
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	all := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			all = append(all, pid)
		}
	}
	return all, nil
}

// gone is whether an error of reading below /proc/PID means that the process has ended.
func gone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) }

// readStat reads /proc/PID/stat into a process without arguments.
func readStat(pid int) (process, error) {
	b, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return process{}, err
	}
	p, ok := parseStat(b)
	if !ok || p.pid != pid {
		return process{}, fmt.Errorf("%s is not understood", proc(pid, "stat"))
	}
	return p, nil
}

// parseStat reads one line of proc_pid_stat(5). The name may have spaces and brackets in it.
func parseStat(b []byte) (process, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return process{}, false
	}
	p := process{comm: string(b[open+1 : end])}
	var err1, err2, err3 error
	p.pid, err1 = strconv.Atoi(strings.TrimSpace(string(b[:open])))
	field := 0
	for word := range strings.FieldsSeq(string(b[end+1:])) {
		switch field++; field {
		case 1:
			if len(word) != 1 {
				return process{}, false
			}
			p.state = word[0]
		case 2:
			p.parent, err2 = strconv.Atoi(word)
		case 20:
			p.start, err3 = strconv.ParseUint(word, 10, 64)
			return p, err1 == nil && err2 == nil && err3 == nil
		}
	}
	return process{}, false
}

// readArgs reads the arguments of a process; nil for one that has none or hides them.
func readArgs(pid int) ([]string, error) {
	f, err := os.Open(proc(pid, "cmdline"))
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, 4<<20))
	if err != nil {
		return nil, err
	}
	return parseArgs(b), nil
}

func parseArgs(b []byte) []string {
	b = bytes.TrimSuffix(b, []byte{0})
	if len(b) == 0 {
		return nil
	}
	return strings.Split(string(b), "\x00")
}

// command is how people are shown a process.
func (p process) command() string {
	s := strings.ToValidUTF8(strings.Join(p.argv, " "), "?")
	if s == "" {
		return "[" + strings.ToValidUTF8(p.comm, "?") + "]"
	}
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "")
	}
	return s
}

// describe makes a process of the model, with what can still be read of it. hostNS is the mount
// namespace of pid 1.
func (p process) describe(hostNS string) core.Process {
	d := core.Process{PID: p.pid, StartTime: p.start, Command: p.command()}
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(p.pid), &st) == nil {
		d.UID = int(st.Uid)
	}
	ns, err := os.Readlink(proc(p.pid, "ns/mnt"))
	d.OnHost = err == nil && ns == hostNS
	if b, err := os.ReadFile(proc(p.pid, "cgroup")); err == nil {
		d.Cgroup = parseCgroup(string(b))
		for part := range strings.SplitSeq(d.Cgroup, "/") {
			if ext := filepath.Ext(part); ext == ".service" || ext == ".scope" {
				d.Unit = part
			}
		}
	}
	return d
}

// parseCgroup finds the path in the unified hierarchy, else in systemd's of cgroup v1.
func parseCgroup(text string) string {
	named := ""
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "" && fields[2] != "/":
			return fields[2]
		case fields[1] == "name=systemd":
			named = fields[2]
		}
	}
	return named
}

// hostNamespace names the mount namespace of pid 1, or ours where that may not be read.
func hostNamespace() string {
	for _, pid := range []string{"1", "self"} {
		if ns, err := os.Readlink("/proc/" + pid + "/ns/mnt"); err == nil {
			return ns
		}
	}
	return ""
}

// bootTime is when the machine started, by the wall clock as it is now.
func bootTime() (time.Time, error) {
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return time.Time{}, fmt.Errorf("read the time since boot: %w", err)
	}
	return time.Now().Add(-time.Duration(up.Nano())), nil
}

func (p process) started(boot time.Time) time.Time {
	return boot.Add(time.Duration(p.start) * (time.Second / ticks))
}

// errRecycled: the pid now names another process.
var errRecycled = errors.New("process has ended")

// pidfd opens a process, sure that it is the one that was seen. errRecycled where it has ended.
func (p process) pidfd() (int, error) {
	fd, err := unix.PidfdOpen(p.pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, errRecycled
	}
	if err != nil {
		return -1, fmt.Errorf("open pid %d: %w", p.pid, err)
	}
	now, err := readStat(p.pid)
	if err == nil && now.start == p.start && !now.dead() {
		return fd, nil
	}
	unix.Close(fd) // never written
	if err != nil && !gone(err) {
		return -1, fmt.Errorf("look at pid %d: %w", p.pid, err)
	}
	return -1, errRecycled
}

// signal sends one signal to the process that was seen; nil where it has ended.
func (p process) signal(sig unix.Signal) error {
	fd, err := p.pidfd()
	if errors.Is(err, errRecycled) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd) // never written
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("send %s to pid %d: %w", unix.SignalName(sig), p.pid, err)
	}
	return nil
}

// awaitEnd waits until one of the processes has ended, at most for d.
func awaitEnd(ctx context.Context, processes []process, d time.Duration) error {
	const step = 200 * time.Millisecond // how soon the end of ctx is seen
	var fds []unix.PollFd
	defer func() {
		for _, fd := range fds {
			unix.Close(int(fd.Fd)) // never written
		}
	}()
	for _, p := range processes {
		if len(fds) == 64 {
			break
		}
		fd, err := p.pidfd()
		if err != nil {
			return ctx.Err() // ended, or to be looked at again
		}
		fds = append(fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	end := time.Now().Add(d)
	for ctx.Err() == nil {
		left := min(time.Until(end), step)
		if left <= 0 {
			return nil
		}
		n, err := unix.Poll(fds, max(1, int(left.Milliseconds())))
		if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return nil
		}
	}
	return ctx.Err()
}
