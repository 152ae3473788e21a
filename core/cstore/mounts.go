package cstore

import (
	"errors"
	"fmt"
	"sync"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// mounts remembers how often the containers' layers were mounted, by the store's own count, when
// they were looked at. It is safe for use by several goroutines.
type mounts struct {
	mu sync.Mutex
	// counts has the least that a snapshot had: a later one, taken for the sake of another container,
	// must not hide that the count has risen.
	counts map[string]int
}

// note takes the counts of a snapshot. What is gone from the store is forgotten.
func (m *mounts) note(r *records) {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := make(map[string]int, len(r.containers))
	for i := range r.containers {
		id := r.containers[i].LayerID
		layer, ok := r.layers.byID[id]
		if !ok {
			continue
		}
		counts[id] = layer.MountCount
		if before, known := m.counts[id]; known {
			counts[id] = min(before, layer.MountCount)
		}
	}
	m.counts = counts
}

// unrisen makes sure that a layer is not mounted more often, by the record on disk, than when it was
// first looked at; core.ErrStillInUse where it is. A refused layer is forgotten, so that the next
// snapshot begins anew. Of a layer that was never looked at nothing can be said.
func (m *mounts) unrisen(lib storage.Store, id string) error {
	m.mu.Lock()
	before, known := m.counts[id]
	m.mu.Unlock()
	if !known {
		return nil
	}
	now, err := lib.Mounted(id)
	if errors.Is(err, storage.ErrLayerUnknown) {
		return nil // There is only the record to delete.
	}
	if err != nil {
		return err
	}
	if now <= before {
		return nil
	}
	m.mu.Lock()
	delete(m.counts, id)
	m.mu.Unlock()
	return fmt.Errorf("it was mounted meanwhile: %w", core.ErrStillInUse)
}
