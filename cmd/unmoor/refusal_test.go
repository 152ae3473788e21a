package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
)

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{fmt.Errorf("x: %w", core.ErrImageUnknown), 1},
		{&unknownError{"x", core.ErrContainerUnknown, "unmoor"}, 1},
		{&core.BusyError{}, 2},
		{core.ErrImageInUse, 2},
		{core.ErrPlanStale, 125},
		{core.ErrStoreUnavailable, 125},
		{&core.AmbiguousError{}, 125},
		{context.Canceled, 125},
		{usagef("no such: %w", core.ErrImageUnknown), 125},
		{errBoom, 125},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: exit %d, want %d", tt.err, got, tt.want)
		}
	}
}

// What the store no longer knows in the middle of a removal is not the user's spelling.
func TestFailureIsNeverUnknown(t *testing.T) {
	f := failed{result: core.Result{Failed: []core.Failure{{Err: core.ErrContainerUnknown}}}}
	if got := f.code(); got != exitOther {
		t.Errorf("exit %d", got)
	}
}

func TestErrorWords(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&core.AmbiguousError{Reference: "3f", Candidates: []string{"3f01", "3f02"}},
			"3f could be any of 3f01, 3f02: write more of the ID, or the full name"},
		{fmt.Errorf("open the store: %w", fs.ErrPermission),
			"open the store: permission denied: run unmoor as root, or as the user that the store belongs to"},
		{fmt.Errorf("plan: %w", context.Canceled), "interrupted: plan: context canceled"},
		{errors.Join(errors.New("a"), errors.New("b\x1b")), "a\n       b?"},
		{&client.DeniedError{Address: "unix:/s", Method: "Remove"},
			"the daemon at unix:/s does not let this user call Remove: [access] in its config.toml says who may"},
		{&client.LostError{Address: "unix:/s", Err: context.Canceled},
			"interrupted: the daemon at unix:/s ends it after this: what it is doing; the same command goes on from there"},
		{&client.LostError{Address: "unix:/s", Err: context.Canceled, Open: []core.Action{{Verb: core.VerbUntag, Name: "a:1"}, {Verb: core.VerbUntag, Name: "b:1"}}},
			"interrupted: the daemon at unix:/s ends it after this: untag a:1; untag b:1; the same command goes on from there"},
		{&client.LostError{Address: "unix:/s", Err: io.ErrUnexpectedEOF},
			"the daemon at unix:/s was lost in the middle of it (unexpected EOF), and what came of it is not known; the same command goes on from there"},
	} {
		if got := errorWords(tt.err); got != tt.want {
			t.Errorf("got  %q\nwant %q", got, tt.want)
		}
	}
}

func TestBadInput(t *testing.T) {
	ambiguous := func() *fake { f := newFake(); f.image("3f01"); f.image("3f02"); return f }
	twoContainers := func() *fake {
		f := newFake()
		f.container("c101", "a", "")
		f.container("c102", "b", "")
		return f
	}
	closed := func() *fake {
		f := newFake()
		f.openErr = fmt.Errorf("open /store: %w", fs.ErrPermission)
		return f
	}
	for _, tt := range []struct {
		name string
		on   func() *fake
		args string
		code int
		want string
	}{
		{"an unknown image", newFake, "rmi nope", 1, "Error: no such image nope: unmoor images lists what there is\n"},
		{"an unknown image, ignored", newFake, "rmi -i nope", 0, ""},
		{"an unknown container", newFake, "rm nope", 1, "Error: no such container nope: unmoor ps lists what there is\n"},
		{"an ambiguous image", ambiguous, "rmi 3f", 125, "3f could be any of 3f0100000000, 3f0200000000"},
		{"an ambiguous image is not ignored", ambiguous, "rmi -i 3f", 125, "3f could be any of"},
		{"an ambiguous container", twoContainers, "rm c1", 125, "c1 could be any of"},
		{"force and a word", single, "rmi --force kill web:1", 125, "--force=kill. Nothing was changed"},
		{"force and a word of another level", single, "rmi -f idle web:1", 125, "--force=idle. Nothing was changed"},
		{"no permission", closed, "ps", 125, "permission denied: run unmoor as root"},
		{"a configuration that is not there", newFake, "--config /nonexistent.toml ps", 125, "/nonexistent.toml"},
	} {
		ways(t, tt.name, func(t *testing.T, on func(*fake) caller) {
			f := tt.on()
			caller := on(f)
			if f.openErr != nil && caller.socket != "" {
				return // the daemon's store is open
			}
			got := caller.call(t, strings.Fields(tt.args)...)
			if got.code != tt.code || !strings.Contains(got.stderr, tt.want) || (tt.want == "" && got.stderr != "") {
				t.Errorf("exit %d, want %d; said %q, want %q", got.code, tt.code, got.stderr, tt.want)
			}
			if f.changes > 0 {
				t.Errorf("%d changes were made", f.changes)
			}
		})
	}
}

func TestQuoted(t *testing.T) {
	for in, want := range map[string]string{"localhost/web:1": "localhost/web:1", "a b": "'a b'", "it's": `'it'\''s'`, "": "''"} {
		if got := quoted(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestForceFlag(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string
	}{
		{"plan --format json web:1", "none"},
		{"plan -f --format json web:1", "stop"},
		{"plan -fq --format json web:1", "stop"},
		{"plan --force --format json web:1", "stop"},
		{"plan --force=true --format json web:1", "stop"},
		{"plan --force=idle --format json web:1", "idle"},
		{"plan -f=kill --format json web:1", "kill"},
	} {
		got := single().call(t, strings.Fields(tt.args)...)
		if !strings.Contains(got.stdout, fmt.Sprintf("\"force\": %q", tt.want)) {
			t.Errorf("%s: %s%s", tt.args, got.stdout, got.stderr)
		}
	}
}
