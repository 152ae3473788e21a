package cstore_test

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// TestUnreadableItems: an item that is there and cannot be read is an error, since without it a list is
// no list and a child no child; one that is lost or senseless is left out.
func TestUnreadableItems(t *testing.T) {
	for _, item := range []string{"manifest of a list", "configuration of a child"} {
		for name, tt := range map[string]struct {
			damage func(path string) error
			fails  bool
		}{
			"a directory": {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, true},
			"a loop":      {func(path string) error { return errors.Join(os.Remove(path), os.Symlink(path, path)) }, true},
			"lost":        {os.Remove, false},
			"senseless":   {func(path string) error { return os.WriteFile(path, []byte("no JSON"), 0o600) }, false},
		} {
			t.Run(item+" "+name, func(t *testing.T) {
				f := storetest.New(t, "vfs")
				base := f.AddImage(storetest.Image{Names: []string{"localhost/base:latest"}, Files: map[string]string{"a": "1"}})
				child := f.AddImage(storetest.Image{Names: []string{"localhost/child:latest"}, Base: base, Files: map[string]string{"b": "1"}})
				list := f.AddList("localhost/list:latest", child)
				before := f.Snapshot()
				if !mustImage(t, before, list).ManifestList || mustImage(t, before, child).Parent != base {
					t.Fatalf("images %+v", before.Images)
				}
				path := filepath.Join(f.Options.GraphRoot, "vfs-images", string(list), "manifest")
				if item == "configuration of a child" {
					path = filepath.Join(f.Options.GraphRoot, "vfs-images", string(child), "="+base64.StdEncoding.EncodeToString([]byte("sha256:"+child)))
				}
				if err := tt.damage(path); err != nil {
					t.Fatal(err)
				}
				snapshot, err := f.Open().Snapshot(context.Background())
				if (err != nil) != tt.fails {
					t.Fatalf("the snapshot: %v", err)
				}
				if err != nil {
					t.Log(err)
					return
				}
				if item == "manifest of a list" && mustImage(t, snapshot, list).ManifestList ||
					item == "configuration of a child" && mustImage(t, snapshot, child).Parent != "" {
					t.Error("known all the same")
				}
			})
		}
	}
}
