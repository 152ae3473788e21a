package cstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
)

func TestLoadFormats(t *testing.T) {
	one := small(t, "one:1", "registry.example/other/one:2")
	packed := small(t, "packed:1")
	packed.plain = slices.Clone(packed.layers)
	packed.layers = [][]byte{gzipped(packed.layers[0]), gzipped(packed.layers[1])}
	two := []made{small(t, "a:1"), small(t, "b:1")}
	nameless := small(t)
	large := small(t, "large:1")
	large.layers[1] = tarOf(t, file("big", strings.Repeat("big ", 5<<18)))
	docker, oci := tarOf(t, dockerArchive(one)...), tarOf(t, ociLayout(one)...)
	all := texts([]core.LoadedImage{{ID: one.id(), Names: []string{"localhost/one:1", "registry.example/other/one:2"}}})
	first := texts([]core.LoadedImage{{ID: one.id(), Names: []string{"localhost/one:1"}}})
	both := texts([]core.LoadedImage{{ID: two[0].id(), Names: []string{"localhost/a:1"}}, {ID: two[1].id(), Names: []string{"localhost/b:1"}}})
	for _, test := range []struct {
		scenario, path string
		want           string
		names          int
	}{
		{"a Docker archive with two names", fileWith(t, "a.tar", docker), all, 2},
		{"one that is compressed", fileWith(t, "a.tar.gz", gzipped(docker)), all, 2},
		{"one that is compressed otherwise", fileWith(t, "a.tar.zst", zstandard(t, docker)), all, 2},
		{"one with a colon in its path", fileWith(t, "a:b.tar", docker), "", 0},
		{"one with compressed layers", fileWith(t, "a.tar", tarOf(t, dockerArchive(packed)...)), packed.id().Short() + "[localhost/packed:1]", 1},
		{"one with two images", fileWith(t, "a.tar", tarOf(t, dockerArchive(two...)...)), both, 2},
		{"one without a name", fileWith(t, "a.tar", tarOf(t, dockerArchive(nameless)...)), nameless.id().Short() + "[]", 0},
		{"an OCI archive", fileWith(t, "a.tar", oci), first, 1},
		{"one that is compressed", fileWith(t, "a.tar.gz", gzipped(oci)), first, 1},
		{"one with compressed layers", fileWith(t, "a.tar", tarOf(t, ociLayout(packed)...)), packed.id().Short() + "[localhost/packed:1]", 1},
		{"one with two images", fileWith(t, "a.tar", tarOf(t, ociLayout(two...)...)), both, 2},
		{"one with a large layer", fileWith(t, "a.tar", tarOf(t, ociLayout(large)...)), large.id().Short() + "[localhost/large:1]", 1},
		{"one with a large layer that is compressed", fileWith(t, "a.tar.gz", gzipped(tarOf(t, ociLayout(large, one)...))),
			large.id().Short() + "[localhost/large:1] " + first, 2},
		{"an OCI layout, which gives no name", unpacked(t, ociLayout(one)), one.id().Short() + "[]", 0},
		{"one with two images", unpacked(t, ociLayout(two...)), both, 2},
		{"an archive that is both, as docker save writes it", fileWith(t, "a.tar", tarOf(t, append(ociLayout(one), dockerArchive(one)...)...)), first, 1},
		{"one that is both and has two images", fileWith(t, "a.tar", tarOf(t, append(ociLayout(two...), dockerArchive(two...)...)...)), both, 2},
	} {
		t.Run(test.scenario, func(t *testing.T) {
			l := newLoader(t, "overlay")
			images, err := l.Load(t.Context(), l.request(test.path))
			if test.want == "" {
				if err == nil || !strings.Contains(err.Error(), "colon") {
					t.Errorf("loaded %s, %v", texts(images), err)
				}
				return
			}
			if err != nil || texts(images) != test.want {
				t.Errorf("loaded %s, %v, and wanted %s", texts(images), err, test.want)
			}
			names := 0
			for _, i := range l.Fixture.Snapshot().Images {
				names += len(i.Names)
				if config, _ := l.Content(i.ID); !strings.Contains(config, `"label"`) {
					t.Errorf("the configuration of %s is %s", i.ID.Short(), config)
				}
			}
			if names != test.names {
				t.Errorf("the store has %d names, and wanted %d", names, test.names)
			}
			l.tidy(t)
			l.Clean()
		})
	}
}

