package main

import (
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// terminal is what was written to a terminal.
type terminal struct {
	mu sync.Mutex
	b  bytes.Buffer
	// keyboard is what somebody types on.
	keyboard io.Writer
}

func (s *terminal) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newTerminal makes a terminal of that many columns.
func newTerminal(t *testing.T, columns uint16) (tty *os.File, s *terminal) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	s = &terminal{keyboard: master}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b) // an error once the other side is closed
			if err != nil {
				return
			}
			s.mu.Lock()
			s.b.Write(b[:n])
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = tty.Close() // the test may have
		<-ended
		_ = master.Close() // only read from
	})
	return tty, s
}

func TestProgressOnTerminal(t *testing.T) {
	const clear = "\r\x1b[K"
	eventually := func(what string, condition func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("waited in vain until %s", what)
			}
		}
	}
	tty, screen := newTerminal(t, 40)
	p := newProgress(tty, 10*time.Second)
	web := core.Action{Verb: core.VerbStop, Container: core.ContainerID(id("c1")), Owner: "podman", Name: "web"}
	p.tell(core.Progress{Phase: core.PhaseStarted, Action: web})
	long := web
	long.Container, long.Name = core.ContainerID(id("c2")), strings.Repeat("long", 20)
	p.tell(core.Progress{Phase: core.PhaseStarted, Action: long})
	eventually("the line is drawn three times", func() bool { return strings.Count(screen.String(), clear) >= 3 })
	for i, line := range strings.Split(screen.String(), clear) {
		if i == 0 && line != "" {
			t.Errorf("before the first line there is %q", line)
		}
		if n := len([]rune(line)); n > 39 {
			t.Errorf("a line of %d characters wraps at 40 columns: %q", n, line)
		}
	}
	if s := screen.String(); !strings.Contains(s, " of 10 s, waiting for web") || strings.Contains(s, "\n") {
		t.Errorf("%q", s)
	}

	// Nothing to wait for: the line is taken away, once.
	p.tell(core.Progress{Phase: core.PhaseFinished, Action: web})
	p.tell(core.Progress{Phase: core.PhaseFinished, Action: long})
	eventually("the line is taken away", func() bool { return strings.HasSuffix(screen.String(), clear) })

	p.tell(core.Progress{Phase: core.PhaseStarted, Action: web})
	eventually("the line is there again", func() bool { return !strings.HasSuffix(screen.String(), clear) })
	p.finish()
	eventually("finish takes it away", func() bool { return strings.HasSuffix(screen.String(), clear) })
	was := screen.String()
	p.tell(core.Progress{Phase: core.PhaseStarted, Action: long})
	if _, err := tty.WriteString("the end"); err != nil {
		t.Fatal(err)
	}
	eventually("the report is there", func() bool { return screen.String() != was })
	if s := screen.String(); s != was+"the end" {
		t.Errorf("after finish there came %q", strings.TrimPrefix(s, was))
	}
}
