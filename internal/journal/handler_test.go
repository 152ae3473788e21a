package journal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestHandler(t *testing.T) {
	var b bytes.Buffer
	level := new(slog.LevelVar)
	l := slog.New(New(&b, level))
	l.Debug("no")
	l.Info("a removal has ended", "operation", "x y")
	l.With("a", 1).WithGroup("g").Warn("two\nlines", "level", "kept", "error", errors.New("one\ntwo"))
	l.Error("e")
	level.Set(slog.LevelDebug)
	l.Debug("d")
	level.Set(slog.LevelError)
	l.Warn("no")
	const want = `<6>msg="a removal has ended" operation="x y"
<4>msg="two\nlines" a=1 g.level=kept g.error="one\ntwo"
<3>msg=e
<7>msg=d
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestLinesAreWhole(t *testing.T) {
	var b bytes.Buffer
	l := slog.New(New(&b, slog.LevelInfo))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				l.With("x", "y").Info("message")
			}
		})
	}
	wg.Wait()
	if got := b.String(); got != strings.Repeat("<6>msg=message x=y\n", 800) {
		t.Errorf("lines are mixed: %.200s", got)
	}
}

func TestListens(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	for value, want := range map[string]bool{
		"":                                       false,
		"1:2":                                    false,
		fmt.Sprintf("%d:%d", stat.Dev, stat.Ino): true,
	} {
		t.Setenv("JOURNAL_STREAM", value)
		if Listens(f) != want {
			t.Errorf("%q: %v", value, !want)
		}
	}
}
