package cstore_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/image/v5/pkg/compression"

	"github.com/unmoor/unmoor/core/cstore"
)

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:00","size":2},"layers":[]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:00"},{}]}`))
	f.Add([]byte(`{"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":null,"config":{}}`))
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"sha256:00"}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := cstore.ParseManifest(data)
		if err != nil && (m.IsList() || m.Config() != "") {
			t.Errorf("an error and %+v", m)
		}
		if m.IsList() && m.Config() != "" {
			t.Errorf("a list with a configuration: %+v", m)
		}
	})
}

func FuzzParseHistory(f *testing.F) {
	f.Add([]byte(`{"history":[{"created":"2026-01-02T03:04:05Z","created_by":"RUN x"},{"created":"2026-01-02T04:04:05.000+01:00","created_by":"RUN x","empty_layer":true}]}`), []byte(`{}`))
	f.Add([]byte(`{"history":[{"created":null},{"created":3},null]}`), []byte(`{"history":null}`))
	f.Fuzz(func(t *testing.T, one, other []byte) {
		a, errA := cstore.ParseHistory(one)
		b, errB := cstore.ParseHistory(other)
		if errA != nil || errB != nil {
			return
		}
		if cstore.BuiltOn(a, a) || cstore.BuiltOn(a, b) && cstore.BuiltOn(b, a) {
			t.Error("an image built on itself")
		}
		if cstore.BuiltOn(a, b) && len(b) >= len(a) {
			t.Error("the longer history came first")
		}
	})
}

func FuzzParseIntent(f *testing.F) {
	f.Add([]byte(`{"version":1,"images":[{"image":{"id":"00","names":["a"]},"layers":[{"id":"11","created":"2026-01-02T03:04:05Z"}]}],"done":true}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := cstore.ParseIntent(data)
		if err == nil && (len(i.Images) == 0 || i.Images[0].Image.ID == "") {
			t.Error("an announcement of nothing")
		}
	})
}

// What is let in keeps within its bounds, however it is written.
func FuzzVetLayer(f *testing.F) {
	for _, layer := range evil(f) {
		if len(layer) < 1<<16 {
			f.Add(layer)
		}
	}
	f.Add(small(f).layers[0])
	f.Add(gzipped(small(f).layers[1]))
	const bytesLeft, entriesLeft = 1 << 20, 10
	f.Fuzz(func(t *testing.T, data []byte) {
		if cstore.VetLayer(t.Context(), bytes.NewReader(data), bytesLeft, entriesLeft) != nil {
			return
		}
		plain, _, err := compression.AutoDecompress(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		defer plain.Close()
		archive := tar.NewReader(plain)
		for entries, size := 0, int64(0); ; entries++ {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("let in, and %v", err)
			}
			size += h.Size
			name := strings.TrimLeft(h.Name, "/")
			if entries == entriesLeft || size > bytesLeft || name != "" && !filepath.IsLocal(name) {
				t.Fatalf("let in with %d entries, %d bytes, %q", entries, size, h.Name)
			}
		}
	})
}

func FuzzChanges(f *testing.F) {
	for _, change := range []string{"CMD /bin/sh", `ENTRYPOINT ["a"]`, "ENV A=b", "EXPOSE 80/udp", `LABEL "a"="b"`, "STOPSIGNAL TERM", `VOLUME ["/a"]`, "WORKDIR ..", "USER x"} {
		f.Add(change, "WORKDIR a")
	}
	f.Fuzz(func(t *testing.T, one, other string) {
		config, err := cstore.ConfigOf([]string{one, other})
		if err != nil {
			return
		}
		for port := range config.ExposedPorts {
			if number, protocol, _ := strings.Cut(port, "/"); number == "" || protocol != "tcp" && protocol != "udp" {
				t.Errorf("port %q", port)
			}
		}
		for _, e := range config.Env {
			if !strings.Contains(e, "=") {
				t.Errorf("environment %q", e)
			}
		}
	})
}

func FuzzNormalName(f *testing.F) {
	for _, name := range []string{"a", "a:1", "docker.io/a", "localhost/a/b@sha256:0000000000000000000000000000000000000000000000000000000000000000", "x:1@y", "A"} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		once, err := cstore.NormalName(name)
		if err != nil || once == "" {
			return
		}
		if twice, err := cstore.NormalName(once); err != nil || twice != once {
			t.Errorf("%q is %q, and that is %q, %v", name, once, twice, err)
		}
	})
}
