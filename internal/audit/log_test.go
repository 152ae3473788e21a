package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

type entry struct {
	N    int    `json:"n"`
	Text string `json:"text,omitempty"`
}

func open(t *testing.T, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func appendAll(t *testing.T, l *Log, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := l.Append(entry{N: n, Text: "0123456789"}); err != nil {
			t.Fatal(err)
		}
	}
}

// read returns the records of a file, every line of which must be one.
func read(t *testing.T, path string) []int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 0 && b[len(b)-1] != '\n' {
		t.Errorf("%s ends in the middle of a line", path)
	}
	var all []int
	for line := range strings.Lines(string(b)) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		all = append(all, e.N)
	}
	return all
}

func expect(t *testing.T, path string, from, to int) {
	t.Helper()
	got := read(t, path)
	if len(got) != to-from {
		t.Fatalf("%s has %v, want %d to %d", filepath.Base(path), got, from, to)
	}
	for i, n := range got {
		if n != from+i {
			t.Fatalf("%s has %v, want %d to %d", filepath.Base(path), got, from, to)
		}
	}
}

func TestAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a/b/audit.log")
	l := open(t, Options{Path: path, MaxSize: 1 << 20, Keep: 1})
	appendAll(t, l, 0, 3)
	expect(t, path, 0, 3)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the mode is %s", info.Mode())
	}
	if err := l.Append(make(chan int)); err == nil {
		t.Error("what is no JSON was taken")
	}
	again := open(t, Options{Path: path, MaxSize: 1 << 20, Keep: 1})
	appendAll(t, again, 3, 5)
	appendAll(t, l, 5, 6)
	expect(t, path, 0, 6)
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	line := int64(len(`{"n":0,"text":"0123456789"}`) + 1)
	l := open(t, Options{Path: path, MaxSize: 2 * line, Keep: 2})
	appendAll(t, l, 0, 2)
	expect(t, path, 0, 2)
	appendAll(t, l, 2, 9)
	expect(t, path, 8, 9)
	expect(t, path+".1", 6, 8)
	expect(t, path+".2", 4, 6)
	if entries, _ := filepath.Glob(path + "*"); len(entries) != 3 {
		t.Errorf("there are %v", entries)
	}
	if err := l.Append(entry{N: 9, Text: strings.Repeat("x", 1000)}); err != nil {
		t.Fatal(err)
	}
	expect(t, path, 9, 10) // a record larger than a file has one of its own
}

func TestRotationKeepsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, Options{Path: path, MaxSize: 1})
	appendAll(t, l, 0, 3)
	expect(t, path, 2, 3)
	if entries, _ := filepath.Glob(path + "*"); len(entries) != 1 {
		t.Errorf("there are %v", entries)
	}
}

// TestRotationThatCannotBe: the file goes on growing, and is followed once it can be.
func TestRotationThatCannotBe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, Options{Path: path, MaxSize: 1, Keep: 1})
	// A directory that is not empty is in the way of PATH.new.
	if err := os.MkdirAll(path+".new/x", 0o700); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, 0, 3)
	expect(t, path, 0, 3)
	if err := os.RemoveAll(path + ".new"); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, 3, 4)
	expect(t, path, 3, 4)
	expect(t, path+".1", 0, 3)
}

func TestMovedAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, Options{Path: path, MaxSize: 1 << 20, Keep: 1})
	appendAll(t, l, 0, 2)
	if err := os.Rename(path, path+"-old"); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, 2, 3)
	expect(t, path+"-old", 0, 2)
	expect(t, path, 2, 3)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, 3, 4)
	expect(t, path, 3, 4)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	appendAll(t, l, 4, 5)
	expect(t, path, 4, 5)
}

// TestTornLine: what a process was killed in spoils no other record.
func TestTornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte("{\"n\":0}\n{\"n\":1,\"te"), 0o600); err != nil {
		t.Fatal(err)
	}
	appendAll(t, open(t, Options{Path: path}), 2, 3)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(string(b), "\n"); len(lines) != 4 || lines[2] != `{"n":2,"text":"0123456789"}` {
		t.Errorf("got %q", b)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "pipe", "file/below", "."} {
		if l, err := Open(Options{Path: filepath.Join(dir, name)}); err == nil {
			l.Close()
			t.Errorf("%s was opened", name)
		} else if !strings.HasPrefix(err.Error(), "open the audit log") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSideBySide(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, Options{Path: path, MaxSize: 1000, Keep: 100})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() { appendAll(t, l, w*50, w*50+50) })
	}
	wg.Wait()
	seen := make(map[int]bool)
	files, _ := filepath.Glob(path + "*")
	for _, f := range files {
		for _, n := range read(t, f) {
			if seen[n] {
				t.Errorf("record %d is there twice", n)
			}
			seen[n] = true
		}
	}
	if len(seen) != 400 {
		t.Errorf("%d records of 400 in %d files", len(seen), len(files))
	}
}

// TestFullDisk: what was reserved is enough for the removal that frees the disk; then records are refused
// whole, and taken again once there is space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		lacking(t, "needs to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "audit.log")
	l, err := Open(Options{Path: path, MaxSize: 100 << 10, Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	text := strings.Repeat("x", 1000)
	n := 0
	for ; n < 10_000; n++ {
		if err = l.Append(entry{N: n, Text: text}); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("after %d records: %v", n, err)
	}
	if n < 500 {
		t.Errorf("only %d records were taken on a full disk", n)
	}
	expect(t, path, 0, n)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(entry{N: n}); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	expect(t, path, n, n+1)
	expect(t, path+".1", 0, n)
}

// appendOnly is FS_APPEND_FL (linux/fs.h).
const appendOnly = 0x20

// TestAppendOnly: a file with that attribute grows on.
func TestAppendOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, Options{Path: path, MaxSize: 1, Keep: 1})
	appendAll(t, l, 0, 1)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|appendOnly)
	}
	if err != nil {
		f.Close()
		lacking(t, "needs root and a file system with the attribute: %v", err)
	}
	t.Cleanup(func() {
		defer f.Close()
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
			t.Error(err)
		}
	})
	appendAll(t, l, 1, 3)
	again, err := Open(Options{Path: path, MaxSize: 1, Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	appendAll(t, again, 3, 5)
	expect(t, path, 0, 5)
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	l, err := Open(Options{Path: filepath.Join(b.TempDir(), "audit.log"), MaxSize: 16 << 20, Keep: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for b.Loop() {
		if err := l.Append(entry{Text: fmt.Sprint("a record of a usual size", strings.Repeat("x", 500))}); err != nil {
			b.Fatal(err)
		}
	}
}

// lacking skips a test that cannot run here; CI has what it takes, and there it is a failure.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
