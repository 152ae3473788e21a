package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
)

var (
	built = core.ImageID(id(7))
	asked = core.BuildRequest{Context: "/ctx", Containerfiles: []string{"/ctx/a"}, Names: []string{"x", "y"}, Args: []string{"A=b", "C"}, Labels: []string{"l=1"},
		Target: "t", Pull: "never", NoCache: true, Layers: true, Squash: true, Format: "docker", Network: "none", Isolation: "chroot", Quiet: true}
)

func buildIn() protocol.BuildIn {
	return protocol.BuildIn{ProtocolVersion: 1, Store: must(store, protocol.FromStore), Build: must(asked, protocol.FromBuild)}
}

// TestBuild: the request goes in whole, the lines come out as they are written, the image at the end.
func TestBuild(t *testing.T) {
	step := make(chan struct{})
	v := serveFake(t, builder{build: func(_ context.Context, r core.BuildRequest, output func(string)) (core.ImageID, error) {
		if d := cmp.Diff(asked, r); d != "" {
			t.Error(d)
		}
		output("one")
		<-step
		output("two")
		return built, nil
	}}, func(s *service) { s.heartbeat = 10 * time.Millisecond })
	if d, err := call1[protocol.DescribeOut](v, protocol.MethodDescribe, nil); err != nil || !slices.Contains(d.Capabilities, "build") {
		t.Errorf("%+v, %v", d, err)
	}
	var lines []string
	var image string
	beats := 0
	err := v.dial().Stream(t.Context(), protocol.MethodBuild, buildIn(), func(parameters json.RawMessage, continues bool) error {
		var out protocol.BuildOut
		if err := wire.Decode(parameters, &out); err != nil {
			return err
		}
		if err := out.Check(!continues); err != nil {
			return err
		}
		lines = append(lines, out.Lines...)
		if len(out.Lines) == 0 && continues {
			if beats++; beats == 3 {
				close(step)
			}
		}
		if !continues {
			image = *out.ImageID
		}
		return nil
	})
	if err != nil || !slices.Equal(lines, []string{"one", "two"}) || image != string(built) || beats < 3 {
		t.Errorf("%v: %q, %s, %d signs of life", err, lines, image, beats)
	}
	out, err := call1[protocol.BuildOut](v, protocol.MethodBuild, buildIn())
	if err != nil || len(out.Lines) > 0 || out.ImageID == nil || *out.ImageID != string(built) {
		t.Errorf("without more: %+v, %v", out, err)
	}
}

func TestBuildFails(t *testing.T) {
	for _, test := range []struct {
		name string
		id   core.ImageID
		err  error
		want string
	}{
		{"failed", "", errors.New("exit status 1"), `io.unmoor.Plugin.BuildFailed {"reason":"exit status 1"}`},
		{"absent", "", fmt.Errorf("run it: %w", core.ErrEngineAbsent), `io.unmoor.Plugin.EngineUnavailable {"reason":"run it: the engine is not on this machine","absent":true}`},
		{"no ID", "web", nil, "report this as a fault of the plugin"},
		{"panic", "", nil, "panicked: oh"},
	} {
		v := serveFake(t, builder{build: func(context.Context, core.BuildRequest, func(string)) (core.ImageID, error) {
			if test.name == "panic" {
				panic("oh")
			}
			return test.id, test.err
		}}, nil)
		if _, err := call1[protocol.BuildOut](v, protocol.MethodBuild, buildIn()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		wrong := buildIn()
		wrong.Build.Context = "ctx"
		if _, err := call1[protocol.BuildOut](v, protocol.MethodBuild, wrong); err == nil || !strings.Contains(err.Error(), "InvalidParameter") {
			t.Errorf("a relative path: %v", err)
		}
	}
	v := serveFake(t, fake{}, nil)
	if _, err := call1[protocol.BuildOut](v, protocol.MethodBuild, buildIn()); err == nil || !strings.Contains(err.Error(), "MethodNotImplemented") {
		t.Errorf("one that does not build: %v", err)
	}
}

// TestBuildAbandoned: a build ends with its caller, and with the plugin, which still says so.
func TestBuildAbandoned(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	plugin := builder{build: func(ctx context.Context, _ core.BuildRequest, output func(string)) (core.ImageID, error) {
		begun <- struct{}{}
		<-ctx.Done()
		output("cleared away")
		ended <- ctx.Err()
		return "", ctx.Err()
	}}
	v := serveFake(t, plugin, nil)
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	c := v.dial()
	go func() {
		over <- c.Stream(ctx, protocol.MethodBuild, buildIn(), func(json.RawMessage, bool) error { return nil })
	}()
	<-begun
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	c = v.dial()
	var lines []string
	go func() {
		over <- c.Stream(context.Background(), protocol.MethodBuild, buildIn(), func(parameters json.RawMessage, _ bool) error {
			var out protocol.BuildOut
			err := wire.Decode(parameters, &out)
			lines = append(lines, out.Lines...)
			return err
		})
	}()
	<-begun
	v.end()
	if err := <-over; err == nil || !strings.Contains(err.Error(), "BuildFailed") || !slices.Equal(lines, []string{"cleared away"}) {
		t.Errorf("%v, %q", err, lines)
	}
	v.close()
}
