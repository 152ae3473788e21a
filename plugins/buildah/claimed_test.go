package buildah

import (
	"errors"
	"testing"

	"github.com/unmoor/unmoor/core"
)

// TestForeignRevision: what another plugin claimed is neither stopped nor removed here.
func TestForeignRevision(t *testing.T) {
	p := New(Options{})
	store := core.StoreInfo{GraphRoot: t.TempDir()}
	for revision, ours := range map[string]bool{
		"": true, "0123456789abcdef0123456789abcdef": true, "container:0123": false, "of-another-time": false, "0123": false,
	} {
		c := core.Container{ID: "a", Directory: "/nowhere/at/all"}
		h := []core.Handle{{Container: c, Claim: core.Claim{Container: c.ID, Revision: revision}}}
		for verb, o := range map[string]core.Outcome{"stop": p.Stop(t.Context(), store, h, 0)[0], "remove": p.Remove(t.Context(), store, h)[0]} {
			if refused := errors.Is(o.Err, core.ErrNotOwner); refused == ours || ours && o.Err != nil {
				t.Errorf("%s with revision %q: %v", verb, revision, o.Err)
			}
		}
	}
}
