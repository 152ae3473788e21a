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
	all := make([]*core.Inventory, len(r.entries))
	var wg sync.WaitGroup
	for i, e := range r.entries {
		l, ok := e.Plugin.(Lister)
		if !ok {
			continue
		}
		wg.Go(func() {
			inventory := take(ctx, e, l, store)
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

func absent(err error) bool {
	return errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}

func take(ctx context.Context, e Entry, l Lister, store core.StoreInfo) core.Inventory {
	inventory := core.Inventory{Engine: e.Name}
	store.GraphOptions = slices.Clone(store.GraphOptions)
	claims, f := call(ctx, e.ClaimTimeout, func(ctx context.Context) ([]core.Claim, error) { return l.List(ctx, store) })
	if f != nil {
		inventory.Err = f
		return inventory
	}
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
			return core.Inventory{Engine: e.Name, Err: fmt.Errorf("its list is nonsense: the claim about container %.64q %w", c.Container, err)}
		}
		seen[c.Container] = true
		inventory.Records = append(inventory.Records, ours(e.Name, c))
	}
	return inventory
}
