package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The most that is read of a podman process: the inspection of one container is about 12 KB.
const (
	maxOutput = 128 << 20
	maxErrors = 16 << 20
)

// A podman process that reads and is to end is asked first, so that it can complete what it writes to
// its database all the same.
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

// Advice is what an operator can do about it: podman is there, so there is nothing to start.
func (e *exitError) Advice() string { return `run "podman ps -a" and mend what it says` }

// prepare makes a command with the environment's proxies to other hosts taken out, without input, in
// a process group of its own.
func prepare(ctx context.Context, command []string, env []string, args []string) *exec.Cmd {
	argv := append(append([]string(nil), command...), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(environment(), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run runs a command that only reads. Its process group ends with ctx.
func run(ctx context.Context, command []string, env []string, what string, args ...string) (output, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := prepare(ctx, command, env, args)
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
	return printed.of(what, err)
}

// change runs a command that changes something. It is never broken off: podman takes no care of
// signals in stop and rm (4.3.1, 5.4.2), and one that is killed there leaves half a container. The end
// of ctx ends the waiting alone. What the command prints goes to files in memory, since a pipe would
// kill it at its next word once we are gone.
func change(ctx context.Context, command []string, env []string, what string, args ...string) (output, error) {
	if err := context.Cause(ctx); err != nil {
		return output{}, fmt.Errorf("run %s: %w", what, err)
	}
	stdout, err := memory("stdout")
	if err != nil {
		return output{}, fmt.Errorf("run %s: %w", what, err)
	}
	stderr, err := memory("stderr")
	if err != nil {
		stdout.Close() // nothing is in it
		return output{}, fmt.Errorf("run %s: %w", what, err)
	}
	cmd := prepare(context.WithoutCancel(ctx), command, env, args)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	type result struct {
		printed output
		err     error
	}
	ended := make(chan result, 1) // so that the goroutine ends with the command, whoever waits
	go func() {
		defer stdout.Close() // read already
		defer stderr.Close()
		err := cmd.Run()
		ended <- result{output{contents(stdout, maxOutput), contents(stderr, maxErrors)}, err}
	}()
	select {
	case r := <-ended:
		return r.printed.of(what, r.err)
	case <-ctx.Done():
		return output{}, fmt.Errorf("wait for %s, which goes on: %w", what, context.Cause(ctx))
	}
}

// memory makes a file in memory.
func memory(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate("unmoor-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// contents are the first bytes of a file.
func contents(f *os.File, most int64) []byte {
	// Reading memory does not fail, and what is missing of it counts as not said.
	text, _ := io.ReadAll(io.NewSectionReader(f, 0, most))
	return text
}

// of is what a command printed and how it ended.
func (o output) of(what string, err error) (output, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return o, &exitError{what, exit.ExitCode(), o.stderr}
	}
	if err != nil {
		return output{}, absentOr(fmt.Errorf("run %s: %w", what, err))
	}
	return o, nil
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
