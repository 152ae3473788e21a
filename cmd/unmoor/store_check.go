package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/config"
)

// checkStore refuses a graph root that was named and holds no store, and a driver other than the
// store's: to open such a one makes a new store, which is never what a removal is for. What cannot
// be read is left to the opening, which says more.
func checkStore(c config.Store) error {
	if c.Root == "" {
		return nil // where the default store lies is known only once it is open
	}
	entries, err := os.ReadDir(c.Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	drivers := driversIn(entries)
	if len(drivers) == 0 {
		where := c.Root
		if path, err := filepath.Abs(where); err == nil {
			where = path
		}
		return fmt.Errorf("%w: no store at %s; nothing was made: name the directory with --root, as podman info has it under graphRoot",
			core.ErrStoreUnavailable, plain(where))
	}
	driver, source := c.Driver, "the driver"
	if driver == "" {
		driver, source = os.Getenv("STORAGE_DRIVER"), "the driver of $STORAGE_DRIVER"
	}
	if driver == "overlay2" { // another word for it in storage.conf (containers/storage v1.59.1, types/options.go)
		driver = "overlay"
	}
	if driver != "" && !slices.Contains(drivers, driver) {
		return fmt.Errorf("%w: the store at %s is one of %s, and %s is %s; nothing was made: name the store's own with --storage-driver %s",
			core.ErrStoreUnavailable, plain(c.Root), strings.Join(drivers, " and "), source, plain(driver), strings.Join(drivers, " or "))
	}
	return nil
}

// driversIn are the drivers that keep records in a graph root: in DRIVER-images, -layers and
// -containers (containers/storage v1.59.1, store.go).
func driversIn(entries []fs.DirEntry) []string {
	var drivers []string
	for _, e := range entries {
		for _, of := range []string{"-images", "-layers", "-containers"} {
			if driver, ok := strings.CutSuffix(e.Name(), of); ok && driver != "" && !slices.Contains(drivers, driver) {
				drivers = append(drivers, driver)
			}
		}
	}
	return drivers
}
