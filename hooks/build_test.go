package hooks_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// builder is a plugin of this process that builds.
type builder struct {
	fake
	build func(ctx context.Context, r core.BuildRequest, output func(string)) (core.ImageID, error)
}

func (b builder) Build(ctx context.Context, _ core.StoreInfo, r core.BuildRequest, output func(string)) (core.ImageID, error) {
	return b.build(ctx, r, output)
}

func builds(lines ...string) builder {
	return builder{build: func(_ context.Context, _ core.BuildRequest, output func(string)) (core.ImageID, error) {
		for _, l := range lines {
			output(l)
		}
		return built, nil
	}}
}

var (
	built    = core.ImageID(id(7))
	theBuild = core.BuildRequest{Context: "/context", Names: []string{"localhost/x"}}
)

// heard collects the output of a build.
type heard []string

func (h *heard) line(s string) { *h = append(*h, s) }

func TestBuild(t *testing.T) {
	socket := func(t *testing.T) hooks.Entry {
		return socketEntry("p", serveRaw(t, t.TempDir(), "p", with("Build", func(c net.Conn, r request) bool {
			return send(c, `{"continues":true,"parameters":{"lines":["one"]}}`) && send(c, `{"continues":true,"parameters":{"lines":[]}}`) &&
				send(c, `{"continues":true,"parameters":{"lines":["two",""]}}`) &&
				send(c, `{"parameters":{"lines":["three"],"imageId":"`+string(built)+`"}}`)
		})).address())
	}
	for name, e := range map[string]hooks.Entry{"here": entry("p", builds("one", "two", "", "three")), "socket": socket(t)} {
		t.Run(name, func(t *testing.T) {
			r := registry(t, entry("other", fake{}), e)
			for _, engine := range []string{"", "p"} {
				request := theBuild
				request.Engine = engine
				var lines heard
				got, err := r.Build(t.Context(), theStore, request, lines.line)
				if err != nil || got != built || !slices.Equal(lines, []string{"one", "two", "", "three"}) {
					t.Errorf("%q: %s, %v, %q", engine, got, err, lines)
				}
			}
		})
	}
}

// TestWhoBuilds: the plugin that is named, or the only one.
func TestWhoBuilds(t *testing.T) {
	dead := socketEntry("dead", "unix:"+t.TempDir()+"/dead.sock")
	for _, test := range []struct {
		name    string
		engine  string
		entries []hooks.Entry
		// want are words of the error; empty is that it is built.
		want []string
	}{
		{"nobody", "", nil, []string{"no engine builds images here", "capability build"}},
		{"none", "", []hooks.Entry{entry("a", fake{})}, []string{"no engine builds images here", "capability build"}},
		{"one", "", []hooks.Entry{entry("a", fake{}), entry("b", builds())}, nil},
		{"several", "", []hooks.Entry{entry("a", builds()), entry("b", builds())}, []string{"a and b build images", "--engine"}},
		{"one of several", "b", []hooks.Entry{entry("a", builds()), entry("b", builds())}, nil},
		{"one that does not build", "a", []hooks.Entry{entry("a", fake{}), entry("b", builds())}, []string{"plugin a builds no images"}},
		{"one that is not there", "c", []hooks.Entry{entry("b", builds())}, []string{`there is no plugin "c"`}},
		{"one that is turned off", "", []hooks.Entry{{Name: "b", Disabled: true}}, []string{"no engine builds images here"}},
		{"perhaps one that is down", "", []hooks.Entry{dead}, []string{"no engine builds images here", "dead may, and cannot be reached"}},
		{"one besides one that is down", "", []hooks.Entry{dead, entry("b", builds())}, nil},
		{"one that is down", "dead", []hooks.Entry{dead}, []string{"dead", "it cannot be reached", "start the plugin dead"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			request := theBuild
			request.Engine = test.engine
			got, err := registry(t, test.entries...).Build(t.Context(), theStore, request, func(string) {})
			if len(test.want) == 0 && (err != nil || got != built) {
				t.Fatalf("%s, %v", got, err)
			}
			for _, w := range test.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("%v lacks %q", err, w)
				}
			}
		})
	}
	p := serveRaw(t, t.TempDir(), "p", with("Describe", described(strings.Replace(describing("p"), `,"build"`, "", 1))))
	if _, err := registry(t, socketEntry("p", p.address())).Build(t.Context(), theStore, theBuild, func(string) {}); err == nil || p.called("Build") > 0 {
		t.Errorf("asked though it does not offer it: %v", err)
	}
}

type advised struct{ error }

func (advised) Advice() string { return "do this" }

