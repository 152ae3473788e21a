package hooks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"slices"
	"sync"

	"github.com/unmoor/unmoor/core"
)

var _ core.Registrars = (*Registry)(nil)

// Lister is met by a plugin whose engine has records of its own about its containers.
type Lister interface {
	// List claims every container that the engine has in the store, also those whose storage is gone.
	// Handles with these claims may be given to Stop and Remove for containers that the store does not
	// have. An error means that the engine could not be asked.
	List(ctx context.Context, store core.StoreInfo) ([]core.Claim, error)
}

// Inventories asks every plugin that is a Lister for all that its engine has, side by side. An engine
// that is not installed has nothing, unless a container of the store looks like one of its own.
func (r *Registry) Inventories(ctx context.Context, store core.StoreInfo, containers []core.Container) []core.Inventory {
	members := r.asked()
	all := make([]*core.Inventory, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		l, ok := m.plugin.(Lister)
		if !ok || !m.offers("list") {
			continue
		}
		wg.Go(func() {
			inventory := m.take(ctx, l, store)
			if errors.Is(inventory.Err, errNotOffered) {
				return
			}
			e := m.settings()
			for _, c := range containers {
				if fits(e.Hints, c) {
					inventory.Like = append(inventory.Like, c.ID)
				}
			}
			if absent(inventory.Err) && len(inventory.Like) == 0 && !e.Required {
				inventory.Err = nil
			}
			all[i] = &inventory
		})
	}
	wg.Wait()
	var inventories []core.Inventory
	for _, i := range all {
		if i != nil {
			inventories = append(inventories, *i)
		}
	}
	return inventories
}

// absent is whether an engine is not on this machine. What a plugin on a socket says of itself, or cannot
// be asked about, is another thing: there is no engine without its plugin.
func absent(err error) bool {
	var f *fault
	if errors.As(err, &f) && f.kind != faultError {
		return false
	}
	return errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, core.ErrEngineAbsent)
}

func (m *member) take(ctx context.Context, l Lister, store core.StoreInfo) core.Inventory {
	store.GraphOptions = slices.Clone(store.GraphOptions)
	var records []core.Claim
	_, f := try(ctx, m, m.settings().ClaimTimeout, func(ctx context.Context) ([]core.Claim, error) {
		return l.List(ctx, store)
	}, func(claims []core.Claim) (err error) {
		records, err = checkList(m.name, claims)
		return err
	})
	if f != nil {
		return core.Inventory{Engine: m.name, Err: f}
	}
	return core.Inventory{Engine: m.name, Records: records}
}

// checkList validates a plugin's whole list. One flaw and nothing of it counts.
func checkList(name string, claims []core.Claim) ([]core.Claim, error) {
	var records []core.Claim
	seen := make(map[core.ContainerID]bool, len(claims))
	for _, c := range claims {
		err := checkClaim(c)
		switch {
		case c.Container == "" || c.Ownership != core.OwnershipMine:
			err = errors.New("is about nothing of its own")
		case seen[c.Container]:
			err = errors.New("stands there twice")
		}
		if err != nil {
			return nil, fmt.Errorf("the claim about container %.64q %w", c.Container, err)
		}
		seen[c.Container] = true
		records = append(records, ours(name, c))
	}
	return records, nil
}
