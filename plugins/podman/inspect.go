package podman

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
)

// inspection is what Podman says of containers. What is in none of its maps could not be found out.
type inspection struct {
	records map[core.ContainerID]record
	// absent are those of which Podman said that there is no such container.
	absent map[core.ContainerID]bool
	// broken are those that Podman itself fails at, with its words.
	broken map[core.ContainerID]error
}

func newInspection() inspection {
	return inspection{records: make(map[core.ContainerID]record), absent: make(map[core.ContainerID]bool),
		broken: make(map[core.ContainerID]error)}
}

// add takes over what a later inspection found.
func (i inspection) add(later inspection) {
	maps.Copy(i.records, later.records)
	maps.Copy(i.absent, later.absent)
	for id := range i.broken {
		if _, known := later.records[id]; known || later.absent[id] {
			delete(i.broken, id)
		}
	}
	maps.Copy(i.broken, later.broken)
}

// silence is why nothing is known of a container that is neither in records nor absent.
func (i inspection) silence(id core.ContainerID) error {
	if err := i.broken[id]; err != nil {
		return err
	}
	return errNoWord
}

var (
	errNoWord = errors.New("podman did not say whether it knows the container")
	// errSlow: another process keeps a container locked, or Podman hangs.
	errSlow = errors.New("podman does not come to an end with it: another podman process may have it locked")
)

const (
	// patience is how long Podman is given to inspect containers: a thousand take 2 s (4.3.1, 5.4.2).
	// One that is locked, by a long "podman commit" say, makes it wait.
	patience = 10 * time.Second
	// parts that a batch is cut into to find what Podman fails at.
	parts = 8
	// maxBroken containers; where there are more it is Podman that is broken.
	maxBroken = 8
)

// nobody is an ID that no container has.
var nobody = core.ContainerID(strings.Repeat("0", 64))

// inspect asks Podman about containers. One that it fails at makes it fail at the whole batch (4.3.1,
// 5.4.2: any error but "no such container"), so such ones are looked for and set apart as broken. A
// container that vanishes meanwhile has the same effect, once. An error means that Podman as a whole
// could not answer.
func (p *Plugin) inspect(ctx context.Context, store core.StoreInfo, ids []core.ContainerID) (inspection, error) {
	const attempts = 3
	all := newInspection()
	left := ids
	var err error
	for n := range attempts {
		if n > 0 {
			select {
			case <-ctx.Done():
				return inspection{}, fmt.Errorf("inspect containers: %w", context.Cause(ctx))
			case <-time.After(50 * time.Millisecond):
			}
		}
		var found inspection
		found, err = p.ask(ctx, store, left)
		if err != nil && !ofOne(err) {
			return inspection{}, err
		}
		if err == nil {
			all.add(found)
			left = slices.Sorted(maps.Keys(all.broken))
		}
		if err == nil && len(left) == 0 {
			return all, nil
		}
		if errors.Is(err, errSlow) || slices.ContainsFunc(left, func(id core.ContainerID) bool { return errors.Is(all.broken[id], errSlow) }) {
			break
		}
	}
	return all, p.search(ctx, store, left, err, all)
}

// ask asks once, and leaves two thirds of the time that there is.
func (p *Plugin) ask(ctx context.Context, store core.StoreInfo, ids []core.ContainerID) (inspection, error) {
	most := patience
	if end, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(end)/3)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, most, errSlow)
	defer cancel()
	return p.engine.inspect(ctx, store, ids)
}

// ofOne is whether an error may be about a single container of the batch.
func ofOne(err error) bool {
	var exit *exitError
	return errors.As(err, &exit) || errors.Is(err, errSlow)
}

// search finds the containers that Podman fails at by asking for parts of the batch, and adds them
// and the others to all. why is what Podman said of the batch, nil where that was said of each one.
func (p *Plugin) search(ctx context.Context, store core.StoreInfo, ids []core.ContainerID, why error, all inspection) error {
	var suspects []suspicion
	if why != nil {
		suspects = []suspicion{{ids, why}}
	}
	if len(all.records)+len(all.absent) == 0 {
		// Does it know anything at all?
		found, err := p.ask(ctx, store, []core.ContainerID{nobody})
		switch {
		case err == nil && found.absent[nobody]:
		case why != nil:
			return why
		default:
			return all.broken[ids[0]]
		}
	}
	for {
		if n := len(suspects) + len(all.broken); n > maxBroken {
			return fmt.Errorf("podman fails at more than %d containers, at one like this: %w", maxBroken, firstOf(suspects, all))
		}
		if len(suspects) == 0 {
			return nil
		}
		var next [][]core.ContainerID
		for _, s := range suspects {
			if len(s.ids) == 1 {
				all.broken[s.ids[0]] = s.err
				continue
			}
			next = slices.AppendSeq(next, slices.Chunk(s.ids, (len(s.ids)+parts-1)/parts))
		}
		suspects = p.askParts(ctx, store, next, all)
		for _, s := range suspects {
			if !ofOne(s.err) {
				return s.err
			}
		}
	}
}

// suspicion is a part of a batch with something in it that Podman fails at.
type suspicion struct {
	ids []core.ContainerID
	err error
}

// askParts asks for several parts side by side, adds the answers to all, and returns the parts
// without one.
func (p *Plugin) askParts(ctx context.Context, store core.StoreInfo, asked [][]core.ContainerID, all inspection) []suspicion {
	var failed []suspicion
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, parts)
	for _, ids := range asked {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			found, err := p.ask(ctx, store, ids)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, suspicion{ids, err})
				return
			}
			all.add(found)
		})
	}
	wg.Wait()
	return failed
}

func firstOf(suspects []suspicion, all inspection) error {
	if len(suspects) > 0 {
		return suspects[0].err
	}
	for _, err := range all.broken {
		return err
	}
	return errNoWord
}