// TestBuildGoesWrong: what a plugin does wrong is its fault; that an image cannot be built is nobody's.
func TestBuildGoesWrong(t *testing.T) {
	hooks.SetSilence(t, 200*time.Millisecond)
	answer := func(id core.ImageID, err error) hooks.Plugin {
		return builder{build: func(context.Context, core.BuildRequest, func(string)) (core.ImageID, error) { return id, err }}
	}
	for _, test := range []struct {
		name   string
		plugin hooks.Plugin
		raw    answerer
		want   string
		state  hooks.State
	}{
		{"failed", answer("", errors.New("exit status 1")), nil, "build with p: exit status 1", hooks.StateReady},
		{"absent", answer("", fmt.Errorf("run it: %w", core.ErrEngineAbsent)), nil, "; install or start p", hooks.StateReady},
		{"advice", answer("", advised{errors.New("no")}), nil, "no; do this", hooks.StateReady},
		{"no ID", answer("web", nil), nil, "answered nonsense", hooks.StateUnreachable},
		{"nothing", answer("", nil), nil, "answered nonsense", hooks.StateUnreachable},
		{"panic", builder{build: func(context.Context, core.BuildRequest, func(string)) (core.ImageID, error) { panic("oh") }}, nil, "it panicked: oh", hooks.StateUnreachable},
		{"failed there", nil, saying1(`{"error":"io.unmoor.Plugin.BuildFailed","parameters":{"reason":"exit status 1"}}`), "build with p: exit status 1", hooks.StateReady},
		{"absent there", nil, saying1(`{"error":"io.unmoor.Plugin.EngineUnavailable","parameters":{"reason":"gone","absent":true}}`), "gone; install or start p", hooks.StateReady},
		{"advice there", nil, saying1(`{"error":"io.unmoor.Plugin.EngineUnavailable","parameters":{"reason":"gone","advice":"do that"}}`), "gone; do that", hooks.StateReady},
		{"another error", nil, saying1(`{"error":"io.unmoor.Plugin.Tired","parameters":{}}`), "answered nonsense", hooks.StateUnreachable},
		{"failed for nothing", nil, saying1(`{"error":"io.unmoor.Plugin.BuildFailed","parameters":{}}`), "answered nonsense", hooks.StateUnreachable},
		{"silent", nil, func(c net.Conn, _ request) bool { c.Read(make([]byte, 1)); return false }, "gave no sign of life", hooks.StateUnreachable},
		{"silent in between", nil, func(c net.Conn, _ request) bool {
			send(c, `{"continues":true,"parameters":{"lines":["one"]}}`)
			c.Read(make([]byte, 1))
			return false
		}, "gave no sign of life", hooks.StateUnreachable},
		{"hangs up", nil, func(c net.Conn, _ request) bool { return false }, "broke", hooks.StateUnreachable},
		{"no image at the end", nil, saying1(`{"parameters":{"lines":[]}}`), "does not say which image", hooks.StateUnreachable},
		{"an image before the end", nil, saying1(`{"continues":true,"parameters":{"lines":[],"imageId":"` + string(built) + `"}}`), "and goes on", hooks.StateUnreachable},
		{"an image of another form", nil, saying1(`{"parameters":{"lines":[],"imageId":"sha256:1"}}`), "answered nonsense", hooks.StateUnreachable},
		{"no lines", nil, saying1(`{"parameters":{"lines":null,"imageId":"` + string(built) + `"}}`), "answered nonsense", hooks.StateUnreachable},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := entry("p", test.plugin)
			if test.raw != nil {
				e = socketEntry("p", serveRaw(t, t.TempDir(), "p", with("Build", test.raw)).address())
			}
			r := registry(t, e)
			got, err := r.Build(t.Context(), theStore, theBuild, func(string) {})
			if err == nil || got != "" || !strings.Contains(err.Error(), test.want) || !strings.HasPrefix(err.Error(), "build with p: ") {
				t.Errorf("%s, %v", got, err)
			}
			if s := r.Status()[0]; s.State != test.state {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestBuildForLong: a build lives by its signs of life, and by lines that somebody takes his time to read.
func TestBuildForLong(t *testing.T) {
	hooks.SetSilence(t, 400*time.Millisecond)
	p := serveRaw(t, t.TempDir(), "p", with("Build", func(c net.Conn, _ request) bool {
		for range 8 {
			if !send(c, `{"continues":true,"parameters":{"lines":[]}}`) {
				return false
			}
			time.Sleep(100 * time.Millisecond)
		}
		return send(c, `{"continues":true,"parameters":{"lines":["slow"]}}`) &&
			send(c, `{"parameters":{"lines":[],"imageId":"`+string(built)+`"}}`)
	}))
	got, err := registry(t, socketEntry("p", p.address())).Build(t.Context(), theStore, theBuild, func(string) { time.Sleep(600 * time.Millisecond) })
	if err != nil || got != built {
		t.Errorf("%s, %v", got, err)
	}
}

// TestBuildGivenUp: the plugin hears of it, has time to end, and is not waited for beyond that; nor is it at
// fault.
func TestBuildGivenUp(t *testing.T) {
	noLeaks(t)
	hooks.SetEndOfBuild(t, 50*time.Millisecond)
	release, left := make(chan struct{}), make(chan struct{})
	for name, test := range map[string]struct {
		end func(ctx context.Context, output func(string))
	}{
		"ends":   {func(ctx context.Context, _ func(string)) { <-ctx.Done() }},
		"cannot": {func(_ context.Context, output func(string)) { <-release; output("late"); close(left) }},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		var lines heard
		r := registry(t, entry("p", builder{build: func(ctx context.Context, _ core.BuildRequest, output func(string)) (core.ImageID, error) {
			output("begun")
			cancel()
			test.end(ctx, output)
			return "", ctx.Err()
		}}))
		if _, err := r.Build(ctx, theStore, theBuild, lines.line); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if s := r.Status()[0]; s.State != hooks.StateReady {
			t.Errorf("%s: %+v", name, s)
		}
		if name == "cannot" {
			close(release)
			<-left
		}
		if !slices.Equal(lines, []string{"begun"}) {
			t.Errorf("%s: it was told of %q", name, lines)
		}
	}

	gone := make(chan struct{})
	p := serveRaw(t, t.TempDir(), "p", with("Build", func(c net.Conn, _ request) bool {
		send(c, `{"continues":true,"parameters":{"lines":["begun"]}}`)
		c.Read(make([]byte, 1))
		close(gone)
		return false
	}))
	ctx, cancel := context.WithCancel(t.Context())
	r := registry(t, socketEntry("p", p.address()))
	if _, err := r.Build(ctx, theStore, theBuild, func(string) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-gone
	if s := r.Status()[0]; s.State != hooks.StateReady {
		t.Errorf("%+v", s)
	}
	p.close()
}
