package hooks_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// fake is a plugin that behaves as its functions say.
type fake struct {
	describe func(context.Context) (core.Description, error)
	claim    func(context.Context, []core.Container) ([]core.Claim, error)
	stop     func(context.Context, []core.Handle, time.Duration) []core.Outcome
	remove   func(context.Context, []core.Handle) []core.Outcome
}

func (f fake) Describe(ctx context.Context) (core.Description, error) { return f.describe(ctx) }

func (f fake) Claim(ctx context.Context, _ core.StoreInfo, c []core.Container) ([]core.Claim, error) {
	return f.claim(ctx, c)
}

func (f fake) Stop(ctx context.Context, _ core.StoreInfo, h []core.Handle, grace time.Duration) []core.Outcome {
	return f.stop(ctx, h, grace)
}

func (f fake) Remove(ctx context.Context, _ core.StoreInfo, h []core.Handle) []core.Outcome {
	return f.remove(ctx, h)
}

// ids makes a container's ID out of its number.
func id(n int) core.ContainerID { return core.ContainerID(fmt.Sprintf("%064x", n)) }

const metadataKey = "image-name"

// store makes three containers: 1 fits the hint that every entry of these tests has, 2 has other
// metadata, 3 has none.
func store(t testing.TB) []core.Container {
	t.Helper()
	directory := t.TempDir()
	all := []core.Container{
		{ID: id(1), Names: []string{"one"}, Metadata: `{"image-name":"x"}`},
		{ID: id(2), Names: []string{"two"}, Metadata: `{"pod-id":"x","image-name":"x"}`},
		{ID: id(3), Names: []string{"three"}},
	}
	for i := range all {
		all[i].Directory = filepath.Join(directory, all[i].Names[0])
		if err := os.Mkdir(all[i].Directory, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

var testHints = []core.ClaimHint{{MetadataKey: metadataKey, MetadataKeyAbsent: "pod-id"}}

func entry(name string, p hooks.Plugin) hooks.Entry {
	return hooks.Entry{Plugin: p, Name: name, Hints: testHints,
		ClaimTimeout: 5 * time.Second, StopMargin: 5 * time.Second, RemoveTimeout: 5 * time.Second}
}

func registry(t testing.TB, entries ...hooks.Entry) *hooks.Registry {
	t.Helper()
	r, err := hooks.New(entries, hooks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// saying is a plugin that answers the same about every container.
func saying(claim core.Claim) fake {
	return answering(func(c core.Container) core.Claim { return claim })
}

func answering(about func(core.Container) core.Claim) fake {
	return fake{claim: func(_ context.Context, containers []core.Container) ([]core.Claim, error) {
		var claims []core.Claim
		for _, c := range containers {
			claim := about(c)
			claim.Container = c.ID
			claims = append(claims, claim)
		}
		return claims, nil
	}}
}

var (
	notMine = core.Claim{Ownership: core.OwnershipNotMine}
	mine    = core.Claim{Ownership: core.OwnershipMine, State: core.StateStopped, Use: core.UseIdle}
	unsure  = core.Claim{}
)

func failing(err error) fake {
	return fake{claim: func(context.Context, []core.Container) ([]core.Claim, error) { return nil, err }}
}
