package cstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// intent announces the deletion of a chain: an image, and the dangling parents that go after it.
type intent struct {
	// Version is 1.
	Version int `json:"version"`
	// Images are the chain, in the order of deletion; none is empty.
	Images []intentImage `json:"images"`
	// Done is whether the deletions that a process died in are completed: what is left of the chain may
	// still go, and the names of the first are still answered to, until Conclude.
	Done bool `json:"done,omitempty"`

	path string
}

// intentImage is an image as it was.
type intentImage struct {
	Image core.Image `json:"image"`
	// Layers are all its layers in the store itself, children before parents.
	Layers []intentLayer `json:"layers"`
}

func (i *intent) first() core.ImageID { return i.Images[0].Image.ID }

// intentLayer names a layer by ID and time, since one that was fetched again has the same ID.
type intentLayer struct {
	ID      core.LayerID `json:"id"`
	Created time.Time    `json:"created"`
}

const (
	intentPrefix = "delete-"
	intentSuffix = ".json"
	draftSuffix  = ".tmp"
)

func (s *Store) intentDir() string { return filepath.Join(s.info.GraphRoot, "unmoor") }

// pending is whether there is an announcement at all, or its draft. It takes no lock.
func (s *Store) pending() (bool, error) {
	entries, err := os.ReadDir(s.intentDir())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, s.wrap("look for interrupted deletions", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), intentPrefix) {
			return true, nil
		}
	}
	return false, nil
}

// The locks of ours, files in intentDir.
const (
	// deletionLock is held from the announcement of a deletion of images to its end.
	deletionLock = "lock"
	// loadLock is held while images are loaded (see load_journal.go).
	loadLock = "load.lock"
)

// lockIntents waits until no other process deletes images with announcements. The lock ends with
// unlock or with the process.
func (s *Store) lockIntents(ctx context.Context) (unlock func(), err error) {
	return s.lock(ctx, deletionLock, "another deletion of an image")
}

// tryLockIntents does not wait: unlock is nil where another process has the lock.
func (s *Store) tryLockIntents() (unlock func(), err error) { return s.tryLock(deletionLock) }

// lock waits until nobody else has a lock; for what, as errors say it.
func (s *Store) lock(ctx context.Context, name, what string) (unlock func(), err error) {
	wait := time.NewTicker(10 * time.Millisecond)
	defer wait.Stop()
	for {
		unlock, err := s.tryLock(name)
		if err != nil || unlock != nil {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-wait.C:
		}
	}
}

// tryLock does not wait: unlock is nil where another one has the lock.
func (s *Store) tryLock(name string) (unlock func(), err error) {
	fail := func(err error) (func(), error) { return nil, s.wrap("take the lock "+name, err) }
	if err := os.MkdirAll(s.intentDir(), 0o700); err != nil {
		return fail(err)
	}
	fd, err := unix.Open(filepath.Join(s.intentDir(), name), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fail(err)
	}
	err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return func() { _ = unix.Close(fd) }, nil // Nothing was written: there is nothing to lose.
	}
	_ = unix.Close(fd)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EINTR) {
		return nil, nil
	}
	return fail(err)
}

// announce puts the intent on the disk, whole. The caller holds the lock.
func (s *Store) announce(i *intent) error {
	i.path = filepath.Join(s.intentDir(), intentPrefix+string(i.first())+intentSuffix)
	data, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("write down the deletion of image %s: %w", i.first().Short(), err)
	}
	if err := replace(i.path, data); err != nil {
		return s.wrap("write down the deletion of image "+i.first().Short(), err)
	}
	return nil
}

// replace writes a file so that after a crash it has the old contents or the new ones.
func replace(path string, data []byte) (err error) {
	draft := path + draftSuffix
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(draft) // It says nothing yet; the next holder of the lock removes it too.
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(draft, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// drop ends an announcement. Where a power cut brings it back, completing it finds nothing to do.
func (s *Store) drop(i *intent) error {
	if err := os.Remove(i.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return s.wrap("remove the announcement of a deletion", err)
	}
	return nil
}

// intents reads the announcements that are there, and removes drafts. One that cannot be read is an
// error besides the others. The caller holds the lock, so all of them were left by a process that
// died.
func (s *Store) intents() ([]*intent, error) {
	entries, err := os.ReadDir(s.intentDir())
	if err != nil {
		return nil, s.wrap("look for interrupted deletions", err)
	}
	var found []*intent
	var errs []error
	for _, e := range entries {
		path := filepath.Join(s.intentDir(), e.Name())
		switch {
		case !strings.HasPrefix(e.Name(), intentPrefix):
			continue
		case strings.HasSuffix(e.Name(), draftSuffix):
			// The deletion had not begun.
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		data, err := os.ReadFile(path)
		if err == nil {
			var i *intent
			if i, err = parseIntent(data); err == nil {
				i.path = path
				found = append(found, i)
				continue
			}
		}
		errs = append(errs, fmt.Errorf("read the interrupted deletion in %s (remove the file if it is damaged): %w", path, err))
	}
	return found, errors.Join(errs...)
}

func parseIntent(data []byte) (*intent, error) {
	i := new(intent)
	if err := json.Unmarshal(data, i); err != nil {
		return nil, err
	}
	if i.Version != 1 {
		return nil, fmt.Errorf("version %d is not known", i.Version)
	}
	if len(i.Images) == 0 || slices.ContainsFunc(i.Images, func(i intentImage) bool { return i.Image.ID == "" }) {
		return nil, errors.New("it names no image")
	}
	return i, nil
}
