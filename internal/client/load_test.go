package client_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
)

const (
	copying = `{"continues":true,"parameters":{"operationId":"1","progress":{"digest":"sha256:1","copied":3,"done":false,"skipped":false}}}`
	loaded  = `{"parameters":{"operationId":"1","images":[{"id":"a","names":["localhost/a:1"]}]}}`
)

func loadRequest(t *testing.T) core.LoadRequest {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return core.LoadRequest{Source: core.ImageSource{Path: path}}
}

func TestLoad(t *testing.T) {
	c := serve(t, answers{"Load": {copying, loaded}, "Import": {copying, `{"parameters":{"operationId":"1","image":{"id":"b","names":[]}}}`}}).dial(t)
	r := loadRequest(t)
	var told []core.CopyProgress
	r.Copy.Progress = func(p core.CopyProgress) { told = append(told, p) }
	images, err := c.Load(t.Context(), r)
	if err != nil || len(images) != 1 || images[0].ID != "a" || images[0].Names[0] != "localhost/a:1" {
		t.Errorf("%v, %v", images, err)
	}
	if len(told) != 1 || told[0] != (core.CopyProgress{Digest: "sha256:1", Copied: 3, Size: -1}) {
		t.Errorf("told %+v", told)
	}
	image, err := c.Import(t.Context(), core.ImportRequest{Source: core.ImageSource{Stream: os.Stdin}})
	if err != nil || image.ID != "b" {
		t.Errorf("%v, %v", image, err)
	}
}

func TestLoadErrors(t *testing.T) {
	reply := func(name, parameters string) string {
		return `{"error":"io.unmoor.Removal.` + name + `","parameters":` + parameters + `}`
	}
	c := serve(t, answers{"Load": {reply("LoadIncomplete", `{"images":[{"id":"a","names":[]}],"reason":"no space"}`)}}).dial(t)
	images, err := c.Load(t.Context(), loadRequest(t))
	if len(images) != 1 || err == nil || err.Error() != "no space" {
		t.Errorf("half of it: %v, %v", images, err)
	}
	c = serve(t, answers{"Load": {reply("FormatUnknown", `{"source":"what was passed","trials":[{"format":"oci","reason":"no"}]}`)}}).dial(t)
	r := loadRequest(t)
	_, err = c.Load(t.Context(), r)
	if format, ok := errors.AsType[*core.FormatError](err); !ok || !strings.HasPrefix(err.Error(), r.Source.Path+" is no image archive") || len(format.Trials) != 1 {
		t.Errorf("no format: %v", err)
	}
	c = serve(t, answers{"Load": {reply("ArchiveRefused", `{"reason":"archive refused: no"}`)}}).dial(t)
	if _, err = c.Load(t.Context(), loadRequest(t)); !errors.Is(err, core.ErrArchiveRefused) {
		t.Errorf("a refusal: %v", err)
	}
	for name, answer := range map[string][]string{
		"it hangs up": {copying, hangUp}, "no images": {`{"parameters":{"operationId":"1"}}`}, "nonsense": {`{"parameters":{"operationId":"1","images":[{"id":"","names":[]}]}}`},
	} {
		c = serve(t, answers{"Load": answer}).dial(t)
		_, err := c.Load(t.Context(), loadRequest(t))
		if _, ok := errors.AsType[*client.LostError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	c = serve(t, answers{}).dial(t)
	r = loadRequest(t)
	r.Copy.SignaturePolicy = "/x"
	if _, err := c.Load(t.Context(), r); err == nil || !strings.Contains(err.Error(), "a signature policy of its own") {
		t.Errorf("a policy: %v", err)
	}
	if _, err := c.Load(t.Context(), core.LoadRequest{Source: core.ImageSource{Path: "/does/not/exist"}}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := c.Load(t.Context(), core.LoadRequest{Source: core.ImageSource{Stream: strings.NewReader("")}}); err == nil || !strings.Contains(err.Error(), "takes a descriptor") {
		t.Errorf("no descriptor: %v", err)
	}
}
