package cstore_test

import (
	"testing"

	"github.com/unmoor/unmoor/core/cstore"
)

func TestParseManifest(t *testing.T) {
	for _, c := range []struct {
		name, data string
		list       bool
		config     string
	}{
		{"OCI manifest", `{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:0"}}`, false, "sha256:0"},
		{"without media type", `{"config":{"digest":"sha256:0"},"layers":[]}`, false, "sha256:0"},
		{"OCI index", `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`, true, ""},
		{"index without media type", `{"schemaVersion":2,"manifests":[{"digest":"sha256:0"}]}`, true, ""},
		{"Docker list", `{"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[]}`, true, ""},
		{"schema 1", `{"schemaVersion":1,"fsLayers":[]}`, false, ""},
	} {
		m, err := cstore.ParseManifest([]byte(c.data))
		if err != nil || m.IsList() != c.list || m.Config() != c.config {
			t.Errorf("%s: %+v, %v", c.name, m, err)
		}
	}
}

func TestBuiltOn(t *testing.T) {
	const (
		base    = `{"created":"2026-01-02T03:04:05Z","created_by":"ADD"}`
		same    = `{"created":"2026-01-02T04:04:05+01:00","created_by":"ADD"}`
		another = `{"created":"2026-01-02T03:04:05Z","created_by":"COPY"}`
	)
	for _, c := range []struct {
		name, child, parent string
		want                bool
	}{
		{"one more step", base + "," + another, base, true},
		{"several more steps", base + "," + another + "," + another, base, false},
		{"another time zone", same + "," + another, base, true},
		{"no more steps", base, base, false},
		{"another beginning", another + "," + base, base, false},
		{"the other way round", base, base + "," + another, false},
		{"on an image without history", base, "", true},
	} {
		child, err := cstore.ParseHistory([]byte(`{"history":[` + c.child + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		parent, err := cstore.ParseHistory([]byte(`{"history":[` + c.parent + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := cstore.BuiltOn(child, parent); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
