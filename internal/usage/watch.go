package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/unmoor/unmoor/core"
)

// The pace of a watch. What changes is looked at soon, for a container may live for a moment only; but looks
// take no more than one part of so many of the time.
const (
	soon  = 20 * time.Millisecond // what has a layer has its record then
	pause = 100 * time.Millisecond
	oneOf = 10
	// between is how far two looks lie apart where nothing changes; each is written down.
	between = 5 * time.Minute
	// unwritten is how long what was seen may be in memory alone.
	unwritten = time.Minute
)

// Watch keeps the journal of a store while it runs. Past may be called from several goroutines at once.
type Watch struct {
	file     *File
	snapshot Snapshot
	places   []string
	logger   *slog.Logger

	// mu guards what follows, and is held during a look, so that looks come one after the other.
	mu      sync.Mutex
	journal *Journal
	// watching is whether changes of the store are told, and from since when none was missed; zero where some
	// may have been.
	watching bool
	from     time.Time
	// written is when the journal was written last, dirty whether there is more to write.
	written time.Time
	dirty   bool
}

// NewWatch makes a watch of a store. places are the directories that change when a container comes or goes.
func NewWatch(file *File, snapshot Snapshot, places []string, logger *slog.Logger) *Watch {
	return &Watch{file: file, snapshot: snapshot, places: places, logger: logger}
}

// Run watches until ctx ends, and writes down the last look then. An error is that it cannot watch at all.
func (w *Watch) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the store: %w", err)
	}
	defer watcher.Close() //nolint:errcheck // Nothing was written.
	for _, place := range w.places {
		if err := watcher.Add(place); err != nil {
			return fmt.Errorf("watch the store: %w", err)
		}
	}
	w.tell(true)
	defer w.tell(false)
	w.look(ctx, true)
	tick := time.NewTicker(between)
	defer tick.Stop()
	var due <-chan time.Time
	var next time.Time // not before that
	for {
		select {
		case <-ctx.Done():
			// There is no time for another look: what happened since the last one is for the next watch to see.
			w.flush(context.WithoutCancel(ctx))
			return nil
		case err, open := <-watcher.Errors:
			if !open {
				return errors.New("watch the store: the kernel tells no more of it")
			}
			w.logger.Warn("what changes in the store is not told", "error", err)
			w.broken()
		case _, open := <-watcher.Events:
			if !open {
				return errors.New("watch the store: the kernel tells no more of it")
			}
			if due == nil {
				due = time.After(max(soon, time.Until(next)))
			}
		case <-due:
			due = nil
			began := time.Now()
			w.look(ctx, false)
			next = time.Now().Add(max(pause, oneOf*time.Since(began)))
		case <-tick.C:
			w.look(ctx, true)
		}
	}
}

// tell says whether changes are told from now on.
func (w *Watch) tell(watching bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watching, w.from = watching, time.Time{}
}

// broken says that a change may have been missed.
func (w *Watch) broken() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.from = time.Time{}
}

// look looks at the store. write is whether to write it down in any case.
func (w *Watch) look(ctx context.Context, write bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.lookLocked(ctx); err != nil {
		if ctx.Err() == nil {
			w.logger.Warn("the use of images is not seen", "error", err)
		}
		return
	}
	if write || time.Since(w.written) > unwritten {
		w.writeLocked(ctx)
	}
}

func (w *Watch) lookLocked(ctx context.Context) error {
	at := time.Now().Round(0) // what is read back has no other clock either
	s, err := w.snapshot(ctx)
	if err != nil {
		w.from = time.Time{}
		return err
	}
	if w.journal == nil {
		if w.journal, err = w.file.Read(); err != nil {
			w.logger.Warn("what was known of the use of images is lost", "error", err)
			w.journal = &Journal{}
		}
	}
	look := Look{Snapshot: s, At: at, From: at}
	if w.watching {
		if w.from.IsZero() {
			w.from = at
		}
		look.From, look.Watching = w.from, true
	}
	w.journal.Note(look)
	w.dirty = true
	return nil
}

// flush writes down what is not yet.
func (w *Watch) flush(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirty {
		w.writeLocked(ctx)
	}
}

func (w *Watch) writeLocked(ctx context.Context) {
	mine := w.journal
	_, lost, unwritten := w.file.Update(ctx, func(disk *Journal) {
		mine.Merge(disk)
		*disk = *mine
	})
	if lost != nil {
		w.logger.Warn("what others have seen of the use of images is lost", "error", lost)
	}
	if unwritten != nil {
		w.logger.Warn("the use of images is not written down", "error", unwritten)
	}
	w.written, w.dirty = time.Now(), false
}

// Past looks at the store once more, and says what is known of its images' past. problem is always nil: what
// goes wrong with the journal is logged. err is that the store cannot be read.
func (w *Watch) Past(ctx context.Context, _ Snapshot, keep bool) (past map[core.ImageID]core.Past, problem, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.lookLocked(ctx); err != nil {
		return nil, nil, err
	}
	if keep {
		w.writeLocked(ctx)
	}
	return w.journal.Past(), nil, nil
}
