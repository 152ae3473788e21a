package cstore_test

import (
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// What accounts and prunes go by: all layers with their sizes, when an image came, and when a layer came or
// went last.
func TestSnapshotForAccounts(t *testing.T) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			f := storetest.New(t, driver)
			begin := time.Now().Add(-time.Second) // the clock of files is coarse
			base := f.AddImage(storetest.Image{Names: []string{"localhost/base:1"}, Files: map[string]string{"a": "12345"}})
			app := f.AddImage(storetest.Image{Base: base, Files: map[string]string{"b": "1234567"}})
			loose := f.AddLayer("")
			c := f.AddContainer(app, storetest.Container{})
			first := f.Snapshot()
			if first.Changed.Before(begin) || first.Changed.After(time.Now()) {
				t.Errorf("changed at %v", first.Changed)
			}
			for _, id := range []core.ImageID{base, app} {
				if i := mustImage(t, first, id); i.Stored.Before(begin) || i.Stored.After(time.Now()) {
					t.Errorf("it came at %v, and was created at %v", i.Stored, i.Created)
				}
			}
			sizes := make(map[core.LayerID]int64)
			for _, l := range first.Layers {
				sizes[l.ID] = l.Bytes
			}
			of := mustImage(t, first, app)
			if len(sizes) != 4 || len(of.LayerSizes) != 2 || sizes[core.LayerID(loose)] != -1 || sizes[mustContainer(t, first, c).LayerID] != -1 {
				t.Errorf("layers %v, of the image %v", sizes, of.LayerSizes)
			}
			for id, bytes := range of.LayerSizes {
				if bytes <= 0 || sizes[id] != bytes {
					t.Errorf("layer %s has %d bytes, and %d by the image", id, sizes[id], bytes)
				}
			}
			if again := f.Snapshot(); !again.Changed.Equal(first.Changed) {
				t.Errorf("reading has changed it: %v, then %v", first.Changed, again.Changed)
			}
			f.Mount(c)
			f.Unmount(c)
			if mounted := f.Snapshot(); !mounted.Changed.Equal(first.Changed) {
				t.Errorf("a mount has changed it: %v, then %v", first.Changed, mounted.Changed)
			}
			for end := time.Now().Add(5 * time.Second); ; { // until the coarse clock has moved
				f.AddLayer("")
				if f.Snapshot().Changed.After(first.Changed) {
					break
				}
				if time.Now().After(end) {
					t.Fatal("a new layer is no change")
				}
			}
		})
	}
}
