package service

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
)

// builderFunc is an engine that builds.
type builderFunc func(ctx context.Context, r core.BuildRequest, output func(string)) (core.ImageID, error)

func (f builderFunc) Build(ctx context.Context, store core.StoreInfo, r core.BuildRequest, output func(string)) (core.ImageID, error) {
	if store.GraphRoot != "/store" {
		return "", errors.New("another store")
	}
	return f(ctx, r, output)
}

func TestBuild(t *testing.T) {
	f := &fake{}
	local := f.local()
	request := core.BuildRequest{Context: "/ctx", Names: []string{"new"}}
	silent := func(string) {}
	if _, err := local.Build(t.Context(), request, silent); err == nil || !strings.Contains(err.Error(), "no engine builds images") {
		t.Error(err)
	}
	local.Builder = builderFunc(func(_ context.Context, r core.BuildRequest, output func(string)) (core.ImageID, error) {
		output("line")
		if r.Target == "fails" {
			return "", errBoom
		}
		if r.Target != "lies" {
			f.image("7", "localhost/new:latest")
		}
		return "7", nil
	})
	var lines []string
	built, err := local.Build(t.Context(), request, func(s string) { lines = append(lines, s) })
	if err != nil || built.Image != "7" || !slices.Equal(built.Names, []string{"localhost/new:latest"}) || !slices.Equal(lines, []string{"line"}) {
		t.Errorf("%+v, %v, %q", built, err, lines)
	}
	request.Target = "fails"
	if _, err := local.Build(t.Context(), request, silent); !errors.Is(err, errBoom) {
		t.Error(err)
	}
	f.snapshot.Images, request.Target = nil, "lies"
	if built, err := local.Build(t.Context(), request, silent); err == nil || !strings.Contains(err.Error(), "is not in the store") {
		t.Errorf("an image that is not there: %+v, %v", built, err)
	}
	f.snapshotErr, request.Target = errBoom, ""
	if built, err := local.Build(t.Context(), request, silent); !errors.Is(err, errBoom) || !strings.Contains(err.Error(), "which was built") {
		t.Errorf("a store that cannot be read: %+v, %v", built, err)
	}
	for _, wrong := range []core.BuildRequest{
		{}, {Context: "ctx"}, {Context: "/ctx", Containerfiles: []string{"a"}}, {Context: "/ctx", Names: []string{" "}},
		{Context: "/ctx", Args: []string{"=x"}}, {Context: "/ctx", Labels: []string{""}}, {Context: "/ctx", Pull: "often"},
		{Context: "/ctx", Format: "rar"}, {Context: "/ctx", Target: "a\x00"}, {Context: "/ctx\xff"},
	} {
		if _, err := local.Build(t.Context(), wrong, silent); err == nil {
			t.Errorf("%+v is built", wrong)
		} else if refused := (*RequestError)(nil); !errors.As(err, &refused) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
