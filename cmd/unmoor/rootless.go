package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core/cstore"
)

// enterUserNamespace takes the process of an ordinary user to where the files of the user's store can
// be deleted and its containers be seen. Rootless Podman keeps its mounts and containers in namespaces
// of a pause process of its own; where that one lives, `podman unshare` starts us again inside.
// Elsewhere the namespace is a new one. As root it does nothing.
func enterUserNamespace(podman []string) error {
	if os.Geteuid() == 0 {
		return nil
	}
	// The library would end the process where there is no record of the user.
	if _, err := user.Current(); err != nil {
		return fmt.Errorf("find out which user this is, for the store of an ordinary user: %w", err)
	}
	if len(podman) > 0 && pauseProcessLives() {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find our own executable: %w", err)
		}
		program, err := exec.LookPath(podman[0])
		if err != nil {
			return fmt.Errorf("rootless containers of Podman run, and cannot be seen without it: %w", err)
		}
		args := append(append(append([]string{}, podman...), "unshare", "--", self), os.Args[1:]...)
		env := append(os.Environ(), fmt.Sprintf("%s=%d", parentVariable, os.Getpid()))
		err = syscall.Exec(program, args, env)
		return fmt.Errorf("enter the namespaces of Podman's containers with %s unshare: %w", strings.Join(podman, " "), err)
	}
	cstore.EnterUserNamespace()
	return nil
}

// refuseSockets says that an ordinary user's service cannot be handed its sockets: they do not come along
// into the user namespace.
func refuseSockets() error {
	if os.Geteuid() == 0 || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil
	}
	return errors.New("an ordinary user's service takes no sockets from the service manager, nor from exec:, since they do not come along " +
		"into its user namespace: leave the socket unit out, and it listens on a socket of its own")
}

// parentVariable has the pid of the podman that we were started by.
const parentVariable = "_UNMOOR_PARENT"

// launcher is the podman that started us in its namespaces, where that is our parent; else 0.
func launcher() int {
	pid, err := strconv.Atoi(os.Getenv(parentVariable))
	if err != nil || pid != os.Getppid() {
		return 0
	}
	return pid
}

// withParent ends a context when the podman ends that we were started by: it passes no signal on.
func withParent(ctx context.Context) (context.Context, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(ctx)
	value, started := os.LookupEnv(parentVariable)
	if !started {
		return ctx, cancel, nil
	}
	parent, err := strconv.Atoi(value)
	if err != nil || parent <= 0 {
		cancel()
		return nil, nil, fmt.Errorf("find the podman that started this: $%s is %q", parentVariable, value)
	}
	fd, err := unix.PidfdOpen(parent, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) || err == nil && os.Getppid() != parent { // it has ended; its pid may be another's
		cancel()
		return ctx, cancel, nil
	}
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("watch the podman that started this: %w", err)
	}
	process := os.NewFile(uintptr(fd), "pidfd")
	raw, err := process.SyscallConn()
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("watch the podman that started this: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		// A pidfd can be read from when its process has ended (pidfd_open(2)). An error is that we close it.
		_ = raw.Read(func(fd uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return err == nil && n > 0
		})
		cancel()
	}()
	return ctx, func() {
		process.Close()
		<-ended
	}, nil
}

// beginPause has rootless Podman make the namespaces that its containers will be in, where it has none yet:
// what lives longer than a command has to be there before them.
func beginPause(ctx context.Context, podman []string) {
	if os.Geteuid() == 0 || len(podman) == 0 || pauseProcessLives() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	args := append(append([]string{}, podman[1:]...), "unshare", "true")
	if out, err := exec.CommandContext(ctx, podman[0], args...).CombinedOutput(); err != nil {
		// Without Podman there are no such containers.
		slog.Info("rootless Podman has no namespaces; its containers could not be seen", "error", err, "output", string(out))
	}
}

// pauseProcessLives is whether rootless Podman has namespaces for this user. What keeps them is
// `catatonit -P`, where that is installed, else a process named "podman pause" (containers/podman
// v4.3.1 and v5.4.2, pkg/rootless/rootless_linux.c). What cannot be read is none: then the kernel's
// view is narrower, and more is kept.
func pauseProcessLives() bool {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return false
	}
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil {
			continue
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); !ok || int(owner.Uid) != os.Geteuid() {
			continue
		}
		// One that has just ended has neither file.
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		argv := strings.Split(string(command), "\x00")
		if strings.TrimSpace(string(comm)) == "podman pause" ||
			len(argv) > 1 && filepath.Base(argv[0]) == "catatonit" && argv[1] == "-P" {
			return true
		}
	}
	return false
}
