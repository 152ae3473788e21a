package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/unmoor/unmoor/core"
)

// progress is a line on a terminal that says what is being waited for. Where its writer is no
// terminal it says nothing.
type progress struct {
	// grace is negative where it is not known.
	grace time.Duration
	width int

	done chan struct{}
	wait sync.WaitGroup

	// mu guards what follows.
	mu sync.Mutex
	// w is nil where nothing is shown.
	w       io.Writer
	waiting []waiting
	removed int
	shown   bool
}

type waiting struct {
	action core.Action
	since  time.Time
}

func newProgress(w io.Writer, grace time.Duration) *progress {
	p := &progress{grace: grace, done: make(chan struct{})}
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return p
	}
	p.w, p.width = w, 80
	if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 10 {
		p.width = width
	}
	p.wait.Go(func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-p.done:
				return
			case <-tick.C:
				p.show(time.Now())
			}
		}
	})
	return p
}

// tell is core.Engine's Progress.
func (p *progress) tell(e core.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Phase == core.PhaseStarted {
		p.waiting = append(p.waiting, waiting{e.Action, time.Now()})
		return
	}
	for i, w := range p.waiting {
		if w.action.Verb == e.Action.Verb && target(w.action) == target(e.Action) && w.action.Name == e.Action.Name {
			p.waiting = slices.Delete(p.waiting, i, i+1)
			break
		}
	}
	if e.Phase == core.PhaseFinished && (e.Action.Verb == core.VerbRemove || e.Action.Verb == core.VerbDeleteContainer) {
		p.removed++
	}
}

// show draws the line anew.
func (p *progress) show(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := p.line(now)
	if line == "" && !p.shown {
		return
	}
	p.shown = line != ""
	fmt.Fprintf(p.w, "\r\x1b[K%s", cut(line, p.width-1))
}

// line says how long already, and who is waited for, which may be cut; the stops before the rest, since they take
// time.
func (p *progress) line(now time.Time) string {
	if len(p.waiting) == 0 {
		return ""
	}
	of := p.waiting
	if stops := slices.DeleteFunc(slices.Clone(of), func(w waiting) bool {
		return w.action.Verb != core.VerbStop && w.action.Verb != core.VerbKill
	}); len(stops) > 0 {
		of = stops
	}
	since := of[0].since
	var names []string
	for _, w := range of {
		if w.since.Before(since) {
			since = w.since
		}
		if len(names) < 3 {
			name := w.action.Name
			if name == "" {
				name = short(target(w.action))
			}
			if w.action.Owner != "" {
				name += " (" + w.action.Owner + ")"
			}
			names = append(names, plain(name))
		}
	}
	who := strings.Join(names, ", ")
	if more := len(of) - len(names); more > 0 {
		who += fmt.Sprintf(" and %d more", more)
	}
	seconds := int(now.Sub(since).Seconds())
	switch of[0].action.Verb {
	case core.VerbStop:
		return fmt.Sprintf("%s, waiting for %s to stop", p.of(seconds), who)
	case core.VerbKill:
		return fmt.Sprintf("%s, waiting for the processes in %s to end", p.of(seconds), who)
	case core.VerbRemove, core.VerbUnmount, core.VerbDeleteContainer, core.VerbUntag, core.VerbDeleteImage:
	}
	if p.removed > 0 {
		return fmt.Sprintf("%d s, %s removed, removing %s", seconds, plural(p.removed, "container"), who)
	}
	return fmt.Sprintf("%d s, removing %s", seconds, who)
}

// of is how much of the grace period has passed.
func (p *progress) of(seconds int) string {
	if p.grace < 0 {
		return fmt.Sprintf("%d s", seconds)
	}
	return fmt.Sprintf("%d of %d s", seconds, int(p.grace.Seconds()))
}

// finish takes the line away.
func (p *progress) finish() {
	close(p.done)
	p.wait.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}
