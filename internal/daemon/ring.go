package daemon

import (
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/unmoor/unmoor/internal/service"
)

// What is kept of the events for those that ask for what they missed.
const (
	ringEvents = 4096
	ringBytes  = 4 << 20
)

// ring keeps the last events. To publish waits for nobody: a reader takes what it has not seen yet, and
// one that was too slow learns that it lost some.
//
// Sequence numbers go on over a restart: those of a run begin with its time, in microseconds. So a number
// of an earlier run is below all of this one's, and what came after it in that run is lost.
type ring struct {
	// comings, where set, is told of what came or went.
	comings func(service.Event)

	// mu guards what follows.
	mu     sync.Mutex
	events []stored
	bytes  int
	// next is the sequence number of the event to come.
	next int64
	// changed is closed when an event comes.
	changed chan struct{}
}

type stored struct {
	event service.Event
	size  int
}

func newRing(began time.Time, comings func(service.Event)) *ring {
	return &ring{next: began.UnixMicro(), changed: make(chan struct{}), comings: comings}
}

// publish gives the event its number and time.
func (r *ring) publish(e service.Event) {
	if e, ok := r.keep(e); ok && r.comings != nil && e.Type.Comes() {
		r.comings(e)
	}
}

func (r *ring) keep(e service.Event) (service.Event, bool) {
	e.Time = time.Now().UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Sequence = r.next
	b, err := json.Marshal(e)
	if err != nil { // it has no field that cannot be written
		slog.Error("publish an event", "type", e.Type, "error", err)
		return e, false
	}
	r.next++
	r.events = append(r.events, stored{e, len(b)})
	r.bytes += len(b)
	drop := 0
	for ; len(r.events)-drop > 1 && (len(r.events)-drop > ringEvents || r.bytes > ringBytes); drop++ {
		r.bytes -= r.events[drop].size
	}
	clear(r.events[:drop])
	r.events = r.events[drop:]
	close(r.changed)
	r.changed = make(chan struct{})
	return e, true
}

// span is the number of the oldest event that is kept, and that of the event to come, which are the same
// where none is kept.
func (r *ring) span() (oldest, next int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next - int64(len(r.events)), r.next
}

// after returns the events after a number, at most so many, and what is closed once there are more. ok is
// false where some of them are not kept any more, or the number was never given.
func (r *ring) after(sequence int64, most int) (events []service.Event, changed <-chan struct{}, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	oldest := r.next - int64(len(r.events))
	if sequence < oldest-1 || sequence >= r.next {
		return nil, nil, false
	}
	for _, s := range r.events[sequence+1-oldest:] {
		if len(events) == most {
			break
		}
		events = append(events, s.event)
	}
	return events, r.changed, true
}
