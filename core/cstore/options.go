package cstore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/containers/storage"
	"github.com/containers/storage/types"

	"github.com/unmoor/unmoor/core"
)

// Options say which store to open. The zero value is the store that Podman opens without options:
// storage.conf, CONTAINERS_STORAGE_CONF, STORAGE_DRIVER, STORAGE_OPTS, the rootless user's own.
type Options struct {
	// GraphRoot, RunRoot, Driver and DriverOptions are Podman's --root, --runroot, --storage-driver
	// and --storage-opt. As with Podman (4.3.1 and 5.4.2), GraphRoot or Driver alone drop the
	// driver options of storage.conf and of STORAGE_OPTS, and one empty option drops them too.
	GraphRoot     string
	RunRoot       string
	Driver        string
	DriverOptions []string
	// ImageLabels is whether a snapshot has the images' labels, which costs a look at every image's
	// configuration.
	ImageLabels bool
	// Logger gets what the library logs, at debug level; nil drops it.
	Logger *slog.Logger
	// Broken, where set, is told once that the library has panicked. It may hold locks of the store, which
	// keep everybody waiting until this process ends.
	Broken func(error)
	// Step, where set, is called before each step of a deletion with its name. Tests kill the
	// process there.
	Step func(name string)
}

// resolve turns options into the library's.
func (o Options) resolve() (types.StoreOptions, error) {
	defaults, err := defaultOptions()
	if err != nil {
		return types.StoreOptions{}, err
	}
	resolved := defaults
	if o.GraphRoot != "" {
		resolved.GraphRoot, err = filepath.Abs(o.GraphRoot)
		if err != nil {
			return types.StoreOptions{}, unavailable("find the graph root %s: %v", o.GraphRoot, err)
		}
		resolved.GraphDriverOptions = nil
	}
	if o.RunRoot != "" {
		resolved.RunRoot, err = filepath.Abs(o.RunRoot)
		if err != nil {
			return types.StoreOptions{}, unavailable("find the run root %s: %v", o.RunRoot, err)
		}
	}
	if o.Driver != "" {
		resolved.GraphDriverName = o.Driver
		resolved.GraphDriverOptions = nil
	} else if o.GraphRoot != "" && os.Getenv("STORAGE_DRIVER") == "" {
		resolved.GraphDriverName = driverOf(resolved.GraphRoot, resolved.GraphDriverName)
	}
	if len(o.DriverOptions) > 0 {
		resolved.GraphDriverOptions = slices.DeleteFunc(slices.Clone(o.DriverOptions), func(s string) bool { return s == "" })
	}
	return resolved, nil
}

// defaultOptions are what an engine takes that is given no options.
func defaultOptions() (types.StoreOptions, error) {
	// The library reads the variable once a process and does not name it in its error.
	if path, ok := os.LookupEnv("CONTAINERS_STORAGE_CONF"); ok {
		if _, err := os.Stat(path); err != nil {
			return types.StoreOptions{}, unavailable("read the file that CONTAINERS_STORAGE_CONF names (%v): correct the variable or unset it", err)
		}
	}
	defaults, err := types.DefaultStoreOptions()
	if err != nil {
		path, nameErr := types.DefaultConfigFile()
		if nameErr != nil {
			path = "storage.conf"
		}
		if errors.Is(err, os.ErrPermission) {
			return types.StoreOptions{}, unavailable("no permission to find the store (%w): check XDG_RUNTIME_DIR, HOME and %s", err, path)
		}
		return types.StoreOptions{}, unavailable("find the store by %s and the environment: %w: set HOME for this user's own store, or run as root for the system's", path, err)
	}
	return defaults, nil
}

// driverOf is the driver for a graph root that was named without one. Podman records it in its
// database (libpod, v4.3.1: a recorded driver overrides the configured one); where the root has
// records of one other driver alone and none of the configured one, that must be it.
func driverOf(graphRoot, configured string) string {
	var present []string
	for _, driver := range []string{"overlay", "vfs", "btrfs", "zfs"} {
		for _, file := range []string{"-images/images.json", "-containers/containers.json"} {
			if _, err := os.Stat(filepath.Join(graphRoot, driver+file)); err == nil {
				present = append(present, driver)
				break
			}
		}
	}
	if len(present) == 1 && !slices.Contains(present, configured) {
		return present[0]
	}
	return configured
}

// isDefault is whether lib is what an engine opens without options. Where that cannot be found out
// it is not: then engines are told the roots.
func isDefault(lib storage.Store) bool {
	defaults, err := defaultOptions()
	if err != nil {
		return false
	}
	if defaults.GraphDriverName != "" && defaults.GraphDriverName != lib.GraphDriverName() {
		return false
	}
	return resolved(defaults.GraphRoot) == resolved(lib.GraphRoot()) && resolved(defaults.RunRoot) == resolved(lib.RunRoot())
}

// resolved is path without symbolic links, or path where that cannot be had.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{core.ErrStoreUnavailable}, args...)...)
}
