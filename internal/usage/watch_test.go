package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

// place is a double of a store: a directory of layers, and which images the containers stand on.
type place struct {
	t    *testing.T
	root string
	mu   sync.Mutex
	// containers are the images of the containers.
	containers map[string]core.ImageID
	looks      int
	err        error
}

func newPlace(t *testing.T) *place {
	p := &place{t: t, root: t.TempDir(), containers: make(map[string]core.ImageID)}
	if err := os.Mkdir(filepath.Join(p.root, "layers"), 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *place) layers() string { return filepath.Join(p.root, "layers") }

func (p *place) add(name string, image core.ImageID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.containers[name] = image
	if err := os.Mkdir(filepath.Join(p.layers(), name), 0o700); err != nil {
		p.t.Error(err)
	}
}

func (p *place) remove(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.containers, name)
	if err := os.Remove(filepath.Join(p.layers(), name)); err != nil {
		p.t.Error(err)
	}
}

func (p *place) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *place) snapshot(context.Context) (*core.Snapshot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	if p.err != nil {
		return nil, p.err
	}
	info, err := os.Stat(p.layers())
	if err != nil {
		return nil, err
	}
	s := &core.Snapshot{Changed: info.ModTime(), Images: named(fullID("a"), fullID("b"))}
	for name, image := range p.containers {
		s.Containers = append(s.Containers, core.Container{ID: core.ContainerID(name), ImageID: image})
	}
	return s, nil
}

func (p *place) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.looks
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never was that %s", what)
		}
	}
}

// watch runs a watch until the test ends it.
func watch(t *testing.T, p *place) (w *Watch, end func()) {
	t.Helper()
	w = NewWatch(Of(p.root), p.snapshot, []string{p.layers()}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	until(t, "it has looked and written", func() bool { j, err := Of(p.root).Read(); return err == nil && len(j.Images) == 2 })
	return w, end
}

// What comes and goes while a watch runs is seen, without anybody asking, and is written down at its end.
func TestRunSeesUse(t *testing.T) {
	p := newPlace(t)
	_, end := watch(t, p)
	before := p.count()
	begin := time.Now().Round(0)
	p.add("c", fullID("a"))
	until(t, "it has looked again", func() bool { return p.count() > before })
	before = p.count()
	p.remove("c")
	until(t, "it has looked once more", func() bool { return p.count() > before })
	end()
	j, err := Of(p.root).Read()
	if err != nil {
		t.Fatal(err)
	}
	if used := j.Images[fullID("a")].Used; used.Before(begin) {
		t.Errorf("used at %v, and it was at %v", used, begin)
	}
	if !j.Images[fullID("b")].Used.IsZero() {
		t.Errorf("what nobody used was used: %+v", j.Images[fullID("b")])
	}
}

// A store in which much happens is looked at once in a while, not all the time.
func TestRunInAStorm(t *testing.T) {
	p := newPlace(t)
	watch(t, p)
	before := p.count()
	begin := time.Now()
	for n := 0; time.Since(begin) < 3*time.Second/2; n++ {
		p.add(fmt.Sprint("c", n), fullID("a"))
		p.remove(fmt.Sprint("c", n))
	}
	until(t, "it has looked", func() bool { return p.count() > before })
	if looks := p.count() - before; looks > 20 {
		t.Errorf("%d looks in %v", looks, time.Since(begin))
	}
}

// What a watch could not see is no longer taken for unused: it watches anew from when it sees again.
func TestRunThatDoesNotSee(t *testing.T) {
	p := newPlace(t)
	w, end := watch(t, p)
	from := func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.from
	}
	began := from()
	p.fail(errors.New("the store cannot be read"))
	if _, _, err := w.Past(t.Context(), nil, true); err == nil {
		t.Error("a store that cannot be read was read")
	}
	p.fail(nil)
	past, problem, err := w.Past(t.Context(), nil, true)
	if err != nil || problem != nil || len(past) != 2 {
		t.Errorf("%v %v %v", past, problem, err)
	}
	if !from().After(began) {
		t.Errorf("it watches since %v, and could not see after that", began)
	}
	w.broken()
	if _, _, err := w.Past(t.Context(), nil, false); err != nil || !from().After(began) {
		t.Error(err)
	}
	end()
	if _, _, err := w.Past(t.Context(), nil, false); err != nil || !from().IsZero() {
		t.Errorf("%v, and it watches no more since %v", err, from())
	}
}

func TestRunWithoutAPlace(t *testing.T) {
	w := NewWatch(Of(t.TempDir()), nil, []string{"/nowhere"}, slog.Default())
	if err := w.Run(t.Context()); err == nil {
		t.Error("it watches what is not there")
	}
}

// A process that looks once goes by what a watch has written, and adds to it; one that changes nothing
// writes nothing.
func TestPastOnce(t *testing.T) {
	p := newPlace(t)
	p.add("c", fullID("a"))
	f := Of(p.root)
	past, problem, err := f.Past(t.Context(), p.snapshot, false)
	if err != nil || problem != nil || past[fullID("a")].Used.IsZero() || !past[fullID("b")].Used.IsZero() {
		t.Fatalf("%v %v %v", past, problem, err)
	}
	if _, err := os.Stat(f.path); !os.IsNotExist(err) {
		t.Errorf("it was written: %v", err)
	}
	if _, problem, err = f.Past(t.Context(), p.snapshot, true); err != nil || problem != nil {
		t.Fatal(problem, err)
	}
	p.remove("c")
	again, problem, err := f.Past(t.Context(), p.snapshot, true)
	if err != nil || problem != nil || !again[fullID("a")].Used.After(past[fullID("a")].Used) {
		t.Errorf("%v %v %v", again, problem, err)
	}
	if err := os.WriteFile(f.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{false, true} {
		past, problem, err = f.Past(t.Context(), p.snapshot, keep)
		if err != nil || !errors.Is(problem, ErrDamaged) || len(past) != 2 {
			t.Errorf("damaged: %v %v %v", past, problem, err)
		}
	}
	p.fail(errors.New("the store cannot be read"))
	if _, _, err := f.Past(t.Context(), p.snapshot, true); err == nil {
		t.Error("a store that cannot be read was read")
	}
}
