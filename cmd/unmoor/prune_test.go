package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/config"
)

// Somebody is asked, having seen the plan, and only a yes is one.
func TestPruneAsks(t *testing.T) {
	for answer, agreed := range map[string]bool{"y\n": true, " YES \n": true, "n\n": false, "\n": false, "yesterday\n": false, "\x04": false} {
		f := attic()
		tty, screen := newTerminal(t, 200)
		var stdout bytes.Buffer
		a := caller{fake: f}.app(t, &stdout, tty)
		a.in = tty
		if _, err := io.WriteString(screen.keyboard, answer); err != nil {
			t.Fatal(err)
		}
		if code := a.run(t.Context(), []string{"prune", "--all"}); code != exitDone {
			t.Errorf("%q: exit %d, %s", answer, code, screen)
		}
		if (f.changes > 0) != agreed || strings.Contains(stdout.String(), "Deleted: ") != agreed {
			t.Errorf("%q: %d changes, %s", answer, f.changes, stdout.String())
		}
		for _, want := range []string{"delete image localhost/app:1 (bb1100000000)", "This would free about 12.3MB. Go on? [y/N] "} {
			screen.wait(t, want)
		}
	}
}

func TestPruneWithNobodyToAsk(t *testing.T) {
	f := attic()
	for name, in := range map[string]io.Reader{"nothing": nil, "a pipe": strings.NewReader("y\n")} {
		var stdout, stderr bytes.Buffer
		a := caller{fake: f}.app(t, &stdout, &stderr)
		a.in = in
		if code := a.run(t.Context(), []string{"prune"}); code != exitOther || !strings.Contains(stderr.String(), "no terminal to ask at: give --force, or --dry-run") {
			t.Errorf("%s: exit %d, %s", name, code, &stderr)
		}
	}
	if f.changes > 0 {
		t.Errorf("%d changes", f.changes)
	}
}

// A plan that nobody would read to its end is cut, and one that changes under its reader is not carried out.
func TestPruneAsksAboutMany(t *testing.T) {
	f := newFake()
	for n := range 30 {
		f.image(fmt.Sprintf("aa%02d", n))
	}
	tty, screen := newTerminal(t, 200)
	var stdout bytes.Buffer
	a := caller{fake: f}.app(t, &stdout, tty)
	if _, err := io.WriteString(screen.keyboard, "y\n"); err != nil {
		t.Fatal(err)
	}
	a.in = tty
	opened := a.open
	a.open = func(ctx context.Context, c config.Config) (*machine, error) {
		m, err := opened(ctx, c)
		snapshots := 0
		m.engine.Store = changing{m.engine.Store, func() {
			if snapshots++; snapshots == 2 {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.snapshot.Images[0].Names = []string{"localhost/named:1"}
			}
		}}
		return m, err
	}
	if code := a.run(t.Context(), []string{"prune"}); code != exitInUse || f.changes > 0 {
		t.Errorf("exit %d, %d changes, %s", code, f.changes, screen)
	}
	screen.wait(t, "nothing was changed")
	if s := screen.String(); strings.Count(s, "delete image") != 20 || !strings.Contains(s, "and 10 more (--dry-run names them)") {
		t.Errorf("%s", s)
	}
}

// wait waits until a text is on the screen.
func (s *terminal) wait(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(s.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q is not on the screen: %s", text, s)
		}
	}
}

// changing is a store that changes before it is read.
type changing struct {
	core.Store
	before func()
}

func (c changing) Snapshot(ctx context.Context) (*core.Snapshot, error) {
	c.before()
	return c.Store.Snapshot(ctx)
}

// Labels are read where a filter goes by them, and nowhere else.
func TestPruneReadsLabels(t *testing.T) {
	for args, want := range map[string]bool{"--filter label=a": true, "--filter label!=a --all": true, "--filter until=1h": false, "": false} {
		a := caller{fake: attic()}.app(t, io.Discard, io.Discard)
		if code := a.run(t.Context(), append([]string{"prune", "--force"}, strings.Fields(args)...)); code != exitDone || a.labels != want {
			t.Errorf("%q: exit %d, labels %v", args, code, a.labels)
		}
	}
}

func TestPruneUsage(t *testing.T) {
	for args, want := range map[string]string{
		"--keep 2":                     "images of a repository have names",
		"--filter colour=red":          "filter colour=red: wants one of the keys until",
		"--filter until=x":             "wants so long ago",
		"--high 90":                    "--high and --low belong together",
		"--high 90 --low 80":           "go with --when-full",
		"--when-full --high 9 --low 9": "100 >= high > low >= 0",
		"--when-full --stopped":        "takes images alone",
		"--unused-for soon":            "wants a length of time such as",
		"--high 101% --low 1":          "wants a part of a hundred, such as 85%",
		"--plan x":                     "64 hexadecimal digits",
		"--format {{.Nothing}}":        "--format",
		"web":                          "one argument too many",
	} {
		got := attic().call(t, append([]string{"prune", "--force"}, strings.Fields(args)...)...)
		if got.code != exitOther || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: exit %d, %s", args, got.code, got.stderr)
		}
	}
}

// The map is written whole, for its owner alone.
func TestDfDraws(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.html")
	got := attic().call(t, "df", "--html", path)
	text, err := os.ReadFile(path)
	if err != nil || got.code != exitDone || got.stdout != path+" shows the store\n" {
		t.Fatalf("%+v %v", got, err)
	}
	for _, want := range []string{"<!DOCTYPE html>", "web-working-container", "localhost/app:1", "sleep 1000"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%q is not in the map", want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if got := attic().call(t, "df", "--html", "-"); !strings.HasPrefix(got.stdout, "<!DOCTYPE html>") {
		t.Errorf("%+v", got)
	}
	if got := attic().call(t, "df", "--html", "/nowhere/x.html"); got.code != exitOther || !strings.Contains(got.stderr, "draw the map") {
		t.Errorf("%+v", got)
	}
	for _, args := range []string{"--html x -v", "--html x --format json", "-v --format {{.Type}}", "--format {{.Nothing}}"} {
		if got := attic().call(t, append([]string{"df"}, strings.Fields(args)...)...); got.code != exitOther {
			t.Errorf("%s: %+v", args, got)
		}
	}
}
