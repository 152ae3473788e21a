package protocol

import (
	"encoding/json"
	"fmt"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// MaxBytes is how many bytes of containers, handles or images one call carries, or one reply of
// several: half of what a message may have.
const MaxBytes = 8 << 20

// Batches sorts what is to be asked about into calls, each within MaxBatch and MaxBytes. refused says
// why something cannot be asked about at all, by its place in all: from refuses it, or it is too large.
func Batches[M, W any](all []M, from func(M) (W, error)) (batches [][]W, refused map[int]error) {
	alone := make([][]int, len(all))
	for i := range all {
		alone[i] = []int{i}
	}
	return pack(all, alone, from)
}

// HandleBatches is Batches of handles. Those that go along with each other are in one call, unless they
// are more than one can have: an engine refuses what would take others along that it is not given.
func HandleBatches(handles []core.Handle) (batches [][]iounmoorplugin.Handle, refused map[int]error) {
	return pack(handles, companies(handles), FromHandle)
}

// companies are the places of handles that go along with each other, in the order of their first.
func companies(handles []core.Handle) [][]int {
	at := make(map[core.ContainerID]int, len(handles))
	first := make([]int, len(handles)) // leads to the first of its company
	for i, h := range handles {
		at[h.Container.ID], first[i] = i, i
	}
	find := func(i int) int {
		for first[i] != i {
			first[i] = first[first[i]]
			i = first[i]
		}
		return i
	}
	for i, h := range handles {
		for _, id := range h.Claim.TakesAlong {
			if other, ok := at[id]; ok {
				a, b := find(i), find(other)
				first[max(a, b)] = min(a, b)
			}
		}
	}
	var all [][]int
	place := make(map[int]int)
	for i := range handles {
		lead := find(i)
		if lead == i {
			place[i] = len(all)
			all = append(all, nil)
		}
		all[place[lead]] = append(all[place[lead]], i)
	}
	return all
}

// pack fills calls with units of places in all, a unit whole wherever it fits into one.
func pack[M, W any](all []M, units [][]int, from func(M) (W, error)) (batches [][]W, refused map[int]error) {
	refused = make(map[int]error)
	var batch []W
	size := 0
	flush := func() {
		if len(batch) > 0 {
			batches = append(batches, batch)
		}
		batch, size = nil, 0
	}
	for _, unit := range units {
		items, sizes, total := make([]W, 0, len(unit)), make([]int, 0, len(unit)), 0
		for _, i := range unit {
			item, err := from(all[i])
			var text []byte
			if err == nil {
				text, err = json.Marshal(item)
			}
			if err == nil && len(text) >= MaxBytes {
				err = fmt.Errorf("it has %d bytes, and one call at most %d", len(text), MaxBytes)
			}
			if err != nil {
				refused[i] = err
				continue
			}
			items, sizes = append(items, item), append(sizes, len(text)+1)
			total += len(text) + 1
		}
		if len(batch)+len(items) > MaxBatch || size+total > MaxBytes {
			flush()
		}
		for i, item := range items {
			if len(batch) == MaxBatch || size+sizes[i] > MaxBytes {
				flush()
			}
			batch, size = append(batch, item), size+sizes[i]
		}
	}
	flush()
	return batches, refused
}