func TestLoadName(t *testing.T) {
	l := newLoader(t, "vfs")
	one := small(t, "one:1")
	r := l.request(fileWith(t, "a.tar", tarOf(t, dockerArchive(one)...)))
	r.Name = "more"
	images, err := l.Load(t.Context(), r)
	if want := one.id().Short() + "[localhost/one:1 localhost/more:latest]"; err != nil || texts(images) != want {
		t.Errorf("loaded %s, %v, and wanted %s", texts(images), err, want)
	}
	r.Name = "Not A Name"
	if _, err := l.Load(t.Context(), r); err == nil || !strings.Contains(err.Error(), `"Not A Name" is no name of an image`) {
		t.Errorf("a bad name: %v", err)
	}
	r = l.request(fileWith(t, "b.tar", tarOf(t, dockerArchive(small(t, "x:1"), small(t, "y:1"))...)))
	r.Name = "which"
	if _, err := l.Load(t.Context(), r); !errors.Is(err, core.ErrArchiveRefused) || !strings.Contains(err.Error(), "it has 2 images, and one name cannot be theirs") {
		t.Errorf("one name for two: %v", err)
	}
	if images := l.Fixture.Snapshot().Images; len(images) != 1 {
		t.Errorf("the store has %d images", len(images))
	}
	l.tidy(t)
}

func TestLoadStream(t *testing.T) {
	l := newLoader(t, "overlay")
	one := small(t, "one:1")
	data := gzipped(tarOf(t, dockerArchive(one)...))
	var report bytes.Buffer
	var parts []core.CopyProgress
	r := core.LoadRequest{
		Source: core.ImageSource{Stream: io.MultiReader(bytes.NewReader(data[:100]), bytes.NewReader(data[100:]))},
		Copy: core.CopyOptions{SignaturePolicy: l.policy, Report: &report, Progress: func(p core.CopyProgress) {
			if p.Done {
				parts = append(parts, p)
			}
		}},
	}
	images, err := l.Load(t.Context(), r)
	if want := one.id().Short() + "[localhost/one:1]"; err != nil || texts(images) != want {
		t.Errorf("loaded %s, %v, and wanted %s", texts(images), err, want)
	}
	if !strings.Contains(report.String(), "Copying blob sha256:") || len(parts) != 3 || parts[2].Copied != int64(len(one.config())) {
		t.Errorf("progress: %q and %v", report.String(), parts)
	}
	l.tidy(t)

	r.Source = core.ImageSource{Stream: bytes.NewReader(data), Called: "standard input", Limit: int64(len(data)) - 1}
	if _, err := l.Load(t.Context(), r); !errors.Is(err, core.ErrArchiveRefused) || !strings.Contains(err.Error(), "read standard input") {
		t.Errorf("more than the limit: %v", err)
	}
	r.Source = core.ImageSource{Stream: iotestError{}}
	if _, err := l.Load(t.Context(), r); !errors.Is(err, errBroken) {
		t.Errorf("a stream that breaks: %v", err)
	}
	l.tidy(t)
}

// A file without a name, as what is fetched comes in, is as good as any.
func TestLoadNamelessFile(t *testing.T) {
	l := newLoader(t, "vfs")
	for kind, members := range map[string][]entry{"docker": dockerArchive(small(t, "one:1")), "oci": ociLayout(small(t, "one:1"))} {
		file, room, err := cstore.TemporaryFile()
		if err != nil || room <= 0 {
			t.Fatal(err, room)
		}
		if _, err := file.Write(tarOf(t, members...)); err != nil {
			t.Fatal(err)
		}
		images, err := l.Load(t.Context(), l.request(fmt.Sprintf("/proc/self/fd/%d", file.Fd())))
		if want := small(t, "one:1").id().Short() + "[localhost/one:1]"; err != nil || texts(images) != want {
			t.Errorf("%s: loaded %s, %v", kind, texts(images), err)
		}
		file.Close()
	}
	l.tidy(t)
}

