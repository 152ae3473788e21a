package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// The most that is read of a podman process: the inspection of one container is about 12 KB.
const (
	maxOutput = 128 << 20
	maxErrors = 16 << 20
)

// A podman process that is to end is asked first, so that it can complete what it writes to its
// database.
const killAfter = 3 * time.Second

// output is what a podman process printed.
type output struct {
	stdout, stderr []byte
}

// exitError is a podman process that ended with a code other than 0.
type exitError struct {
	what   string
	code   int
	stderr []byte
}

func (e *exitError) Error() string {
	return fmt.Sprintf("%s: exit code %d: %s", e.what, e.code, complaint(e.stderr))
}

// run runs a command with the environment's proxies to other hosts taken out, without input, in a
// process group of its own, which ends with ctx.
func run(ctx context.Context, command []string, env []string, what string, args ...string) (output, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	argv := append(append([]string(nil), command...), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(environment(), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout := &bounded{most: maxOutput, over: func() { cancel(errTooLong) }}
	stderr := &bounded{most: maxErrors, over: func() { cancel(errTooLong) }}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	var force *time.Timer
	cmd.Cancel = func() error {
		group := -cmd.Process.Pid
		force = time.AfterFunc(killAfter, func() {
			// An error means that the group is gone.
			_ = syscall.Kill(group, syscall.SIGKILL)
		})
		return syscall.Kill(group, syscall.SIGTERM)
	}
	cmd.WaitDelay = killAfter + time.Second
	err := cmd.Run()
	if force != nil {
		force.Stop()
	}
	printed := output{stdout.buffer.Bytes(), stderr.buffer.Bytes()}
	if cause := context.Cause(ctx); cause != nil {
		return output{}, fmt.Errorf("run %s: %w", what, cause)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return printed, &exitError{what, exit.ExitCode(), printed.stderr}
	}
	if err != nil {
		return output{}, fmt.Errorf("run %s: %w", what, err)
	}
	return printed, nil
}

// environment is ours, but for what would make podman ask another host or take over a socket that
// was passed to us (cmd/podman/registry/remote.go, 5.4.2: CONTAINER_HOST implies --remote).
func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINER_SSHKEY",
			"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "LC_ALL":
			continue
		}
		env = append(env, e)
	}
	return append(env, "LC_ALL=C")
}

// bounded keeps the first bytes of what is written to it, and says once when there are more.
// The buffer is not embedded: its ReadFrom would take everything past Write.
type bounded struct {
	buffer bytes.Buffer
	most   int
	over   func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.most - b.buffer.Len(); len(p) > room {
		b.buffer.Write(p[:room])
		b.over()
		return len(p), nil
	}
	return b.buffer.Write(p)
}

// complaint is what podman's standard error says, without its log lines where there are others.
func complaint(stderr []byte) string {
	var errs, logs []string
	for line := range strings.Lines(string(stderr)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "time="):
			logs = append(logs, line)
		default:
			errs = append(errs, strings.TrimPrefix(line, "Error: "))
		}
	}
	if len(errs) == 0 {
		errs = logs
	}
	return shorten(strings.Join(errs, "; "))
}

func shorten(s string) string {
	const most = 1000
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if s == "" {
		return "it says nothing"
	}
	return s
}
