package hooks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Between two attempts to reach a plugin again.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = time.Minute
)

// Run watches the directory of plugins, keeps a call of Describe open to each that is on a socket, and
// starts commands again that have ended, until ctx ends. It runs once at a time. Plugins can be asked
// before, meanwhile and afterwards.
func (r *Registry) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the directory of plugins: %w", err)
	}
	defer watcher.Close() //nolint:errcheck // It was only read from.
	r.mu.Lock()
	r.animate = func(m *member) { m.life.start(ctx, m) }
	members := r.members
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, m := range members {
		m.life.start(ctx, m)
		if m.plugin != nil && m.remote == nil {
			wg.Go(func() { m.describe(ctx) })
		}
	}
	r.watch(ctx, watcher)
	r.mu.Lock()
	r.animate, members = nil, r.members
	r.mu.Unlock()
	for _, m := range members {
		m.life.stop()
	}
	wg.Wait()
	return nil
}

// watch looks again whenever something has changed in or above the directory, until ctx ends.
func (r *Registry) watch(ctx context.Context, watcher *fsnotify.Watcher) {
	for {
		r.attend(watcher)
		r.look()
		select {
		case <-ctx.Done():
			return
		case <-watcher.Events:
		case err := <-watcher.Errors:
			r.log.Warn("watch the directory of plugins", "error", err) // and look again
		}
	}
}

// attend watches the directory and the one above it, or as far up as there is one.
func (r *Registry) attend(watcher *fsnotify.Watcher) {
	if r.options.Directory == "" {
		return
	}
	for watched := ""; ; {
		path := nearest(r.options.Directory)
		if path == watched {
			return
		}
		watched = path // unless more of it has come meanwhile
		for _, p := range []string{path, filepath.Dir(path)} {
			if err := watcher.Add(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
				r.log.Warn("watch the directory of plugins", "directory", p, "error", err)
			}
		}
	}
}

// nearest is path, or the first above it that is there.
func nearest(path string) string {
	for path != "/" {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

// life is what a member does by itself while Run runs.
type life struct {
	mu     sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
	over   bool
	nudges chan struct{}
}

func newLife() *life { return &life{nudges: make(chan struct{}, 1)} }

// start begins it, unless it has begun or is over, or there is nothing to do.
func (l *life) start(ctx context.Context, m *member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil || l.over || m.remote == nil || m.gone != "" {
		return
	}
	ctx, l.cancel = context.WithCancel(ctx)
	done := make(chan struct{})
	l.done = done
	go func() {
		defer close(done)
		m.live(ctx)
	}()
}

// stop ends it, and returns when it has ended.
func (l *life) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
		<-l.done
		l.cancel = nil
	}
}

// end is stop for good.
func (l *life) end() {
	l.stop()
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
}

// nudge ends the wait for the next attempt.
func (l *life) nudge() {
	select {
	case l.nudges <- struct{}{}:
	default:
	}
}

// live keeps a call of Describe open, until ctx ends.
func (m *member) live(ctx context.Context) {
	delay := firstRetry
	for {
		began := time.Now()
		err := m.remote.follow(ctx, m.settings().ClaimTimeout)
		if ctx.Err() != nil {
			return
		}
		f := &fault{faultError, err}
		errors.As(err, &f)
		m.note(f)
		if time.Since(began) > lastRetry {
			delay = firstRetry
		}
		var due <-chan time.Time
		if m.settings().source != SourceDirectory || !errors.Is(err, fs.ErrNotExist) { // else it will be seen to come
			timer := time.NewTimer(delay)
			defer timer.Stop()
			due = timer.C
			delay = min(2*delay, lastRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.life.nudges:
			delay = firstRetry
		case <-due:
		}
	}
}