var errBroken = errors.New("the wire was cut")

type iotestError struct{}

func (iotestError) Read([]byte) (int, error) { return 0, errBroken }

func TestLoadTellsWhatWasTried(t *testing.T) {
	l := newLoader(t, "vfs")
	for _, test := range []struct {
		path string
		want []string
	}{
		{fileWith(t, "text", []byte("no archive at all, and longer than a header"+strings.Repeat(".", 600))), []string{
			"is no image archive in any of the known formats:",
			"oci: it is no directory", "oci-archive: read it as a tar archive:", "docker-archive: read it as a tar archive:", "dir: it is no directory"}},
		{fileWith(t, "root.tar", tarOf(t, file("etc/passwd", ""))), []string{"oci-archive: it has no index.json", `docker-archive: loading tar component "manifest.json"`}},
		{t.TempDir(), []string{"oci: it has no index.json", "oci-archive: it is a directory", "docker-archive: it is a directory", "dir: open "}},
		{fileWith(t, "a.tar", tarOf(t, file("index.json", `{"manifests":[]}`), file("manifest.json", "[]"))),
			[]string{"oci-archive: its index names no image", "docker-archive: its manifest names no image"}},
	} {
		_, err := l.Load(t.Context(), l.request(test.path))
		var formats *core.FormatError
		if !errors.As(err, &formats) || len(formats.Trials) != 4 {
			t.Errorf("%s: %v", test.path, err)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v\nand wanted %q", test.path, err, want)
			}
		}
	}
	if _, err := l.Load(t.Context(), l.request("/does/not/exist")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	l.empty(t)
}

func TestLoadPolicy(t *testing.T) {
	one := small(t, "one:1")
	docker, oci := fileWith(t, "docker.tar", tarOf(t, dockerArchive(one)...)), fileWith(t, "oci.tar", tarOf(t, ociLayout(one)...))
	scope := filepath.Dir(oci)
	for _, test := range []struct {
		scenario, policy, path string
		ok                     bool
	}{
		{"nothing is let in", `{"default":[{"type":"reject"}]}`, docker, false},
		{"Docker archives are", `{"default":[{"type":"reject"}],"transports":{"docker-archive":{"":[{"type":"insecureAcceptAnything"}]}}}`, docker, true},
		{"Docker archives alone are", `{"default":[{"type":"reject"}],"transports":{"docker-archive":{"":[{"type":"insecureAcceptAnything"}]}}}`, oci, false},
		{"OCI layouts alone are", `{"default":[{"type":"reject"}],"transports":{"oci":{"":[{"type":"insecureAcceptAnything"}]}}}`, oci, false},
		{"OCI archives of that place are", `{"default":[{"type":"reject"}],"transports":{"oci-archive":{"` + scope + `":[{"type":"insecureAcceptAnything"}]}}}`, oci, true},
		{"OCI archives of another place are", `{"default":[{"type":"reject"}],"transports":{"oci-archive":{"/elsewhere":[{"type":"insecureAcceptAnything"}]}}}`, oci, false},
	} {
		t.Run(test.scenario, func(t *testing.T) {
			l := newLoader(t, "vfs")
			l.policy = fileWith(t, "policy.json", []byte(test.policy))
			images, err := l.Load(t.Context(), l.request(test.path))
			if test.ok != (err == nil) {
				t.Fatalf("loaded %s, %v", texts(images), err)
			}
			if !test.ok {
				if !strings.Contains(err.Error(), "rejected by policy") {
					t.Errorf("it does not say why: %v", err)
				}
				l.empty(t)
			}
		})
	}
	l := newLoader(t, "vfs")
	l.policy = "/does/not/exist"
	if _, err := l.Load(t.Context(), l.request(docker)); err == nil || !strings.Contains(err.Error(), "read the signature policy") {
		t.Errorf("no policy: %v", err)
	}
	l.empty(t)
}

