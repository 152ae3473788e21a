package cstore_test

import (
	"testing"

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
