package main

import (
	"regexp"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
)

// interrupted is a store in which an earlier run died when it had deleted web:1, with a parent left.
func interrupted() (f *fake, parent core.ImageID) {
	f = newFake()
	parent = f.image("aa11")
	f.image("44aa", "localhost/other:latest")
	image := core.Image{ID: core.ImageID(id("3f2a9c")), Names: []string{"localhost/web:1"}}
	f.completed = []core.Interrupted{{Image: image, Rest: []core.ImageID{parent}}}
	return f, parent
}

func TestInterruptedRemoval(t *testing.T) {
	for _, tt := range []struct {
		args            string
		code            int
		gone, concluded bool
		damage          func(f *fake)
	}{
		{args: "rmi web:1", gone: true, concluded: true},
		{args: "rmi --force=kill web:1", gone: true, concluded: true},
		{args: "rmi other", gone: true, concluded: true},
		{args: "rmi --all", gone: true, concluded: true},
		{args: "rmi --no-prune web:1", concluded: true},
		{args: "rmi --no-prune other"},
		{args: "rmi --dry-run web:1", code: 1},
		{args: "rmi --force=kill web:1", concluded: true, damage: func(f *fake) { f.container("c1", "user", core.ImageID(id("aa11"))) }},
		{args: "rmi web:1", code: 125, damage: func(f *fake) { f.deleteErr = errBoom }},
	} {
		ways(t, tt.args, func(t *testing.T, on func(*fake) caller) {
			f, parent := interrupted()
			if tt.damage != nil {
				tt.damage(f)
			}
			caller := on(f)
			got := caller.call(t, strings.Fields(tt.args)...)
			if got.code != tt.code {
				t.Errorf("exit %d, want %d: %+v", got.code, tt.code, got)
			}
			if _, there := f.snapshot.Image(parent); there == tt.gone {
				t.Errorf("the parent is there: %v; %+v", there, got)
			}
			if (len(f.completed) == 0) != tt.concluded {
				t.Errorf("announced: %+v; %+v", f.completed, got)
			}
			if tt.concluded {
				if got := caller.call(t, "rmi", "web:1"); got.code != 1 {
					t.Errorf("once more: %+v", got)
				}
			}
		})
	}
}

func TestRemovalByRevision(t *testing.T) { ways(t, "", removalByRevision) }

func removalByRevision(t *testing.T, on func(*fake) caller) {
	f := newFake()
	caller := on(f)
	web := f.image("3f2a9c", "localhost/web:1")
	old := f.container("c1", "old", web)
	revision := func(args ...string) string {
		got := caller.call(t, append(args, "--format", "json")...)
		m := regexp.MustCompile(`"revision": "([0-9a-f]{64})"`).FindStringSubmatch(got.stdout)
		if m == nil {
			t.Fatalf("%v: %+v", args, got)
		}
		return m[1]
	}
	planned := revision("plan", "--force=idle", "web:1")
	for _, args := range [][]string{
		{"rmi", "--force=stop", "web:1"}, {"rmi", "--force=idle", "web:1", "-q"}, {"rm", "old"},
	} {
		if args[1] == "--force=idle" {
			f.container("c2", "new", web)
		}
		got := caller.call(t, append(args, "--plan", planned)...)
		if got.code != exitInUse || f.changes > 0 || !strings.Contains(got.stderr, "nothing was changed") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if got := caller.call(t, "rmi", "--force=idle", "localhost/web:1", "--plan", revision("plan", "--force=idle", "web:1")); got.code != exitDone {
		t.Errorf("the plan that holds: %+v", got)
	}
	if _, there := f.snapshot.Container(old); there {
		t.Error("it was not carried out")
	}
	if got := caller.call(t, "rmi", "--plan", "12", "web:1"); got.code != exitOther || !strings.Contains(got.stderr, "64 hexadecimal digits") {
		t.Errorf("no revision: %+v", got)
	}
}