// What is broken anywhere is never loaded as if it were whole, and leaves nothing behind.
func TestLoadDamaged(t *testing.T) {
	two := []made{small(t, "a:1"), small(t, "b:1")}
	large := small(t, "b:1")
	large.layers[1] = tarOf(t, file("big", "upper b:1"+strings.Repeat("big ", 5<<18)))
	l := newLoader(t, "overlay")
	random := rand.New(rand.NewPCG(1, 2))
	for name, sound := range map[string][]byte{
		"docker": tarOf(t, dockerArchive(two...)...), "oci": tarOf(t, ociLayout(two...)...),
		"oci.large": tarOf(t, ociLayout(large)...), "docker.gz": gzipped(tarOf(t, dockerArchive(two...)...)), "one": tarOf(t, dockerArchive(two[0])...),
	} {
		path := filepath.Join(t.TempDir(), name)
		load := func(data []byte) ([]core.LoadedImage, error) {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return l.Load(t.Context(), l.request(path))
		}
		for range 12 {
			if t.Failed() {
				return
			}
			cut := random.IntN(len(sound))
			if !strings.HasSuffix(name, ".gz") {
				cut = random.IntN(len(sound) - 1536) // the last kilobyte says that it has ended, and before it may be zeros
			}
			if images, err := load(sound[:cut]); err == nil {
				t.Errorf("%s, cut at %d of %d: loaded %s", name, cut, len(sound), texts(images))
			}
			l.empty(t)
		}
		// Within a layer: what is in the manifests' bytes besides digests is not protected by any.
		at := bytes.Index(sound, []byte("upper b:1"))
		if at < 0 {
			at = bytes.Index(sound, []byte("upper a:1"))
		}
		if at < 0 {
			at = len(sound) / 2 // compressed
		}
		damaged := bytes.Clone(sound)
		damaged[at] ^= 1
		if images, err := load(damaged); err == nil {
			t.Errorf("%s, changed at %d: loaded %s", name, at, texts(images))
		}
		l.empty(t)
		if t.Failed() {
			return
		}
	}
}

func TestLoadCanceled(t *testing.T) {
	for _, driver := range drivers {
		l := newLoader(t, driver)
		path := fileWith(t, "a.tar", tarOf(t, dockerArchive(small(t, "one:1"))...))
		for _, step := range []string{"put_layer", "layer_put", "put_layer:2", "layer_put:2"} {
			ctx, cancel := context.WithCancel(t.Context())
			onStep(l.Store, step, cancel)
			if images, err := l.Load(ctx, l.request(path)); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: loaded %s, %v", step, texts(images), err)
			}
			l.empty(t)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Load(ctx, l.request(path)); !errors.Is(err, context.Canceled) {
			t.Errorf("before: %v", err)
		}
		l.empty(t)
	}
}

// A stream that nobody writes to any more is not waited for.
func TestLoadCanceledWhileItWaits(t *testing.T) {
	l := newLoader(t, "vfs")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := l.Load(ctx, core.LoadRequest{Source: core.ImageSource{Stream: r}, Copy: core.CopyOptions{SignaturePolicy: l.policy}})
		done <- err
	}()
	if _, err := w.Write(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("loaded: %v", err)
	}
	l.empty(t)
}

// onStep calls f at a step of a store, "STEP" or "STEP:N" for the Nth time.
func onStep(s interface{ SetStep(func(string)) }, step string, f func()) {
	step, count, _ := strings.Cut(step, ":")
	n := 1
	if count != "" {
		n = int(count[0] - '0')
	}
	s.SetStep(func(name string) {
		if name != step {
			return
		}
		if n--; n == 0 {
			f()
		}
	})
}
