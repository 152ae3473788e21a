package hooks_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// lister is a fake with records of its own.
type lister struct {
	fake
	list func(context.Context) ([]core.Claim, error)
}

func (l lister) List(ctx context.Context, _ core.StoreInfo) ([]core.Claim, error) { return l.list(ctx) }

func TestInventories(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	of := func(n int) core.Claim {
		c := mine
		c.Container = id(n)
		c.Evidence = []core.Evidence{{Source: core.SourceKernel, Detail: "trust me"}}
		return c
	}
	saying := func(claims ...core.Claim) func(context.Context) ([]core.Claim, error) {
		return func(context.Context) ([]core.Claim, error) { return claims, nil }
	}
	failing := func(err error) func(context.Context) ([]core.Claim, error) {
		return func(context.Context) ([]core.Claim, error) { return nil, err }
	}
	missing := &exec.Error{Name: "podman", Err: exec.ErrNotFound}
	all := store(t)
	for _, test := range []struct {
		name       string
		list       func(context.Context) ([]core.Claim, error)
		containers []core.Container
		required   bool
		records    int
		// words in the error; empty for none
		err string
	}{
		{"it has some", saying(of(1), of(7)), all, false, 2, ""},
		{"it has none", saying(), all, false, 0, ""},
		{"it is down", failing(errDown), all[1:], false, 0, "connection refused"},
		{"it is missing, and nothing is like its own", failing(missing), all[1:], false, 0, ""},
		{"it is missing, and something is like its own", failing(missing), all, false, 0, "not found"},
		{"it is missing and required", failing(missing), all[1:], true, 0, "not found"},
		{"it hangs", func(context.Context) ([]core.Claim, error) { <-release; return nil, nil }, all, false, 0, "did not answer"},
		{"it panics", func(context.Context) ([]core.Claim, error) { panic("oh") }, all, false, 0, "panicked"},
		{"one stands there twice", saying(of(1), of(2), of(1)), all, false, 0, "twice"},
		{"one has no ID", saying(of(1), core.Claim{Ownership: core.OwnershipMine, State: core.StateStopped}), all, false, 0, "nothing of its own"},
		{"one is not its own", saying(of(1), core.Claim{Container: id(2), Ownership: core.OwnershipNotMine}), all, false, 0, "nothing of its own"},
		{"one has no state", saying(core.Claim{Container: id(2), Ownership: core.OwnershipMine}), all, false, 0, "state"},
		{"one has a use that does not exist", saying(core.Claim{Container: id(2), Ownership: core.OwnershipMine, State: core.StateStopped, Use: 9}), all, false, 0, "use"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := entry("podman", lister{list: test.list})
			e.Required = test.required
			if test.name == "it hangs" {
				e.ClaimTimeout = 50 * time.Millisecond
			}
			// One without a list has no inventory, and one with a list has its own whatever the first does.
			found := registry(t, e, entry("buildah", fake{}), entry("other", lister{list: saying(of(9))})).
				Inventories(context.Background(), core.StoreInfo{}, test.containers)
			if len(found) != 2 || found[0].Engine != "podman" || found[1].Engine != "other" {
				t.Fatalf("%+v", found)
			}
			if o := found[1]; o.Err != nil || len(o.Records) != 1 {
				t.Errorf("the other one: %+v", o)
			}
			i := found[0]
			if len(i.Records) != test.records || (i.Err == nil) != (test.err == "") {
				t.Errorf("%+v", i)
			}
			if i.Err != nil && !strings.Contains(i.Err.Error(), test.err) {
				t.Errorf("%v: without %q", i.Err, test.err)
			}
			like := slices.Contains(i.Like, id(1))
			if want := len(test.containers) == len(all); like != want || len(i.Like) > 1 {
				t.Errorf("like its own are %v", i.Like)
			}
			for _, r := range i.Records {
				if r.Evidence[0].Source != "podman" {
					t.Errorf("it spoke for %s", r.Evidence[0].Source)
				}
			}
		})
	}
}

// TestSideBySide: plugins are asked side by side: each of two waits for the other one.
func TestSideBySide(t *testing.T) {
	pair := func(arrive, other chan struct{}) lister {
		meet := func(ctx context.Context) error {
			arrive <- struct{}{}
			select {
			case <-other:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return lister{
			fake: fake{
				claim: func(ctx context.Context, c []core.Container) ([]core.Claim, error) {
					if err := meet(ctx); err != nil {
						return nil, err
					}
					return answering(func(core.Container) core.Claim { return notMine }).claim(ctx, c)
				},
				describe: func(ctx context.Context) (core.Description, error) { return core.Description{Name: "x"}, meet(ctx) },
			},
			list: func(ctx context.Context) ([]core.Claim, error) { return nil, meet(ctx) },
		}
	}
	a, b := make(chan struct{}, 3), make(chan struct{}, 3)
	r := registry(t, entry("a", pair(a, b)), entry("b", pair(b, a)))
	for id, h := range r.Claim(t.Context(), core.StoreInfo{}, store(t)) {
		if h.Kind != core.Unowned {
			t.Errorf("claim of %s: %+v", id.Short(), h)
		}
	}
	for _, i := range r.Inventories(t.Context(), core.StoreInfo{}, nil) {
		if i.Err != nil {
			t.Errorf("inventory of %s: %v", i.Engine, i.Err)
		}
	}
	for _, s := range r.Describe(t.Context()) {
		if s.State != hooks.StateIncompatible {
			t.Errorf("description of %s: %+v", s.Name, s)
		}
	}
}

var _ hooks.Lister = lister{}
