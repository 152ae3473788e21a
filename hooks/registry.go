package hooks

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/unmoor/unmoor/core"
)

// Registry asks the plugins of a fixed list. It implements core.Owners.
type Registry struct {
	entries []Entry
}

var _ core.Owners = (*Registry)(nil)

// New makes a registry of the entries, in the order in which their names are shown. Names are
// unique.
func New(entries []Entry) (*Registry, error) {
	r := &Registry{}
	seen := make(map[string]bool)
	for _, e := range entries {
		switch {
		case e.Name == "":
			return nil, errors.New("register a plugin: it has no name")
		case e.Plugin == nil:
			return nil, fmt.Errorf("register plugin %s: there is none", e.Name)
		case seen[e.Name]:
			return nil, fmt.Errorf("register plugin %s: the name is taken", e.Name)
		case e.Required && e.WhenUnavailable == Ignore:
			return nil, fmt.Errorf("register plugin %s: it cannot be both required and ignored when unavailable", e.Name)
		}
		seen[e.Name] = true
		r.entries = append(r.entries, e.withDefaults())
	}
	return r, nil
}

// Names lists the plugins in order.
func (r *Registry) Names() []string {
	names := make([]string, len(r.entries))
	for i, e := range r.entries {
		names[i] = e.Name
	}
	return names
}

// Introduction is one plugin's description, or why there is none.
type Introduction struct {
	Name        string
	Description core.Description
	Err         error
}

// Describe asks every plugin who it is, in the registry's order.
func (r *Registry) Describe(ctx context.Context) []Introduction {
	all := make([]Introduction, len(r.entries))
	var wg sync.WaitGroup
	for i, e := range r.entries {
		wg.Go(func() {
			all[i] = Introduction{Name: e.Name}
			d, failed := call(ctx, e.ClaimTimeout, e.Plugin.Describe)
			switch {
			case failed != nil:
				all[i].Err = fmt.Errorf("describe plugin %s: %w", e.Name, failed)
			case d.Name != e.Name:
				all[i].Err = fmt.Errorf("describe plugin %s: it says that its name is %q", e.Name, d.Name)
			default:
				all[i].Description = d
			}
		})
	}
	wg.Wait()
	return all
}

// entry finds a plugin by name.
func (r *Registry) entry(name string) (Entry, bool) {
	for _, e := range r.entries {
		if e.Name == name {
			return e, true
		}
	}
	return Entry{}, false
}
