package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is a container's first process.
type process struct {
	pid   int
	start string
	// ended is closed when it is gone; code is set then.
	ended chan struct{}
	code  int32
}

// runc runs the OCI runtime.
func (d *double) runc(output *os.File, args ...string) error {
	cmd := exec.Command(d.runtime, append([]string{"--root", d.runtimeRoot}, args...)...)
	var errs bytes.Buffer
	// A container inherits what it is given, so that only a file will do for it.
	cmd.Stdout, cmd.Stderr = output, output
	if output == nil {
		cmd.Stderr = &errs
	}
	if err := cmd.Run(); err != nil {
		if output != nil {
			text, _ := os.ReadFile(output.Name()) // for the message only
			errs.Write(text[max(0, len(text)-500):])
		}
		return fmt.Errorf("%s %s: %w: %s", d.runtime, args[0], err, strings.TrimSpace(errs.String()))
	}
	return nil
}

// createProcess has the runtime set the container up, up to the point where its command would start.
func (d *double) createProcess(c *container) error {
	log := c.logPath
	if log == "" {
		log = filepath.Join(c.runDir, "log")
	}
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return err
	}
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	pidFile := filepath.Join(c.runDir, "pidfile")
	if err := d.runc(output, "create", "--bundle", c.runDir, "--pid-file", pidFile, c.id); err != nil {
		return err
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	return d.watch(c, pid, start)
}

// watch waits for the end of a container's first process and records it.
func (d *double) watch(c *container, pid int, start string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("watch pid %d: %w", pid, err)
	}
	p := &process{pid: pid, start: start, ended: make(chan struct{})}
	d.mu.Lock()
	c.process = p
	d.mu.Unlock()
	go func() {
		defer unix.Close(fd)
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		p.code = -1 // of one that is not a child, after a restart
		var w unix.WaitStatus
		if reaped, err := unix.Wait4(pid, &w, 0, nil); err == nil && reaped == pid {
			p.code = int32(w.ExitStatus())
			if w.Signaled() {
				p.code = 128 + int32(w.Signal())
			}
		}
		d.ended(c, p)
		close(p.ended)
	}()
	return nil
}

// ended records the end of a process, and takes back the mount, as CRI-O's exit monitor does.
func (d *double) ended(c *container, p *process) {
	d.mu.Lock()
	c.state.Status, c.state.PID, c.state.Finished, c.state.ExitCode = stopped, 0, time.Now(), &p.code
	d.mu.Unlock()
	if err := d.saveState(c); err != nil {
		return // its storage is gone: what CRI-O would log
	}
	d.unmount(c)
}

func (d *double) unmount(c *container) {
	if _, err := d.store.Unmount(c.id, true); err != nil {
		fmt.Fprintf(os.Stderr, "criodouble: unmount container %s: %v\n", c.id, err)
	}
}

// endProcess stops a process politely, then forcibly. It returns when ctx ends, too.
func (d *double) endProcess(ctx context.Context, c *container, p *process, grace time.Duration) {
	signal := func(name string) {
		if err := d.runc(nil, "kill", c.id, name); err != nil {
			// A process that has ended meanwhile is seen by the watch.
			fmt.Fprintf(os.Stderr, "criodouble: %v\n", err)
		}
	}
	wait := func(most time.Duration) bool {
		select {
		case <-p.ended:
			return true
		case <-time.After(most):
			return false
		}
	}
	done := make(chan struct{})
	// The stop goes on when the caller gives up (internal/oci/runtime_oci.go, StopLoopForContainer).
	go func() {
		defer close(done)
		if grace > 0 {
			signal("TERM")
			if wait(grace) {
				return
			}
		}
		for signal("KILL"); !wait(time.Second); signal("KILL") {
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// startTime is field 22 of /proc/PID/stat.
func startTime(pid int) (string, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", fmt.Errorf("pid %d has ended", pid)
	}
	return fields[19], nil
}
