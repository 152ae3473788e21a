package podman

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
)

// processes reads the proc file system.
type processes struct{ root string }

// clockTicks a second in /proc: 100 on every Linux (USER_HZ).
const clockTicks = 100

// slack is how far the clock may have been set since a container was started.
const slack = 5 * time.Second

// find is the process that Podman calls a container's, or nil where that pid is gone, or was given
// to a process that began after the container did.
func (p processes) find(pid int, started time.Time) *core.Process {
	if pid <= 0 {
		return nil
	}
	dir := filepath.Join(p.root, strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return nil
	}
	s, err := parseStat(stat)
	if err != nil || s.zombie {
		return nil
	}
	if boot, ok := p.boot(); ok && !started.IsZero() {
		began := boot.Add(time.Duration(s.startTime) * (time.Second / clockTicks))
		if began.After(started.Add(slack)) {
			return nil
		}
	}
	process := &core.Process{PID: pid, StartTime: s.startTime, Command: "[" + s.comm + "]"}
	// What cannot be read any more stays empty: it is for people.
	if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(line) > 0 {
		process.Command = commandLine(line)
	}
	if status, err := os.ReadFile(filepath.Join(dir, "status")); err == nil {
		process.UID = parseUID(status)
	}
	process.OnHost = p.onHost(dir)
	return process
}

// onHost is whether a process is in the mount namespace of pid 1; false where that cannot be told.
func (p processes) onHost(dir string) bool {
	its, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
	if err != nil {
		return false
	}
	host, err := os.Readlink(filepath.Join(p.root, "1/ns/mnt"))
	return err == nil && its == host
}

// boot is when the machine was started, in whole seconds.
func (p processes) boot() (time.Time, bool) {
	text, err := os.ReadFile(filepath.Join(p.root, "stat"))
	if err != nil {
		return time.Time{}, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			seconds, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Unix(seconds, 0), err == nil
		}
	}
	return time.Time{}, false
}

type stat struct {
	comm      string
	zombie    bool
	startTime uint64
}

// parseStat reads /proc/PID/stat. The comm in parentheses may contain anything, parentheses too.
func parseStat(text []byte) (stat, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("read a process's stat: no command in %.80q", text)
	}
	// The first field after the command is number 3; the start time is number 22.
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("read a process's stat: %d fields", len(fields)+2)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("read a process's stat: start time: %w", err)
	}
	state := fields[0]
	return stat{comm: string(text[open+1 : end]), zombie: state == "Z" || state == "X", startTime: start}, nil
}

func commandLine(text []byte) string {
	const most = 200
	line := strings.Join(strings.Split(strings.TrimRight(string(text), "\x00"), "\x00"), " ")
	line = strings.ToValidUTF8(line, "?")
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "")
	}
	return line
}

func parseUID(status []byte) int {
	for line := range strings.Lines(string(status)) {
		rest, ok := strings.CutPrefix(line, "Uid:")
		if fields := strings.Fields(rest); ok && len(fields) > 0 {
			// A kernel that writes no number there would be a new one to us: 0 then.
			uid, _ := strconv.Atoi(fields[0])
			return uid
		}
	}
	return 0
}
