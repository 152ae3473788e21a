package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/unmoor/unmoor/core"
)

// state is the engine's file.
type state struct {
	GraphRoot  string                          `json:"graphRoot"`
	Containers map[core.ContainerID]*container `json:"containers"`
}

// container is a container and the process that it was started with last; with pid 0 it never was. A stop
// changes nothing of it.
type container struct {
	Name string `json:"name"`
	PID  int    `json:"pid"`
	// StartTime is field 22 of /proc/PID/stat: the pid alone may be another process's by now.
	StartTime uint64 `json:"startTime"`
}

// revision differs once the container was started anew.
func (c *container) revision() string { return fmt.Sprintf("%d.%d", c.PID, c.StartTime) }

// runs is whether the process lives. One that has ended and waits for its parent does not.
func (c *container) runs() (bool, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.PID))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at process %d: %w", c.PID, err)
	}
	// Fields 3 and on come after the name, which may have brackets in it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return false, fmt.Errorf("look at process %d: /proc/%d/stat is not understood", c.PID, c.PID)
	}
	return fields[0] != "Z" && fields[0] != "X" && fields[19] == strconv.FormatUint(c.StartTime, 10), nil
}

// read reads the file. Of another store's containers it returns none.
func (s skiff) read(store core.StoreInfo) (*state, error) {
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", core.ErrEngineAbsent, err)
	}
	var all state
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.file, err)
	}
	if filepath.Clean(all.GraphRoot) != filepath.Clean(store.GraphRoot) {
		all.Containers = nil
	}
	return &all, nil
}

// edit changes the file, which is the old one or the new one whenever it is read. The engine takes the same
// lock.
func (s skiff) edit(store core.StoreInfo, change func(*state)) error {
	lock, err := os.OpenFile(s.file+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", s.file, err)
	}
	all, err := s.read(store)
	if err != nil {
		return err
	}
	before := len(all.Containers)
	if change(all); len(all.Containers) == before {
		return nil
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(s.file+".new", s.file)
}
