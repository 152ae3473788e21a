package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unmoor/unmoor/core"
)

// building has an engine that builds.
func building() *fake {
	f := single()
	f.building = func(_ context.Context, r core.BuildRequest, output func(string)) error {
		output(fmt.Sprintf("STEP 1/2: FROM base (pull %q, layers %t)", r.Pull, r.Layers))
		if r.Target == "broken" {
			return errors.New("build with buildah: exit status 1: no such stage")
		}
		output("COMMIT " + strings.Join(r.Names, " "))
		return nil
	}
	return f
}

// TestBuildRequest: the flags say what Buildah's say, and mean the same on the other side.
func TestBuildRequest(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, name := range []string{"Containerfile.here", "ctx/sub/Containerfile"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("FROM scratch\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("FROM_HERE", "value")
	ways(t, "", func(t *testing.T, on func(*fake) caller) {
		requests := make(chan core.BuildRequest, 1)
		f := single()
		f.building = func(_ context.Context, r core.BuildRequest, _ func(string)) error { requests <- r; return nil }
		caller := on(f)
		for args, want := range map[string]core.BuildRequest{
			"build":            {Context: dir},
			"build ctx --pull": {Context: dir + "/ctx", Pull: "always"},
			"build -f Containerfile.here -f sub/Containerfile -f /abs ctx": {Context: dir + "/ctx",
				Containerfiles: []string{dir + "/Containerfile.here", dir + "/ctx/sub/Containerfile", "/abs"}},
			"build --build-arg A=1 --build-arg FROM_HERE --build-arg NOT_SET --label a=b --label c --engine e /": {Context: "/", Engine: "e",
				Args: []string{"A=1", "FROM_HERE=value"}, Labels: []string{"a=b", "c"}},
			"build -t a --tag b:2 --target t --pull=newer --no-cache --layers --squash --format docker --network none --isolation chroot -q /": {Context: "/",
				Names: []string{"a", "b:2"}, Target: "t", Pull: "newer", NoCache: true, Layers: true, Squash: true, Format: "docker",
				Network: "none", Isolation: "chroot", Quiet: true},
		} {
			if c := caller.call(t, strings.Fields(args)...); c.code != 0 || c.stdout != id("77aa")+"\n" || c.stderr != "" {
				t.Fatalf("%s: %+v", args, c)
			}
			if d := cmp.Diff(want, <-requests, cmpopts.EquateEmpty()); d != "" {
				t.Errorf("%s: %s", args, d)
			}
		}
		for args, want := range map[string]string{
			"build a b":                     `"b" is one too many`,
			"build --pull=often .":          "pull is always, missing, never or newer",
			"build --format rar .":          "oci or docker",
			"build --tag= .":                "no name of an image",
			"build -f - .":                  "--file wants a file",
			"build https://example.org/ctx": "the context is a directory",
		} {
			if c := caller.call(t, strings.Fields(args)...); c.code != 125 || !strings.Contains(c.stderr, want) {
				t.Errorf("%s: %+v", args, c)
			}
		}
	})
}

func TestBuildIDFile(t *testing.T) {
	ways(t, "", func(t *testing.T, on func(*fake) caller) {
		file := filepath.Join(t.TempDir(), "id")
		caller := on(building())
		c := caller.call(t, "build", "--iidfile", file, "/")
		if b, err := os.ReadFile(file); err != nil || string(b) != "sha256:"+id("77aa") || c.code != 0 || strings.Contains(c.stdout, id("77aa")) {
			t.Errorf("%q, %v, %+v", b, err, c)
		}
		c = caller.call(t, "build", "--iidfile", filepath.Join(file, "below"), "/")
		if c.code != 125 || !strings.Contains(c.stderr, "was built; write its ID") {
			t.Errorf("%+v", c)
		}
	})
}

// TestBuildInterrupted: an interrupt ends the build, here and there.
func TestBuildInterrupted(t *testing.T) {
	ways(t, "", func(t *testing.T, on func(*fake) caller) {
		begun, ended := make(chan struct{}), make(chan struct{})
		f := single()
		f.building = func(ctx context.Context, _ core.BuildRequest, output func(string)) error {
			output("begun")
			close(begun)
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		}
		var stdout, stderr screen
		app := on(f).app(t, &stdout, &stderr)
		ctx, cancel := context.WithCancel(t.Context())
		code := make(chan int, 1)
		go func() { code <- app.run(ctx, []string{"build", "/"}) }()
		<-begun
		cancel()
		if c := <-code; c != 125 || !strings.HasPrefix(stderr.String(), "Error: interrupted: ") {
			t.Errorf("exit %d: %s", c, &stderr)
		}
		<-ended
		if len(f.snapshot.Images) != 1 {
			t.Errorf("%+v", f.snapshot.Images)
		}
	})
}

func TestBuiltEvent(t *testing.T) {
	f := building()
	caller := caller{fake: f, socket: f.serve(t, core.Protection{})}
	if c := caller.call(t, "build", "-t", "localhost/new:1", "/"); c.code != 0 {
		t.Fatalf("%+v", c)
	}
	c := caller.call(t, "events", "--stream=false", "--format", "{{.Type}} {{.Object}} {{.ID}} {{.Name}}")
	if c.stdout != "image_built image "+id("77aa")+" localhost/new:1\n" {
		t.Errorf("%+v", c)
	}
}
