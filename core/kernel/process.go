package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/unmoor/unmoor/core"
)

// stat is what /proc/PID/stat says.
type stat struct {
	comm      string
	state     byte
	parent    int
	flags     uint64
	startTime uint64
}

// ended is whether a process, or a thread, is dead and was not waited for yet.
func (s stat) ended() bool { return s.state == 'Z' || s.state == 'X' }

// kernelThread is PF_KTHREAD of include/linux/sched.h.
const kernelThread = 0x00200000

// parseStat reads /proc/PID/stat. The command may hold spaces, parentheses and line feeds: it ends
// at the last parenthesis.
func parseStat(b []byte) (stat, error) {
	open, shut := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || shut < open {
		return stat{}, errors.New("process stat: no command")
	}
	s := stat{comm: string(b[open+1 : shut])}
	fields := strings.Fields(string(b[shut+1:]))
	if len(fields) < 20 || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("process stat: %d fields", len(fields))
	}
	s.state = fields[0][0]
	var err error
	if s.parent, err = strconv.Atoi(fields[1]); err != nil {
		return stat{}, fmt.Errorf("process stat: parent: %v", err)
	}
	if s.flags, err = strconv.ParseUint(fields[6], 10, 64); err != nil {
		return stat{}, fmt.Errorf("process stat: flags: %v", err)
	}
	if s.startTime, err = strconv.ParseUint(fields[19], 10, 64); err != nil {
		return stat{}, fmt.Errorf("process stat: start time: %v", err)
	}
	return s, nil
}

// parseUID reads the effective user out of /proc/PID/status.
func parseUID(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		rest, ok := bytes.CutPrefix(line, []byte("Uid:"))
		if !ok {
			continue
		}
		fields := strings.Fields(string(rest))
		if len(fields) < 2 {
			break
		}
		uid, err := strconv.ParseUint(fields[1], 10, 32)
		if err != nil {
			return 0, fmt.Errorf("process status: %v", err)
		}
		return int(uid), nil
	}
	return 0, errors.New("process status: no user")
}

// statusMask reads a mask of bits out of /proc/PID/status.
func statusMask(b []byte, name string) (uint64, bool) {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			mask, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 16, 64)
			return mask, err == nil
		}
	}
	return 0, false
}

// parseCgroup reads /proc/PID/cgroup: the path in the unified hierarchy, or in systemd's own of
// cgroup v1 where the unified one has nothing, and the systemd unit that the path names.
func parseCgroup(b []byte) (cgroup, unit string) {
	var unified, systemd string
	for line := range strings.Lines(string(b)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			unified = fields[2]
		case fields[1] == "name=systemd":
			systemd = fields[2]
		}
	}
	cgroup = unified
	if (cgroup == "" || cgroup == "/") && systemd != "" {
		cgroup = systemd
	}
	for p := cgroup; p != "" && p != "/" && p != "."; p = path.Dir(p) {
		switch base := path.Base(p); path.Ext(base) {
		case ".service", ".scope", ".socket", ".mount", ".swap":
			return cgroup, base
		}
	}
	return cgroup, ""
}

// parseCommand makes one line of /proc/PID/cmdline, or of the comm where that is empty.
func parseCommand(cmdline []byte, comm string) string {
	cmdline = bytes.TrimRight(cmdline, "\x00")
	if len(cmdline) == 0 {
		return "[" + comm + "]"
	}
	const most = 200
	cmdline = cmdline[:min(len(cmdline), most)]
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, string(cmdline)), "")
}

func (i *Inspector) stat(pid int) (stat, error) {
	b, err := i.read(strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// running is the directory below procfs of a process, or of another thread of it where the first one has
// ended: the kernel tells little of the first one then. ok is false where all of it has ended.
func (i *Inspector) running(pid int, first stat) (dir string, ok bool) {
	dir = strconv.Itoa(pid)
	if !first.ended() {
		return dir, true
	}
	tasks, err := i.names(dir + "/task")
	if err != nil {
		return "", false
	}
	for _, task := range tasks {
		if b, err := i.read(dir + "/task/" + task + "/stat"); err == nil {
			if s, err := parseStat(b); err == nil && !s.ended() {
				return dir + "/task/" + task, true
			}
		}
	}
	return "", false
}

// describe tells of a process what can be told. ok is false where it ended meanwhile, or no longer
// does what confirm looks for: its pid may be another process's by now.
func (i *Inspector) describe(pid int, confirm func() bool) (p core.Process, ok bool) {
	before, err := i.stat(pid)
	if err != nil {
		return core.Process{}, false
	}
	dir, ok := i.running(pid, before)
	if !ok || !confirm() {
		return core.Process{}, false
	}
	p = core.Process{PID: pid, StartTime: before.startTime, UID: -1}
	cmdline, _ := i.read(dir + "/cmdline") // shown as the comm
	p.Command = parseCommand(cmdline, before.comm)
	if b, err := i.read(dir + "/status"); err == nil {
		if uid, err := parseUID(b); err == nil {
			p.UID = uid
		}
	}
	if b, err := i.read(dir + "/cgroup"); err == nil {
		p.Cgroup, p.Unit = parseCgroup(b)
	}
	if ns, err := i.readlink(dir + "/ns/mnt"); err == nil {
		p.OnHost = nsInode(ns) == i.host
	}
	after, err := i.stat(pid)
	if err != nil || after.startTime != before.startTime {
		return core.Process{}, false
	}
	return p, true
}

// ours is whether an unreadable process may use our user's store: it is not another user's.
func (i *Inspector) ours(pid int) bool {
	if pid == 1 {
		return false // it was there first, and no init goes and lives in a container
	}
	b, err := i.read(strconv.Itoa(pid) + "/status")
	if err != nil {
		return !os.IsNotExist(err)
	}
	uid, err := parseUID(b)
	if err != nil || !i.rootless {
		return true
	}
	// In our user namespace the users that are not mapped there show as the overflow user.
	const overflow = 65534
	return uid == os.Geteuid() || (os.Geteuid() == 0 && uid != overflow)
}

// Process tells of a process what can be told now. ok is false where there is none of that pid.
func (i *Inspector) Process(pid int) (p core.Process, ok bool) {
	return i.describe(pid, func() bool { return true })
}
