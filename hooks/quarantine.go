package hooks

import (
	"fmt"
	"time"
)

// A plugin that fails three times within a minute, by silence, nonsense or breaking, is left alone for a
// while. Then it is asked again; another failure doubles the time, and one right answer ends it all.
const (
	failuresAllowed = 2
	failuresWithin  = time.Minute
	firstQuarantine = 30 * time.Second
	lastQuarantine  = 10 * time.Minute
)

type quarantine struct {
	failures []time.Time
	// rounds is how often it was imposed since the last right answer.
	rounds int
	until  time.Time
	// last is the failure that was the last straw.
	last *fault
}

// fail notes a failure, and says whether the quarantine begins with it. A call that was made before it
// began does not count.
func (q *quarantine) fail(now time.Time, f *fault) bool {
	if q.holds(now) {
		return false
	}
	recent := q.failures[:0]
	for _, t := range q.failures {
		if now.Sub(t) < failuresWithin {
			recent = append(recent, t)
		}
	}
	q.failures = append(recent, now)
	if q.rounds == 0 && len(q.failures) <= failuresAllowed {
		return false
	}
	length := lastQuarantine
	if q.rounds < 8 {
		length = min(firstQuarantine<<q.rounds, lastQuarantine)
	}
	*q = quarantine{rounds: q.rounds + 1, until: now.Add(length), last: f}
	return true
}

func (q *quarantine) holds(now time.Time) bool { return now.Before(q.until) }

// fault is the reason not to ask.
func (q *quarantine) fault(name string) *fault {
	at := q.until.Format(time.TimeOnly)
	return &fault{faultQuarantined, &quarantineError{
		fmt.Errorf("it is in quarantine until %s, since it failed again and again; at last it %s", at, q.last.clause()),
		fmt.Sprintf("see why the plugin %s fails, and restart it (it is asked again at %s)", name, at),
	}}
}

type quarantineError struct {
	error
	advice string
}

func (e *quarantineError) Advice() string { return e.advice }
