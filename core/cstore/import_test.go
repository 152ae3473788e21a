package cstore_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

// rootFrom is a request to import a file.
func (l *loader) rootFrom(path string) core.ImportRequest {
	return core.ImportRequest{Source: core.ImageSource{Path: path}, Copy: core.CopyOptions{SignaturePolicy: l.policy}}
}

// However an archive is compressed, the image is the same, and its time is the file's.
func TestImportFormats(t *testing.T) {
	l := newLoader(t, "overlay")
	data := tarOf(t, file("etc/name", "root"))
	when := time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC)
	dir := t.TempDir()
	packed := map[string][]byte{"root.tar": data, "root.tar.gz": gzipped(data), "root.tar.zst": zstandard(t, data), "colon:root.tar": data}
	for suffix, program := range map[string]string{"xz": "xz", "bz2": "bzip2"} {
		needed(t, program)
		out, err := run(nil, program, "-c", fileWith(t, "root.tar", data))
		if err != nil {
			t.Fatal(err)
		}
		packed["root.tar."+suffix] = []byte(out)
	}
	var id core.ImageID
	for name, data := range packed {
		path := filepath.Join(dir, name)
		err := os.WriteFile(path, data, 0o600)
		if err == nil {
			err = os.Chtimes(path, when, when)
		}
		if err != nil {
			t.Fatal(err)
		}
		image, err := l.Import(t.Context(), l.rootFrom(path))
		if err != nil || id != "" && image.ID != id {
			t.Errorf("%s: %s, %v, and before %s", name, image.ID, err, id)
		}
		id = image.ID
	}
	config, layers := l.Content(id)
	if !strings.Contains(config, `"created":"2026-02-03T04:05:06.000000789Z"`) || len(layers) != 1 {
		t.Errorf("%v is %s", layers, config)
	}
	l.tidy(t)
	l.Clean()
}

func TestImportStream(t *testing.T) {
	l := newLoader(t, "vfs")
	data := gzipped(tarOf(t, file("etc/name", "root")))
	r := l.rootFrom("")
	r.Source.Stream, r.Source.Called, r.Name, r.Message = bytes.NewReader(data), "standard input", "team/app", "from a pipe"
	image, err := l.Import(t.Context(), r)
	if err != nil || strings.Join(image.Names, " ") != "localhost/team/app:latest" {
		t.Fatalf("imported %v, %v", image, err)
	}
	if config, _ := l.Content(image.ID); !strings.Contains(config, `"comment":"from a pipe"`) {
		t.Errorf("the configuration is %s", config)
	}
	l.DeleteRecord(image.ID)
	r.Source.Stream, r.Source.Limit = bytes.NewReader(data), 10
	if _, err := l.Import(t.Context(), r); !errors.Is(err, core.ErrArchiveRefused) || !strings.Contains(err.Error(), "read standard input: archive refused: it has more than the 10 bytes") {
		t.Errorf("more than the limit: %v", err)
	}
	l.empty(t)
}

func TestImportRefuses(t *testing.T) {
	l := newLoader(t, "overlay")
	sound := tarOf(t, file("etc/name", strings.Repeat("root", 1000)))
	fifo := filepath.Join(t.TempDir(), "directory")
	if err := os.Mkdir(fifo, 0o700); err != nil {
		t.Fatal(err)
	}
	for scenario, path := range map[string]string{
		"text":               fileWith(t, "a", []byte(strings.Repeat("no tar archive\n", 100))),
		"a truncated one":    fileWith(t, "a", sound[:len(sound)-3000]),
		"a truncated gzip":   fileWith(t, "a", gzipped(sound)[:60]),
		"a damaged gzip":     fileWith(t, "a", append(gzipped(sound)[:60], make([]byte, 60)...)),
		"a directory":        fifo,
		"what is not there":  "/does/not/exist",
		"a header and half":  fileWith(t, "a", sound[:700]),
		"less than a header": fileWith(t, "a", sound[:100]),
	} {
		if image, err := l.Import(t.Context(), l.rootFrom(path)); err == nil {
			t.Errorf("%s: imported %v", scenario, image)
		}
		l.empty(t)
	}
	bad := l.rootFrom(fileWith(t, "a", sound))
	bad.Changes = []string{"CMD true", "FLY away"}
	if _, err := l.Import(t.Context(), bad); err == nil || !strings.Contains(err.Error(), `change "FLY away": there is no instruction "FLY"`) {
		t.Errorf("a bad change: %v", err)
	}
	for _, step := range []string{"put_layer", "layer_put"} {
		ctx, cancel := context.WithCancel(t.Context())
		onStep(l.Store, step, cancel)
		if image, err := l.Import(ctx, l.rootFrom(fileWith(t, "a", sound))); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %s: imported %v, %v", step, image, err)
		}
		l.empty(t)
	}
}
