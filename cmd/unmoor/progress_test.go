package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

func TestProgressLine(t *testing.T) {
	p := newProgress(io.Discard, 10*time.Second)
	start := func(verb core.Verb, owner, name string) {
		p.tell(core.Progress{Phase: core.PhaseStarted, Action: core.Action{Verb: verb, Container: core.ContainerID(id(name)), Owner: owner, Name: name}})
	}
	end := func(verb core.Verb, phase core.Phase, name string) {
		p.tell(core.Progress{Phase: phase, Action: core.Action{Verb: verb, Container: core.ContainerID(id(name)), Name: name}})
	}
	later := func() time.Time { return time.Now().Add(3500 * time.Millisecond) }
	want := func(want string) {
		t.Helper()
		if got := p.line(later()); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
	want("")
	start(core.VerbStop, "podman", "web")
	want("3 of 10 s, waiting for web (podman) to stop")
	for i := range 4 {
		start(core.VerbStop, "podman", fmt.Sprintf("db%d", i))
	}
	want("3 of 10 s, waiting for web (podman), db0 (podman), db1 (podman) and 2 more to stop")
	end(core.VerbStop, core.PhaseFailed, "web")
	for i := range 4 {
		end(core.VerbStop, core.PhaseFinished, fmt.Sprintf("db%d", i))
	}
	want("")
	start(core.VerbDeleteContainer, "", "old")
	end(core.VerbDeleteContainer, core.PhaseFinished, "old")
	start(core.VerbDeleteContainer, "", "x\x1b[2J")
	want("3 s, 1 container removed, removing x?[2J")
}

func TestProgressIsSilentOffTerminal(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, time.Second)
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			p.tell(core.Progress{Phase: core.PhaseStarted, Action: core.Action{Verb: core.VerbStop, Name: fmt.Sprint(i)}})
		})
	}
	wg.Wait()
	p.finish()
	if out.Len() > 0 {
		t.Errorf("wrote %q", out.String())
	}
}
