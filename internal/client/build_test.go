package client_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
)

const (
	builtLine = `{"continues":true,"parameters":{"operationId":"1","lines":["STEP 1/1: FROM web"]}}`
	builtEnd  = `{"parameters":{"operationId":"1","lines":["the end"],"imageId":"7","names":["localhost/new:latest"]}}`
)

func TestBuild(t *testing.T) {
	request := core.BuildRequest{Context: "/ctx"}
	var lines []string
	built, err := serve(t, answers{"Build": {builtLine, builtEnd}}).dial(t).Build(t.Context(), request, func(s string) { lines = append(lines, s) })
	if err != nil || built.Image != "7" || !slices.Equal(built.Names, []string{"localhost/new:latest"}) ||
		!slices.Equal(lines, []string{"STEP 1/1: FROM web", "the end"}) {
		t.Errorf("%+v, %v, %q", built, err, lines)
	}
	for name, tt := range map[string]struct{ answer, want string }{
		"it failed":       {`{"error":"io.unmoor.Removal.BuildFailed","parameters":{"reason":"exit status 1"}}`, "exit status 1"},
		"lost":            {hangUp, "was lost in the middle of the build"},
		"no image":        {`{"parameters":{"operationId":"1","lines":[]}}`, "the last reply has no image"},
		"no image at all": {`{"parameters":{"operationId":"1","lines":[],"imageId":"","names":[]}}`, "the last reply has no image"},
		"an older daemon": {`{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"io.unmoor.Removal.Build"}}`, "does not take Build"},
	} {
		built, err := serve(t, answers{"Build": {builtLine, tt.answer}}).dial(t).Build(t.Context(), request, func(string) {})
		if err == nil || built != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %+v, %v", name, built, err)
		}
	}
	denied := serve(t, answers{"Build": {`{"error":"org.varlink.service.PermissionDenied"}`}}).dial(t)
	if _, err := denied.Build(t.Context(), request, func(string) {}); !isDenied(err) {
		t.Error(err)
	}
	if _, err := denied.Build(t.Context(), core.BuildRequest{Context: "ctx"}, func(string) {}); err == nil || isDenied(err) {
		t.Errorf("what makes no sense is sent: %v", err)
	}
}

func isDenied(err error) bool { _, ok := errors.AsType[*client.DeniedError](err); return ok }

// The daemon sees that its caller has gone, and so ends the build.
func TestBuildInterrupted(t *testing.T) {
	d := serve(t, answers{"Build": {builtLine}})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := d.dial(t).Build(ctx, core.BuildRequest{Context: "/ctx"}, func(string) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-d.gone
}
