package usage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
)

func fullID(digit string) core.ImageID { return core.ImageID(strings.Repeat(digit, 64)) }

func TestFile(t *testing.T) {
	f := Of(t.TempDir())
	if j, err := f.Read(); err != nil || !cmp.Equal(j, &Journal{}) {
		t.Fatalf("one that is not there: %+v, %v", j, err)
	}
	want := &Journal{Watched: at(1), Looked: at(3), Images: map[core.ImageID]Entry{fullID("a"): {Seen: at(1), Used: at(2)}, fullID("b"): {Seen: at(1)}}}
	for range 2 {
		got, lost, unwritten := f.Update(t.Context(), func(j *Journal) { *j = *want })
		if lost != nil || unwritten != nil || !cmp.Equal(got, want) {
			t.Fatalf("update: %+v, %v, %v", got, lost, unwritten)
		}
		if got, err := f.Read(); err != nil || !cmp.Equal(got, want) {
			t.Errorf("read again: %s, %v", cmp.Diff(want, got), err)
		}
	}
	info, err := os.Stat(f.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestDamagedFile(t *testing.T) {
	id := string(fullID("a"))
	for name, text := range map[string]string{
		"empty":              "",
		"cut off":            `{"version":1,"watched":"2026-05-04T12:00:00Z"`,
		"of another version": `{"version":2,"watched":"2026-05-04T12:00:00Z","looked":"2026-05-04T12:00:00Z","images":{}}`,
		"an unknown key":     `{"version":1,"watched":"2026-05-04T12:00:00Z","looked":"2026-05-04T12:00:00Z","images":{},"more":1}`,
		"more after its end": `{"version":1,"watched":"2026-05-04T12:00:00Z","looked":"2026-05-04T12:00:00Z","images":{}} {}`,
		"never watched":      `{"version":1,"looked":"2026-05-04T12:00:00Z","images":{}}`,
		"looked at before":   `{"version":1,"watched":"2026-05-04T12:00:00Z","looked":"2026-05-04T11:00:00Z","images":{}}`,
		"an ID that is none": `{"version":1,"watched":"2026-05-04T12:00:00Z","looked":"2026-05-04T12:00:00Z","images":{"../x":{"seen":"2026-05-04T12:00:00Z"}}}`,
		"an image not seen":  `{"version":1,"watched":"2026-05-04T12:00:00Z","looked":"2026-05-04T12:00:00Z","images":{"` + id + `":{}}}`,
		"no time":            `{"version":1,"watched":"2026-05-04T12:00:00Z","looked":"yesterday","images":{}}`,
		"too large":          strings.Repeat(" ", maxSize) + "{}",
	} {
		f := Of(t.TempDir())
		if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Read(); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: read with %v", name, err)
		}
		look := Look{Snapshot: store(0, named(fullID("b"))), At: at(1), From: at(1)}
		j, lost, unwritten := f.Update(t.Context(), func(j *Journal) { j.Note(look) })
		if unwritten != nil || !errors.Is(lost, ErrDamaged) || len(j.Images) != 1 {
			t.Errorf("%s: updated to %+v, %v, %v", name, j, lost, unwritten)
		}
		if kept, err := os.ReadFile(f.path + ".damaged"); err != nil || string(kept) != text {
			t.Errorf("%s: it is not kept: %v", name, err)
		}
		if again, err := f.Read(); err != nil || len(again.Images) != 1 {
			t.Errorf("%s: afterwards %+v, %v", name, again, err)
		}
	}
}

// What cannot be written is told, and the caller has its journal all the same.
func TestFileThatCannotBeWritten(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "unmoor"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j, _, unwritten := Of(root).Update(t.Context(), func(j *Journal) { j.Watched = noon })
	if unwritten == nil || !j.Watched.Equal(noon) {
		t.Errorf("%+v, %v", j, unwritten)
	}
	// A link is not followed.
	root = t.TempDir()
	f := Of(root)
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", f.path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("read through a link: %v", err)
	}
	if _, lost, unwritten := f.Update(t.Context(), func(j *Journal) { j.Watched = noon }); lost == nil || unwritten == nil {
		t.Errorf("written over a link: %v, %v", lost, unwritten)
	}
}

// Nothing of what several processes see is lost.
func TestConcurrentUpdates(t *testing.T) {
	root := t.TempDir()
	var wg sync.WaitGroup
	digits := strings.Split("0123456789abcdef", "")
	for _, digit := range digits {
		wg.Go(func() {
			_, lost, unwritten := Of(root).Update(t.Context(), func(j *Journal) {
				if j.Images == nil {
					*j = Journal{Watched: noon, Looked: noon, Images: map[core.ImageID]Entry{}}
				}
				j.Images[fullID(digit)] = Entry{Seen: noon}
			})
			if lost != nil || unwritten != nil {
				t.Error(lost, unwritten)
			}
		})
	}
	wg.Wait()
	if j, err := Of(root).Read(); err != nil || len(j.Images) != len(digits) {
		t.Errorf("%+v, %v", j, err)
	}
	unlock, err := Of(root).lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Of(root).lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lock that is held: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"watched":"2026-05-04T12:00:00Z","looked":"2026-05-04T12:00:00Z","images":{"` + string(fullID("a")) +
		`":{"seen":"2026-05-04T12:00:00Z","used":"2026-05-04T12:00:00Z"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := parse(data)
		if err != nil {
			return
		}
		again, err := j.encode()
		if err != nil {
			return // a year beyond what can be written
		}
		if other, err := parse(again); err != nil || !cmp.Equal(j.Past(), other.Past()) {
			t.Errorf("written anew it is %v, %v", other, err)
		}
	})
}
