package cstore_test

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

func TestSnapshotLabels(t *testing.T) {
	f := storetest.New(t, "vfs", cstore.Options{ImageLabels: true})
	labelled := f.AddImage(storetest.Image{Names: []string{"localhost/labelled:1"}, Label: "keep", Files: map[string]string{"a": "1"}})
	plain := f.AddImage(storetest.Image{Names: []string{"localhost/plain:1"}, Files: map[string]string{"a": "2"}})
	list := f.AddList("localhost/list:latest", plain)
	bare := f.AddImageOver("", "localhost/bare:1")
	check := func(when string, id core.ImageID, labels map[string]string, known bool) {
		t.Helper()
		if i := mustImage(t, f.Snapshot(), id); !maps.Equal(i.Labels, labels) || i.LabelsKnown != known {
			t.Errorf("%s: %v has the labels %v, known %v", when, i.Names, i.Labels, i.LabelsKnown)
		}
	}
	check("at first", labelled, map[string]string{"label": "keep"}, true)
	check("at first", plain, nil, true)
	check("at first", list, nil, true)
	check("at first", bare, nil, true)

	s := f.Open()
	for range 2 { // the second time from what is known
		snapshot, err := s.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := mustImage(t, snapshot, labelled)
		if i.Labels["label"] != "keep" {
			t.Errorf("again: %v", i.Labels)
		}
		i.Labels["label"] = "changed" // a snapshot belongs to its caller
	}

	silent := f.Options
	silent.ImageLabels = false
	s, err := cstore.Open(t.Context(), silent)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if i := mustImage(t, snapshot, labelled); i.Labels != nil || i.LabelsKnown {
		t.Errorf("not asked for: %v, known %v", i.Labels, i.LabelsKnown)
	}

	items := filepath.Join(f.Options.GraphRoot, "vfs-images", string(labelled))
	files, err := filepath.Glob(filepath.Join(items, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, damage := range []struct {
		name string
		do   func(path string) error
	}{
		{"labels of another kind", func(path string) error { return os.WriteFile(path, []byte(`{"config":{"Labels":["keep"]}}`), 0o600) }},
		{"garbage", func(path string) error { return os.WriteFile(path, []byte("{\"config\":3,"), 0o600) }},
		{"empty", func(path string) error { return os.Truncate(path, 0) }},
		{"missing", os.Remove},
	} {
		for _, path := range files {
			if err := damage.do(path); err != nil {
				t.Fatal(err)
			}
		}
		check(damage.name, labelled, nil, false)
		check(damage.name, plain, nil, true)
	}
}
