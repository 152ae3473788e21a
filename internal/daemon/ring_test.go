package daemon

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
)

func TestRing(t *testing.T) {
	began := time.UnixMicro(1_000_000)
	r := newRing(began, nil)
	if oldest, next := r.span(); oldest != 1_000_000 || next != 1_000_000 {
		t.Errorf("before the first event: %d, %d", oldest, next)
	}
	events, changed, ok := r.after(999_999, 10)
	if !ok || len(events) != 0 {
		t.Fatalf("before the first event: %v, %v", events, ok)
	}
	for _, outside := range []int64{999_998, 1_000_000, -5} {
		if _, _, ok := r.after(outside, 10); ok {
			t.Errorf("what came after %d is said to be kept", outside)
		}
	}
	for range 3 {
		r.publish(service.Event{Type: service.EventActionStarted})
	}
	if !isClosed(changed) {
		t.Error("nobody is told of an event")
	}
	events, changed, ok = r.after(1_000_000, 10)
	if !ok || len(events) != 2 || events[0].Sequence != 1_000_001 || events[1].Sequence != 1_000_002 || events[0].Time.IsZero() {
		t.Errorf("got %+v, %v", events, ok)
	}
	if isClosed(changed) {
		t.Error("told of an event that there is not")
	}
	if events, _, _ = r.after(999_999, 2); len(events) != 2 || events[0].Sequence != 1_000_000 {
		t.Errorf("at most two: %+v", events)
	}
}

func TestRingIsBounded(t *testing.T) {
	r := newRing(time.UnixMicro(0), nil)
	for range ringEvents + 10 {
		r.publish(service.Event{Type: service.EventActionStarted})
	}
	if oldest, next := r.span(); oldest != 10 || next != ringEvents+10 {
		t.Errorf("kept are %d to %d", oldest, next)
	}
	if _, _, ok := r.after(8, 1); ok {
		t.Error("an event that is not kept is said not to be lost")
	}
	if events, _, ok := r.after(9, 1); !ok || events[0].Sequence != 10 {
		t.Errorf("the oldest is not there: %v, %v", events, ok)
	}
	large := service.Event{Type: service.EventActionFailed, Error: strings.Repeat("x", 1<<20), Action: &core.Action{}}
	for range 10 {
		r.publish(large)
	}
	oldest, next := r.span()
	if next-oldest > 4 || next-oldest < 2 {
		t.Errorf("%d large events are kept", next-oldest)
	}
	large.Error = strings.Repeat("x", ringBytes+1)
	r.publish(large)
	if oldest, next := r.span(); next-oldest != 1 {
		t.Errorf("%d events are kept beside one that is too large", next-oldest-1)
	}
}

// TestRingGrowsOverRestarts: a number of an earlier run is below all of this one's.
func TestRingGrowsOverRestarts(t *testing.T) {
	began := time.Now()
	first := newRing(began, nil)
	for range 1000 {
		first.publish(service.Event{})
	}
	_, last := first.span()
	second := newRing(began.Add(time.Second), nil)
	if oldest, _ := second.span(); oldest <= last {
		t.Errorf("the second run begins with %d, the first one came to %d", oldest, last)
	}
	if _, _, ok := second.after(last-1, 1); ok {
		t.Error("what the first run's reader missed is said not to be lost")
	}
}

// TestSlowReaderOfTheRing keeps nobody from publishing.
func TestSlowReaderOfTheRing(t *testing.T) {
	r := newRing(time.Now(), nil)
	oldest, _ := r.span()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range ringEvents {
				r.publish(service.Event{})
			}
		})
	}
	wg.Wait()
	if _, _, ok := r.after(oldest, 1); ok {
		t.Error("a reader that lost events is not told")
	}
}

// What came and what went is told to whoever writes it down, in order; steps and plugins are not.
func TestRingTellsOfComings(t *testing.T) {
	var told []service.Event
	r := newRing(time.UnixMicro(7), func(e service.Event) { told = append(told, e) })
	for _, e := range []service.EventType{service.EventActionStarted, service.EventImageLoaded, service.EventPluginChanged,
		service.EventActionFinished, service.EventImageRemoved, service.EventActionFailed, service.EventContainerRemoved} {
		r.publish(service.Event{Type: e})
	}
	var got []string
	for _, e := range told {
		got = append(got, fmt.Sprintf("%s %d", e.Type, e.Sequence))
	}
	if want := []string{"image_loaded 8", "image_removed 11", "container_removed 13"}; !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
}
