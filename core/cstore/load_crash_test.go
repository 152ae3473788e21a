package cstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/unmoor/unmoor/core"
)

// Killed anywhere, a load leaves nothing that its own journal does not lead to; the next one, of whatever
// kind, or the doctor cleans it up.
func TestLoadKilled(t *testing.T) {
	for _, driver := range drivers {
		for _, step := range []string{
			"put_layer", "replaced:GRAPH/DRIVER-layers/layers.json", "replaced:GRAPH/DRIVER-layers/layers.json:2", "layer_put",
			"put_layer:2", "layer_put:2", "replaced:GRAPH/DRIVER-images/images.json", "image_made",
		} {
			t.Run(driver+" "+filepath.Base(step), func(t *testing.T) {
				l := newLoader(t, driver)
				one := small(t, "one:1")
				path := fileWith(t, "a.tar", tarOf(t, dockerArchive(one)...))
				if err := os.MkdirAll(filepath.Join(l.Options.GraphRoot, driver+"-layers"), 0o700); err != nil {
					t.Fatal(err)
				}
				at := strings.NewReplacer("GRAPH", l.Options.GraphRoot, "DRIVER", driver).Replace(step)
				cmd := childCommand(t, l.Options, "load", path, l.policy, at)
				out, err := cmd.CombinedOutput()
				if err == nil || cmd.ProcessState.ExitCode() != -1 {
					t.Fatalf("it was not killed at %s: %v\n%s", step, err, out)
				}
				_, litter, err := l.Examine(t.Context())
				if err != nil || litter.Load == nil || len(litter.Unreferenced) > 0 {
					t.Fatalf("examined: load %v, unreferenced %v, %v", litter.Load, litter.Unreferenced, err)
				}
				if _, err := l.CompleteInterrupted(t.Context()); err != nil {
					t.Fatal(err)
				}
				l.tidy(t)
				l.Clean()
				images := l.Fixture.Snapshot().Images
				if len(images) == 0 {
					l.empty(t)
				} else if id := images[0].ID; id != one.id() {
					t.Errorf("image %s is there", id)
				}
				// Once more from the start, without anybody who cleans up between.
				if out, err := childCommand(t, l.Options, "load", path, l.policy, at).CombinedOutput(); err == nil && len(images) == 0 {
					t.Fatalf("it was not killed again at %s\n%s", step, out)
				}
				loaded, err := l.Load(t.Context(), l.request(path))
				if want := one.id().Short() + "[localhost/one:1]"; err != nil || texts(loaded) != want {
					t.Errorf("loaded %s, %v, and wanted %s", texts(loaded), err, want)
				}
				l.tidy(t)
				l.Clean()
			})
		}
	}
}

// What a load that lives has made so far is no litter, be it looked at from this process or another one.
func TestLiveLoadIsNoLitter(t *testing.T) {
	l := newLoader(t, "overlay")
	path := fileWith(t, "a.tar", tarOf(t, dockerArchive(small(t, "one:1"))...))
	looked := 0
	onStep(l.Store, "put_layer:2", func() {
		other := l.Fixture.Open()
		if _, err := other.CompleteInterrupted(t.Context()); err != nil {
			t.Error(err)
		}
		_, litter, err := other.Examine(t.Context())
		if err != nil || litter.Load != nil || len(litter.Unreferenced) > 0 || len(l.Layers()) != 1 {
			t.Errorf("examined: load %v, unreferenced %v, %v; layers %v", litter.Load, litter.Unreferenced, err, l.Layers())
		}
		looked++
	})
	if _, err := l.Load(t.Context(), l.request(path)); err != nil || looked != 1 {
		t.Errorf("looked %d times, %v", looked, err)
	}
	l.tidy(t)
}

// What the load of an archive makes is not taken away where an image needs it meanwhile, nor what was there
// before.
func TestFailedLoadKeepsWhatIsNotItsOwn(t *testing.T) {
	l := newLoader(t, "overlay")
	one, two := small(t, "one:1"), small(t, "two:1")
	two.layers[0] = one.layers[0]
	good := fileWith(t, "a.tar", tarOf(t, dockerArchive(one)...))
	members := dockerArchive(two)
	for i := range members {
		if strings.HasSuffix(members[i].Name, ".tar") && strings.Contains(members[i].content, "upper") {
			members[i].content = strings.Replace(members[i].content, "upper", "UPPER", 1)
		}
	}
	bad := fileWith(t, "b.tar", tarOf(t, members...))
	if _, err := l.Load(t.Context(), l.request(good)); err != nil {
		t.Fatal(err)
	}
	before := l.Layers()
	if images, err := l.Load(t.Context(), l.request(bad)); err == nil {
		t.Errorf("loaded %s", texts(images))
	}
	if after := l.Layers(); !slices.Equal(before, after) {
		t.Errorf("the layers were %v and are %v", before, after)
	}
	// Its first layer gets an image while the second one is made, which is cancelled.
	ctx, cancel := context.WithCancel(t.Context())
	onStep(l.Store, "put_layer:2", func() {
		lower := slices.DeleteFunc(l.Layers(), func(id core.LayerID) bool { return slices.Contains(before, id) })
		l.AddImageOver(string(lower[0]), "localhost/meanwhile:1")
		cancel()
	})
	three := small(t, "three:1")
	three.layers[0] = tarOf(t, file("etc/other", "lower"))
	if images, err := l.Load(ctx, l.request(fileWith(t, "c.tar", tarOf(t, dockerArchive(three)...)))); !errors.Is(err, context.Canceled) {
		t.Errorf("loaded %s, %v", texts(images), err)
	}
	if images := l.Fixture.Snapshot().Images; len(images) != 2 || len(l.Layers()) != 3 {
		t.Errorf("the store has %d images and layers %v", len(images), l.Layers())
	}
	l.tidy(t)
	l.Clean()
}

func TestLoadsAtOnce(t *testing.T) {
	l := newLoader(t, "overlay")
	path := fileWith(t, "a.tar", tarOf(t, dockerArchive(small(t, "one:1"))...))
	here := 4
	if raceDetector {
		here = 1 // as with TestDeletesOfOneStore
	}
	var wait sync.WaitGroup
	for range here {
		wait.Go(func() {
			if _, err := l.Fixture.Open().Load(t.Context(), l.request(path)); err != nil {
				t.Error(err)
			}
		})
	}
	for range 2 {
		wait.Go(func() {
			if out, err := childCommand(t, l.Options, "load", path, l.policy).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wait.Wait()
	if images := l.Fixture.Snapshot().Images; len(images) != 1 || len(l.Layers()) != 2 {
		t.Errorf("the store has %d images and layers %v", len(images), l.Layers())
	}
	l.tidy(t)
	l.Clean()
}

// A journal that cannot be read is not taken for none: what it says might be lost.
func TestUnreadableJournal(t *testing.T) {
	l := newLoader(t, "vfs")
	path := fileWith(t, "a.tar", tarOf(t, dockerArchive(small(t, "one:1"))...))
	journal := filepath.Join(l.Options.GraphRoot, "unmoor", "load.json")
	if err := os.MkdirAll(filepath.Dir(journal), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"directory":"/etc"}`, `{"version":1,"directory":"/etc/unmoor-load-x/.."}`} {
		if err := os.WriteFile(journal, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Load(t.Context(), l.request(path)); err == nil || !strings.Contains(err.Error(), journal) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
