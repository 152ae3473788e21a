package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

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
		err = syscall.Exec(program, args, os.Environ())
		return fmt.Errorf("enter the namespaces of Podman's containers with %s unshare: %w", strings.Join(podman, " "), err)
	}
	cstore.EnterUserNamespace()
	return nil
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
