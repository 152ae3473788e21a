package cstore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
)

// loadJournal says what a load or an import makes before there is an image that needs it: the layers, and a
// directory for temporary files. The library completes a layer before it goes on with the next one, and
// the image comes last; a process that is killed leaves layers that nothing refers to. (One that it was just
// making is marked as incomplete, and goes with the next engine that opens the store.) The journal lies in a
// file, GRAPHROOT/unmoor/load.json, and a lock of its own is held as long as it is there: whoever gets the lock
// knows that a journal which is there belongs to nobody alive. So there is one load at a time.
type loadJournal struct {
	// Version is 1.
	Version int `json:"version"`
	// Directory holds temporary files.
	Directory string `json:"directory"`
	// Layers are in the order of their making.
	Layers []journalLayer `json:"layers"`

	// mu guards Layers.
	mu   sync.Mutex
	path string
}

// journalLayer is a layer that was to be made. One by the same ID that was there earlier is another's.
type journalLayer struct {
	ID    core.LayerID `json:"id"`
	Begun time.Time    `json:"begun"`
}

const loadDirectoryPrefix = "unmoor-load-"

func (s *Store) journalPath() string { return filepath.Join(s.intentDir(), "load.json") }

// beginJournal waits until nobody else loads, cleans up after one who died, and makes a journal and its
// directory. The journal ends with end.
func (s *Store) beginJournal(ctx context.Context) (_ *loadJournal, end func() error, err error) {
	unlock, err := s.lock(ctx, loadLock, "another load of an image")
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			unlock()
		}
	}()
	if err := s.clearJournal(ctx); err != nil {
		return nil, nil, err
	}
	j := &loadJournal{Version: 1, Directory: filepath.Join(tempDirectory(), loadDirectoryPrefix+rand.Text()), path: s.journalPath()}
	if err := j.write(); err != nil {
		return nil, nil, s.wrap("write down what is being loaded", err)
	}
	end = func() error {
		defer unlock()
		// Whatever has happened, nothing may stay behind.
		return s.clear(context.WithoutCancel(ctx), j)
	}
	if err := os.Mkdir(j.Directory, 0o700); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a directory for temporary files: %w", err), s.clear(ctx, j))
	}
	return j, end, nil
}

// begin notes a layer that is going to be made.
func (j *loadJournal) begin(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Layers = append(j.Layers, journalLayer{core.LayerID(id), time.Now().UTC()})
	return j.write()
}

// disown takes out a layer that somebody else has made meanwhile.
func (j *loadJournal) disown(id string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.Layers = slices.DeleteFunc(j.Layers, func(l journalLayer) bool { return string(l.ID) == id })
	return j.write()
}

// made is whether a layer is the journal's; a nil journal has none.
func (j *loadJournal) made(id string) bool {
	return j != nil && slices.ContainsFunc(j.Layers, func(l journalLayer) bool { return string(l.ID) == id })
}

func (j *loadJournal) write() error {
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	return replace(j.path, data)
}

// readJournal reads the journal that is there; nil where there is none.
func (s *Store) readJournal() (*loadJournal, error) {
	path := s.journalPath()
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	j := &loadJournal{path: path}
	if err == nil {
		err = json.Unmarshal(data, j)
	}
	if err == nil && (j.Version != 1 || !strings.HasPrefix(filepath.Base(j.Directory), loadDirectoryPrefix)) {
		err = errors.New("it is none of this version")
	}
	if err != nil {
		return nil, fmt.Errorf("read what an interrupted load has left in %s (remove the file if it is damaged): %w", path, err)
	}
	return j, nil
}

// clearJournal cleans up after a load that died. The caller holds the lock.
func (s *Store) clearJournal(ctx context.Context) error {
	j, err := s.readJournal()
	if err != nil || j == nil {
		return err
	}
	return s.clear(ctx, j)
}

// clear deletes the layers of a journal that nothing refers to, the last one first, and its directory, and
// then the journal.
func (s *Store) clear(ctx context.Context, j *loadJournal) error {
	if len(j.Layers) > 0 {
		records, err := s.read(ctx)
		if err != nil {
			return err
		}
		for _, l := range slices.Backward(j.Layers) {
			record, there := records.layers.byID[string(l.ID)]
			if !there || record.Created.Before(l.Begun) || !records.layers.orphan(records, intentLayer{l.ID, record.Created}) {
				continue
			}
			if err := s.deleteLayer(ctx, records, l.ID); err != nil {
				return fmt.Errorf("clean up after a load that did not succeed: %w", err)
			}
		}
	}
	if err := os.RemoveAll(j.Directory); err != nil {
		return fmt.Errorf("clean up after a load: %w", err)
	}
	for _, path := range []string{j.path + draftSuffix, j.path} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return s.wrap("remove the journal of a load", err)
		}
	}
	return nil
}

// clearInterruptedLoad cleans up after a load that died; where one is going on it does nothing.
func (s *Store) clearInterruptedLoad(ctx context.Context) error {
	if _, err := os.Lstat(s.journalPath()); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := s.tryLock(loadLock)
	if err != nil || unlock == nil {
		return err
	}
	defer unlock()
	return s.clearJournal(ctx)
}

// loading says what is being loaded, and whether by somebody who lives; nil where nothing is.
func (s *Store) loading() (j *loadJournal, alive bool, err error) {
	if j, err = s.readJournal(); err != nil || j == nil {
		return nil, false, err
	}
	unlock, err := s.tryLock(loadLock)
	if err != nil {
		return nil, false, err
	}
	if unlock == nil {
		return j, true, nil
	}
	defer unlock()
	// It may have ended between the two.
	j, err = s.readJournal()
	return j, false, err
}
