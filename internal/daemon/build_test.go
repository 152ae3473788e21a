package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
)

var buildIn = object{"build": object{"context": "/ctx", "names": []string{"localhost/new"}, "arguments": []string{"TOKEN=secret"}, "layers": true}}

// builds is a service that builds the image 7 as the function says.
func builds(build func(ctx context.Context, r core.BuildRequest, output func(string)) error) *fakeService {
	f := newFakeService(0)
	f.build = func(ctx context.Context, r core.BuildRequest, output func(string)) (*service.Built, error) {
		if err := build(ctx, r, output); err != nil {
			return nil, err
		}
		return &service.Built{Image: core.ImageID(id(7)), Names: []string{"localhost/new:latest"}}, nil
	}
	return f
}

func TestBuild(t *testing.T) {
	s := serve(t, builds(func(_ context.Context, r core.BuildRequest, output func(string)) error {
		if r.Context != "/ctx" || !r.Layers || r.Squash || !slices.Equal(r.Args, []string{"TOKEN=secret"}) {
			t.Errorf("%+v", r)
		}
		output("STEP 1/1: FROM web")
		output("")
		return nil
	}), Options{})
	all, failed, p := s.all("Build", buildIn)
	if failed != "" || len(all) != 3 || all[0]["lines"].([]any)[0] != "STEP 1/1: FROM web" || all[1]["lines"].([]any)[0] != "" ||
		all[2]["imageId"] != id(7) || all[2]["names"].([]any)[0] != "localhost/new:latest" || all[0]["operationId"] != all[2]["operationId"] {
		t.Errorf("%v %s %v", all, failed, p)
	}
	if out, failed := s.call("Build", buildIn); failed != "" || out["imageId"] != id(7) || len(out["lines"].([]any)) != 0 {
		t.Errorf("without more: %v %s", out, failed)
	}
	r := s.records()
	if words(r) != "begun Build, ended Build, begun Build, ended Build" || r[0].Request.Context != "/ctx" || r[0].Caller.UID != os.Getuid() ||
		len(r[1].Outcome.Done) != 1 || r[1].Outcome.Done[0].Image != id(7) || r[1].Operation != all[2]["operationId"] {
		t.Errorf("%s: %+v", words(r), r)
	}
	if log, err := os.ReadFile(s.audit); err != nil || strings.Contains(string(log), "secret") {
		t.Errorf("an argument's value is in the audit log (%v)", err)
	}
	events, _, ok := s.daemon.events.after(s.first(), 10)
	if !ok || len(events) != 2 || events[0].Type != service.EventImageBuilt || events[0].Image != core.ImageID(id(7)) ||
		!slices.Equal(events[0].Names, []string{"localhost/new:latest"}) || *events[0].UID != os.Getuid() || events[0].Operation != r[0].Operation {
		t.Errorf("%+v", events)
	}
}

// first is the number before the first event.
func (s *scene) first() int64 {
	oldest, _ := s.daemon.events.span()
	return oldest - 1
}

func TestBuildFails(t *testing.T) {
	s := serve(t, builds(func(context.Context, core.BuildRequest, func(string)) error { return errors.New("exit status 1") }), Options{})
	if p, failed := s.call("Build", buildIn); failed != "BuildFailed" || p["reason"] != "exit status 1" {
		t.Errorf("%s %v", failed, p)
	}
	if r := s.records(); words(r) != "begun Build, ended Build" || r[1].Error != "exit status 1" || r[1].Outcome != nil {
		t.Errorf("%+v", r)
	}
	if events, _, _ := s.daemon.events.after(s.first(), 10); len(events) > 0 {
		t.Errorf("%+v", events)
	}
	for _, wrong := range []object{{"context": "ctx"}, {"context": "/ctx", "pull": "perhaps"}, {"context": "/ctx", "names": []string{""}}, {"context": "/ctx\x00"}} {
		if p, failed := s.call("Build", object{"build": wrong}); failed != "org.varlink.service.InvalidParameter" || p["parameter"] != "build" {
			t.Errorf("%v: %s %v", wrong, failed, p)
		}
	}
}

// TestBuildAbandoned: a caller that goes away ends the build, and so does the daemon's end.
func TestBuildAbandoned(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	waiting := func() *fakeService {
		return builds(func(ctx context.Context, _ core.BuildRequest, output func(string)) error {
			output("begun")
			begun <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		})
	}
	s := serve(t, waiting(), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() {
		over <- s.dial().Stream(ctx, methodPrefix+"Build", buildIn, func(json.RawMessage, bool) error { return nil })
	}()
	<-begun
	cancel()
	if err := <-over; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.eventually("it is written down", func() bool { return words(s.records()) == "begun Build, ended Build" })

	answer := make(chan string, 1)
	go func() {
		_, failed, p := s.all("Build", buildIn)
		answer <- fmt.Sprint(failed, p)
	}()
	<-begun
	stopping, done := context.WithTimeout(t.Context(), 10*time.Second)
	defer done()
	if err := s.daemon.Stop(stopping); err != nil {
		t.Error(err)
	}
	if got := <-answer; !strings.Contains(got, "BuildFailed") || !strings.Contains(got, "stopping") {
		t.Error(got)
	}
}

// TestManyBuilds: no number of them keeps others from being answered, and one too many is told so.
func TestManyBuilds(t *testing.T) {
	begun, release := make(chan struct{}, buildsAtOnce), make(chan struct{})
	s := serve(t, builds(func(context.Context, core.BuildRequest, func(string)) error {
		begun <- struct{}{}
		<-release
		return nil
	}), Options{})
	over := make(chan string, buildsAtOnce)
	for range buildsAtOnce {
		go func() {
			_, failed := s.call("Build", buildIn)
			over <- failed
		}()
		<-begun
	}
	if p, failed := s.call("Build", buildIn); failed != "BuildFailed" || !strings.Contains(p["reason"].(string), "try again") {
		t.Errorf("%s %v", failed, p)
	}
	if _, failed := s.call("RemoveImage", object{"image": id(1)}); failed != "" {
		t.Errorf("a removal waits for builds: %s", failed)
	}
	close(release)
	for range buildsAtOnce {
		if failed := <-over; failed != "" {
			t.Error(failed)
		}
	}
}
