package crio

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/unmoor/unmoor/core"
)

// processes reads the proc file system.
type processes struct{ root string }

// find is the process with that pid and start time, or nil where it is gone.
func (p processes) find(pid int, start uint64) *core.Process {
	if pid <= 0 || start == 0 {
		return nil
	}
	dir := filepath.Join(p.root, strconv.Itoa(pid))
	text, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return nil
	}
	s, err := parseStat(text)
	if err != nil || s.ended || s.start != start {
		return nil
	}
	found := &core.Process{PID: pid, StartTime: start, Command: "[" + s.comm + "]"}
	// What cannot be read any more stays as it is: it is for people.
	if line, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(line) > 0 {
		found.Command = commandLine(line)
	}
	if info, err := os.Stat(dir); err == nil {
		found.UID = ownerOf(info)
	}
	its, err := os.Readlink(filepath.Join(dir, "ns/mnt"))
	if err == nil {
		host, err := os.Readlink(filepath.Join(p.root, "1/ns/mnt"))
		found.OnHost = err == nil && its == host
	}
	return found
}

type stat struct {
	comm  string
	ended bool
	start uint64
}

// parseStat reads /proc/PID/stat. The command in parentheses may contain anything, parentheses too.
func parseStat(text []byte) (stat, error) {
	open, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("read a process's stat: no command in %.80q", text)
	}
	// The first field after the command is number 3; the start time is number 22.
	fields := bytes.Fields(text[end+1:])
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("read a process's stat: %d fields", len(fields)+2)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("read a process's stat: start time: %w", err)
	}
	state := string(fields[0])
	return stat{comm: string(text[open+1 : end]), ended: state == "Z" || state == "X", start: start}, nil
}

func commandLine(text []byte) string {
	const most = 200
	line := strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")
	line = strings.ToValidUTF8(line, "?")
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "")
	}
	return line
}

// ownerOf is the user of a process, who owns its directory in the proc file system.
func ownerOf(info os.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return 0
}
