package hooks_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

func TestOutcomes(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	ok := func(n int) core.Outcome { return core.Outcome{Container: id(n), StorageRemoved: true} }
	for _, test := range []struct {
		name   string
		answer func() []core.Outcome
		// words in the errors of containers 1 and 2; empty for success
		first, second string
	}{
		{"all well", func() []core.Outcome { return []core.Outcome{ok(2), ok(1)} }, "", ""},
		{"one is left out", func() []core.Outcome { return []core.Outcome{ok(1)} }, "", "no outcome"},
		{"one twice", func() []core.Outcome { return []core.Outcome{ok(1), ok(2), ok(2), ok(2)} }, "", "more than one"},
		{"another one's", func() []core.Outcome { return []core.Outcome{ok(1), ok(2), ok(9)} }, "", ""},
		{"one still runs", func() []core.Outcome {
			return []core.Outcome{ok(1), {Container: id(2), Err: core.ErrStillInUse, StorageRemoved: true}}
		}, "", "still in use"},
		{"panic", func() []core.Outcome { panic("oh") }, "panicked", "panicked"},
		{"hang", func() []core.Outcome { <-release; return nil }, "did not answer", "did not answer"},
	} {
		for _, verb := range []string{"stop", "remove"} {
			t.Run(verb+" "+test.name, func(t *testing.T) {
				e := entry("podman", fake{
					stop:   func(context.Context, []core.Handle, time.Duration) []core.Outcome { return test.answer() },
					remove: func(context.Context, []core.Handle) []core.Outcome { return test.answer() },
				})
				if test.name == "hang" {
					e.StopMargin, e.RemoveTimeout = 50*time.Millisecond, 50*time.Millisecond
				}
				r := registry(t, e)
				handles := []core.Handle{{Container: core.Container{ID: id(1)}}, {Container: core.Container{ID: id(2)}}}
				var outcomes []core.Outcome
				if verb == "stop" {
					outcomes = r.Stop(context.Background(), "podman", core.StoreInfo{}, handles, 50*time.Millisecond)
				} else {
					outcomes = r.Remove(context.Background(), "podman", core.StoreInfo{}, handles)
				}
				if len(outcomes) != 2 {
					t.Fatalf("%d outcomes", len(outcomes))
				}
				for i, want := range []string{test.first, test.second} {
					o := outcomes[i]
					if o.Container != id(i+1) {
						t.Errorf("outcome %d is of %s", i, o.Container)
					}
					if (o.Err == nil) != (want == "") {
						t.Errorf("container %d: %v", i+1, o.Err)
					}
					if o.Err != nil && (!strings.Contains(o.Err.Error(), want) || !strings.HasPrefix(o.Err.Error(), "podman: "+verb+" container ")) {
						t.Errorf("container %d: %q lacks the plugin, the verb or %q", i+1, o.Err, want)
					}
					if o.Err != nil && o.StorageRemoved {
						t.Errorf("container %d is gone and not gone", i+1)
					}
				}
				if test.name == "one still runs" && !errors.Is(outcomes[1].Err, core.ErrStillInUse) {
					t.Errorf("%v is not ErrStillInUse", outcomes[1].Err)
				}
			})
		}
	}
}

func TestUnknownOwner(t *testing.T) {
	handles := []core.Handle{{Container: core.Container{ID: id(1)}}}
	for _, o := range registry(t).Remove(context.Background(), "podman", core.StoreInfo{}, handles) {
		if o.Err == nil {
			t.Error("removed by a plugin that is not there")
		}
	}
}

// TestTimeOfAStop: the bound grows with the batch, since an engine has only so many workers.
func TestTimeOfAStop(t *testing.T) {
	for n, least := range map[int]time.Duration{1: 15 * time.Second, 36: 60 * time.Second, 400: 500 * time.Second} {
		var left time.Duration
		p := fake{stop: func(ctx context.Context, _ []core.Handle, _ time.Duration) []core.Outcome {
			end, _ := ctx.Deadline()
			left = time.Until(end)
			return nil
		}}
		registry(t, entry("podman", p)).Stop(context.Background(), "podman", core.StoreInfo{}, make([]core.Handle, n), 10*time.Second)
		if left < least-time.Second || left > 2*least {
			t.Errorf("%d containers have %s", n, left)
		}
	}
	var bounded bool
	p := fake{stop: func(ctx context.Context, _ []core.Handle, _ time.Duration) []core.Outcome {
		bounded = ctx.Err() == nil
		return nil
	}}
	registry(t, entry("podman", p)).Stop(context.Background(), "podman", core.StoreInfo{}, make([]core.Handle, 1<<16), 200*365*24*time.Hour)
	if !bounded {
		t.Error("an endless grace period leaves no time at all")
	}
}
