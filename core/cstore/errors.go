package cstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// known are the library's answers that are no trouble with the store itself.
var known = []struct{ library, ours error }{
	{storage.ErrContainerUnknown, core.ErrContainerUnknown},
	{storage.ErrNotAContainer, core.ErrContainerUnknown},
	{storage.ErrImageUnknown, core.ErrImageUnknown},
	{storage.ErrNotAnImage, core.ErrImageUnknown},
	{storage.ErrImageUsedByContainer, core.ErrImageInUse},
	{storage.ErrStoreIsReadOnly, core.ErrReadOnly},
}

// foreseen is whether a call that failed with err, one of ours, left the library's memory right.
func foreseen(err error) bool {
	for _, k := range known {
		if errors.Is(err, k.ours) {
			return true
		}
	}
	return errors.Is(err, core.ErrStillInUse)
}

// wrap makes an error of the library one of ours, with what to do about it. It keeps err in the
// chain.
func (s *Store) wrap(what string, err error) error {
	if errors.Is(err, core.ErrStoreUnavailable) {
		return err
	}
	for _, k := range known {
		if errors.Is(err, k.library) {
			return fmt.Errorf("%s: %w (%v)", what, k.ours, err)
		}
	}
	root := s.options.GraphRoot
	switch {
	case errors.Is(err, core.ErrStillInUse):
		return fmt.Errorf("%s: %w", what, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s: %w: no space is left for its records (%w): free some space on the file systems of %s and %s and try again; nothing is lost",
			what, core.ErrStoreUnavailable, err, root, s.options.RunRoot)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: %w: no permission (%w): run as the user whose store %s is, as root for the system's", what, core.ErrStoreUnavailable, err, root)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: %w: its file system is mounted read-only (%w): mount that of %s and %s writable and try again",
			what, core.ErrStoreUnavailable, err, root, s.options.RunRoot)
	}
	if path, cause := s.corrupt(); cause != nil {
		return fmt.Errorf("%s: %w: %s is damaged (%v); nothing was changed: restore the file from a backup, every engine of this store needs it",
			what, core.ErrStoreUnavailable, path, cause)
	}
	if s.info.GraphDriver == "" { // Not open yet.
		return fmt.Errorf("%s: %w: %s (driver %q): %w: see that --root, --runroot, --storage-driver and storage.conf name it as its engine has it",
			what, core.ErrStoreUnavailable, root, s.options.GraphDriverName, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// recordFiles lists the library's record files with what each holds. stable ones are synced to disk
// and replaced whole, so that they are never empty.
func (s *Store) recordFiles() []recordFile {
	driver := s.options.GraphDriverName
	if s.info.GraphDriver != "" {
		driver = s.info.GraphDriver
	}
	if driver == "" {
		driver = "overlay"
	}
	graph, run := s.options.GraphRoot, s.options.RunRoot
	var files []recordFile
	images := func(root string) {
		files = append(files,
			recordFile{filepath.Join(root, driver+"-images", "images.json"), true, func() any { return new([]storage.Image) }},
			recordFile{filepath.Join(root, driver+"-layers", "layers.json"), true, func() any { return new([]storage.Layer) }})
	}
	containers := func() any { return new([]storage.Container) }
	images(graph)
	files = append(files,
		recordFile{filepath.Join(graph, driver+"-containers", "containers.json"), true, containers},
		recordFile{filepath.Join(graph, driver+"-containers", "volatile-containers.json"), false, containers},
		recordFile{filepath.Join(run, driver+"-containers", "volatile-containers.json"), false, containers},
		recordFile{filepath.Join(graph, driver+"-layers", "volatile-layers.json"), false, func() any { return new([]storage.Layer) }},
		recordFile{filepath.Join(run, driver+"-layers", "volatile-layers.json"), false, func() any { return new([]storage.Layer) }},
		recordFile{filepath.Join(run, driver+"-layers", "mountpoints.json"), false, func() any {
			return new([]struct {
				ID    string `json:"id"`
				Path  string `json:"path"`
				Count int    `json:"count"`
			})
		}})
	for _, home := range s.homes[min(1, len(s.homes)):] {
		images(filepath.Dir(trimVFS(home, driver)))
	}
	return files
}

// trimVFS is the driver's home from the directory of its layers.
func trimVFS(home, driver string) string {
	if driver == "vfs" {
		return filepath.Dir(home)
	}
	return home
}

type recordFile struct {
	path   string
	stable bool
	shape  func() any
}

// corrupt names the first record file that is not what it should be, and why. It is called once
// something went wrong, since it reads all of them.
func (s *Store) corrupt() (string, error) {
	for _, file := range s.recordFiles() {
		data, err := os.ReadFile(file.path)
		if err != nil || len(data) == 0 {
			continue // No such file, or a cause that the caller's error tells better.
		}
		err = json.Unmarshal(data, file.shape())
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			err = fmt.Errorf("at byte %d stands the wrong kind of value, of type %s", kind.Offset, kind.Value)
		}
		if err != nil {
			return file.path, err
		}
		var records []*struct{}
		if err := json.Unmarshal(data, &records); err != nil {
			return file.path, err
		}
		for _, r := range records {
			if r == nil {
				return file.path, errors.New("a record is null")
			}
		}
	}
	return "", nil
}

// emptied refuses a store one of whose record files is empty. The library reads that as no records
// at all (v1.59.1, containers.go, load), and its next save makes it so for good.
func (s *Store) emptied(lib storage.Store) error {
	driver := lib.GraphDriverName()
	for _, path := range []string{
		filepath.Join(lib.GraphRoot(), driver+"-containers", "containers.json"),
		filepath.Join(lib.GraphRoot(), driver+"-images", "images.json"),
		filepath.Join(lib.GraphRoot(), driver+"-layers", "layers.json"),
	} {
		info, err := os.Stat(path)
		if err == nil && info.Size() == 0 {
			return unavailable("%s is empty, which a healthy store's never is; nothing was changed: restore the file from a backup", path)
		}
	}
	return nil
}
