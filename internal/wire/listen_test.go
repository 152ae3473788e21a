package wire

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHazard8Listen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := Listen(path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o666 {
		t.Errorf("mode %s", info.Mode())
	}
	if info, err := os.Stat(path + ".lock"); err != nil || info.Mode() != 0o600 {
		t.Errorf("the lock: %v, %v", info, err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if l, err = Listen(path, 0o600); err != nil {
		t.Fatalf("again: %v", err)
	}
	l.Close()
}

// Nobody can connect before the mode is set.
func TestHazard8ModeWhileBinding(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	path := filepath.Join(t.TempDir(), "socket")
	l, err := bind(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %s", info.Mode())
	}
}

func TestHazard8SecondInstance(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	if _, err := Listen(r.path, 0o600); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	c := r.raw(t)
	c.say(ping("still here"))
	c.expect(pong("still here"))

	// One that has locked, and does not listen yet.
	if err := os.Remove(r.path); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(r.path, 0o600); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}

	// A service manager does not lock.
	path := filepath.Join(t.TempDir(), "socket")
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := Listen(path, 0o600); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v", err)
	}
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the other's socket is gone: %v", err)
	} else {
		conn.Close()
	}
}

func TestHazard8WhatIsNoSocketStays(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	link, folder := filepath.Join(dir, "link"), filepath.Join(dir, "folder")
	if err := errors.Join(os.Symlink(target, link), os.Mkdir(folder, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{target, link, folder} {
		if _, err := Listen(path, 0o600); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
	// The lock's place is not ours to follow a link from.
	path := filepath.Join(dir, "socket")
	if err := os.Symlink(target, path+".lock"); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, 0o600); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a lock that is a link: %v", err)
	}
	for _, path := range []string{"", "@abstract", filepath.Join(dir, "none", "socket"), filepath.Join(dir, strings.Repeat("x", 120))} {
		if l, err := Listen(path, 0o600); err == nil {
			l.Close()
			t.Errorf("%q: no error", path)
		}
	}
}

func TestHazard8StaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// Close leaves what came in the socket's place.
func TestHazard8CloseRemovesOnlyOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the other's socket is gone: %v", err)
	}
	conn.Close()
}
