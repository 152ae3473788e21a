package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/internal/client"
)

// What names a store or a configuration other than those of a daemon.
var (
	storeFlags     = []string{"root", "runroot", "storage-driver", "storage-opt", "config"}
	storeVariables = []string{"UNMOOR_CONFIG", "CONTAINERS_STORAGE_CONF", "STORAGE_DRIVER", "STORAGE_OPTS"}
)

// socketName is the name of the daemon's socket in its directory.
const socketName = "unmoor/io.unmoor.Removal"

// defaultSocket is where the daemon listens that serves this user's own store, if there is one.
func defaultSocket() string {
	if !cstore.Rootless() {
		return filepath.Join("/run", socketName)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, socketName)
	}
	return ""
}

// daemon is the address of the daemon that is meant, empty where this process does the work. named is
// whether somebody named it; else it need not be there. A flag counts more than the environment.
func (a *app) daemon(given func(flag string) bool) (address string, named bool, err error) {
	ofStore := slices.ContainsFunc(storeFlags, given)
	switch {
	case given("url") && a.global.local:
		return "", false, usagef("--url and --local: give either")
	case given("url") && a.global.url == "":
		return "", false, usagef("--url wants the address of a daemon, such as unix:/run/unmoor/io.unmoor.Removal")
	case given("url") && ofStore:
		return "", false, usagef("--url names a daemon, which has a store and a configuration of its own: leave --%s out",
			storeFlags[slices.IndexFunc(storeFlags, given)])
	case given("url"):
		return a.global.url, true, nil
	case a.global.local, ofStore:
		return "", false, nil
	}
	if url := os.Getenv("UNMOOR_URL"); url != "" {
		return url, true, nil
	}
	socket := a.socket
	if configured := a.config.Service.Socket; configured != "" && !cstore.Rootless() { // else it is the system's, and its store
		socket = configured
	}
	if socket == "" || slices.ContainsFunc(storeVariables, func(v string) bool { return os.Getenv(v) != "" }) {
		return "", false, nil
	}
	return "unix:" + socket, false, nil
}

// connect connects to the daemon that is meant. It returns nil where there is none, and none was named.
func (a *app) connect(ctx context.Context, cmd *cobra.Command) (*client.Client, error) {
	address, named, err := a.daemon(cmd.Flags().Changed)
	if err != nil || address == "" {
		return nil, err
	}
	c, err := client.Dial(ctx, address, a.dialing)
	switch _, silent := errors.AsType[*client.SilentError](err); {
	case err == nil:
		return c, nil
	case !named && errors.Is(err, client.ErrAbsent):
		return nil, nil
	case !named && silent:
		return nil, fmt.Errorf("%w: see what it does (journalctl -u unmoor), or go on without it by --local", err)
	case silent:
		return nil, fmt.Errorf("%w: see what it does", err)
	case errors.Is(err, client.ErrAbsent):
		return nil, fmt.Errorf("%w; `unmoor serve` starts one", err)
	}
	return nil, err
}

// askDaemon configures, and runs a verb that only a daemon can carry out.
func (a *app) askDaemon(cmd *cobra.Command, run func(ctx context.Context, c *client.Client) error) error {
	if err := a.configure(cmd); err != nil {
		return err
	}
	ctx := cmd.Context()
	c, err := a.connect(ctx, cmd)
	if err != nil {
		return err
	}
	if c == nil {
		return fmt.Errorf("%s needs a daemon, and none is there: start one with `unmoor serve`, or name one with --url", cmd.CommandPath())
	}
	defer c.Close() //nolint:errcheck // All was read that was asked for.
	return run(ctx, c)
}
