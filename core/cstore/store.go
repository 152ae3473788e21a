package cstore

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/containers/storage"
	"github.com/containers/storage/types"

	"github.com/unmoor/unmoor/core"
)

// Store is an open store. Its methods may be called from several goroutines at once.
type Store struct {
	options types.StoreOptions
	// imageLabels is Options.ImageLabels.
	imageLabels bool
	info        core.StoreInfo
	logger      *slog.Logger
	// homes are the directories in which the driver keeps layers, the store's own first, then the
	// image store and the additional ones; without symbolic links, as the kernel shows them.
	homes []string

	// mu guards lib and stale. It is not held during a call of the library.
	mu  sync.Mutex
	lib storage.Store
	// stale is whether the library's memory may differ from the disk.
	stale bool

	// configsMu guards configs, what is known of the images' configurations and manifests.
	configsMu sync.Mutex
	configs   map[configKey]imageConfig

	// step is Options.Step, broken is Options.Broken.
	step   func(name string)
	broken func(error)
	// room is roomOn.
	room func(directory string) (room, error)
}

var _ core.Store = (*Store)(nil)

// library guards what the library keeps for the whole process.
var library struct {
	sync.Mutex
	// crashed are the graph roots that the library panicked on. It may hold locks of theirs, so
	// that another call would wait for ever.
	crashed map[string]error
}

// Open opens a store, and makes it if it is not there, as an engine would. It needs no closing: no
// file or lock is held between two calls. Errors wrap core.ErrStoreUnavailable.
func Open(ctx context.Context, options Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	routeLibraryLog(options.Logger)
	resolved, err := options.resolve()
	if err != nil {
		return nil, err
	}
	s := &Store{options: resolved, imageLabels: options.ImageLabels, logger: options.Logger, step: options.Step, broken: options.Broken,
		room: roomOn}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.info.GraphRoot = resolved.GraphRoot
	if err := s.load(); err != nil {
		return nil, err
	}
	s.info = core.StoreInfo{
		GraphRoot:    s.lib.GraphRoot(),
		RunRoot:      s.lib.RunRoot(),
		GraphDriver:  s.lib.GraphDriverName(),
		GraphOptions: s.lib.GraphOptions(),
		Default:      isDefault(s.lib),
	}
	err = s.call(ctx, "open the store", func(lib storage.Store) error {
		driver, err := lib.GraphDriver()
		if err != nil {
			return err
		}
		s.homes = homes(lib, driver.AdditionalImageStores())
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// homes lists the directories to look for a layer's directory in.
func homes(lib storage.Store, additional []string) []string {
	roots := []string{lib.GraphRoot()}
	if lib.ImageStore() != "" {
		roots = append(roots, lib.ImageStore())
	}
	roots = append(roots, additional...)
	var dirs []string
	for _, root := range roots {
		dir := filepath.Join(root, lib.GraphDriverName())
		if lib.GraphDriverName() == "vfs" {
			dir = filepath.Join(dir, "dir")
		}
		if dir = resolved(dir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Places are the directories that change when a container comes or goes: its layer is in the store itself.
func (s *Store) Places() []string {
	return []string{s.homes[0], filepath.Join(s.info.GraphRoot, s.info.GraphDriver+"-containers")}
}

// Info says which store it is.
func (s *Store) Info() core.StoreInfo { return s.info }

// load gets the library's store; a stale one is dropped first. The caller holds s.mu or has the
// store for itself.
func (s *Store) load() error {
	return s.guard("open the store", func() error {
		library.Lock()
		defer library.Unlock()
		if s.lib != nil {
			s.lib.Free()
		}
		lib, err := storage.GetStore(s.options)
		if err != nil {
			return err
		}
		s.lib, s.stale = lib, false
		return nil
	})
}

// current is the library's store, read anew if it may be stale.
func (s *Store) current() (storage.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stale {
		if err := s.load(); err != nil {
			return nil, err
		}
	}
	return s.lib, nil
}

// call has the library do something: what, as a clause for the error. ctx is looked at before, since
// the library cannot be interrupted.
func (s *Store) call(ctx context.Context, what string, f func(storage.Store) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	lib, err := s.current()
	if err != nil {
		return err
	}
	if err := s.emptied(lib); err != nil {
		return err
	}
	err = s.guard(what, func() error { return f(lib) })
	if err != nil && !foreseen(err) {
		s.mu.Lock()
		s.stale = true
		s.mu.Unlock()
	}
	return err
}

// guard runs f, turns its errors into ours, and a panic into an error: the library panics where it
// cannot open or take a lock, and on records that are no records.
func (s *Store) guard(what string, f func() error) (err error) {
	root := s.info.GraphRoot
	library.Lock()
	crashed := library.crashed[root]
	library.Unlock()
	if crashed != nil {
		return crashed
	}
	defer func() {
		if r := recover(); r != nil {
			s.logger.Debug("the storage library panicked", "panic", r, "stack", string(debug.Stack()))
			cause, ok := r.(error)
			if !ok {
				cause = errors.New("the storage library gave up")
			}
			err = s.wrap(what, cause)
			if !errors.Is(err, core.ErrStoreUnavailable) {
				err = unavailable("%s %s (%v)", what, root, r)
			}
			library.Lock()
			defer library.Unlock()
			if library.crashed == nil {
				library.crashed = make(map[string]error)
			}
			library.crashed[root] = err
			if s.broken != nil {
				s.broken(err)
			}
		}
	}()
	if err := f(); err != nil {
		return s.wrap(what, err)
	}
	return nil
}

func (s *Store) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}
