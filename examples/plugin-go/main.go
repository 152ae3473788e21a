// Command plugin-go is a plugin to be copied: that of Skiff, an engine that does not exist. Skiff's
// containers lie in the store that it shares with others, with {"skiff": NAME} as their metadata, and in a
// file of its own it writes down with which process it started each. examples/plugin-python is the same
// plugin in Python, docs/plugin-guide.md explains both.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/sdk"
)

func main() { sdk.Main(skiff{file: cmp.Or(os.Getenv("SKIFF_STATE"), "/var/lib/skiff/state.json")}) }

// skiff is the engine: its file. Skiff enters a container there before it makes it in the store, so what the
// file does not have is not Skiff's.
type skiff struct{ file string }

// Describe names the engine, and what its containers look like in the store while this plugin is down.
func (s skiff) Describe(context.Context) (core.Description, error) {
	_, err := s.read(core.StoreInfo{})
	return core.Description{Name: "skiff", Engine: "Skiff", Hints: []core.ClaimHint{{MetadataKey: "skiff"}}}, err
}

// Claim looks each container up in the file.
func (s skiff) Claim(_ context.Context, store core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	all, err := s.read(store)
	if err != nil {
		return nil, err
	}
	var claims []core.Claim
	for _, c := range containers {
		if known := all.Containers[c.ID]; known != nil {
			claims = append(claims, known.claim(c.ID))
		} else {
			claims = append(claims, core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine})
		}
	}
	return claims, nil
}

// List claims all that the file has, also what is no more in the store.
func (s skiff) List(_ context.Context, store core.StoreInfo) ([]core.Claim, error) {
	all, err := s.read(store)
	if err != nil {
		return nil, err
	}
	var claims []core.Claim
	for id, c := range all.Containers {
		claims = append(claims, c.claim(id))
	}
	return claims, nil
}

func (c *container) claim(id core.ContainerID) core.Claim {
	claim := core.Claim{Container: id, Ownership: core.OwnershipMine, DisplayName: c.Name, Revision: c.revision()}
	switch runs, err := c.runs(); {
	case err != nil: // "could not find out" is not "no": the use stays unknown, which keeps the container
		claim.State, claim.Evidence = core.StateRunning, []core.Evidence{{Kind: core.EvidenceRecord, Detail: err.Error()}}
	case runs:
		claim.State, claim.Use = core.StateRunning, core.UseInUse
		claim.Evidence = []core.Evidence{{Kind: core.EvidenceProcess, Detail: "started by skiff",
			Process: &core.Process{PID: c.PID, StartTime: c.StartTime, UID: -1}}}
	default:
		claim.State, claim.Use = core.StateStopped, core.UseIdle
	}
	return claim
}

// Stop ends the processes, all side by side.
func (s skiff) Stop(ctx context.Context, store core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome {
	all, err := s.read(store)
	outcomes := make([]core.Outcome, len(handles))
	var wg sync.WaitGroup
	for i, h := range handles {
		wg.Go(func() {
			o := core.Outcome{Container: h.Container.ID, Err: err}
			if err == nil {
				o.Err = all.Containers[h.Container.ID].stop(ctx, h, grace)
			}
			outcomes[i] = o
			sdk.Settled(ctx, o) // the caller hears of it now, and not when the slowest has ended
		})
	}
	wg.Wait()
	return outcomes
}

func (c *container) stop(ctx context.Context, h core.Handle, grace time.Duration) error {
	switch {
	case c == nil:
		return nil // gone meanwhile
	case c.revision() != h.Claim.Revision:
		return fmt.Errorf("it was started anew: %w", core.ErrPlanStale)
	case c.PID == 0:
		return nil // never started
	}
	// What is opened here stays that process, and no later one can get the signal.
	process, err := os.FindProcess(c.PID)
	if err != nil {
		return err
	}
	defer func() { _ = process.Release() }() // only a handle
	forcible := time.After(grace)
	signal := syscall.SIGTERM
	if grace <= 0 {
		signal = syscall.SIGKILL
	}
	for {
		runs, err := c.runs()
		if err != nil || !runs {
			return err
		}
		if signal != 0 {
			if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
		}
		signal = 0
		select {
		case <-time.After(20 * time.Millisecond):
		case <-forcible:
			signal = syscall.SIGKILL
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", c.PID, ctx.Err())
		}
	}
}

// Remove deletes the entries. What the store has of the containers, Unmoor deletes afterwards: an outcome with
// StorageRemoved would say that it is gone already.
func (s skiff) Remove(_ context.Context, store core.StoreInfo, handles []core.Handle) []core.Outcome {
	outcomes := make([]core.Outcome, len(handles))
	err := s.edit(store, func(all *state) {
		for i, h := range handles {
			id := h.Container.ID
			outcomes[i] = core.Outcome{Container: id, Err: all.Containers[id].removable(h)}
			if outcomes[i].Err == nil {
				delete(all.Containers, id)
			}
		}
	})
	if err != nil {
		for i, h := range handles {
			outcomes[i] = core.Outcome{Container: h.Container.ID, Err: err}
		}
	}
	return outcomes
}

func (c *container) removable(h core.Handle) error {
	if c == nil {
		return nil // gone meanwhile
	}
	runs, err := c.runs()
	switch {
	case err != nil:
		return err
	case runs:
		return fmt.Errorf("process %d runs: %w", c.PID, core.ErrStillInUse)
	case c.revision() != h.Claim.Revision:
		return fmt.Errorf("it was started anew: %w", core.ErrPlanStale)
	}
	return nil
}
