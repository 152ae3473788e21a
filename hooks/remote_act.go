package hooks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// Stop waits for the plugin until ctx ends; the plugin goes on.
func (p *remote) Stop(ctx context.Context, store core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome {
	ms := grace.Milliseconds()
	if grace%time.Millisecond > 0 {
		ms++ // never the forcible one at once where that was not asked for
	}
	return p.act(ctx, store, handles, deed{
		method: protocol.MethodStop, verb: "stop",
		offered: func(c protocol.Capabilities) bool { return c.Stop },
		in: func(store iounmoorplugin.Store, handles []iounmoorplugin.Handle) any {
			return protocol.StopIn{ProtocolVersion: protocol.Version, Store: store, Handles: handles, GracePeriodMs: ms}
		},
	})
}

// Remove is likewise.
func (p *remote) Remove(ctx context.Context, store core.StoreInfo, handles []core.Handle) []core.Outcome {
	return p.act(ctx, store, handles, deed{
		method: protocol.MethodRemove, verb: "remove",
		offered: func(c protocol.Capabilities) bool { return c.Remove },
		in: func(store iounmoorplugin.Store, handles []iounmoorplugin.Handle) any {
			return protocol.RemoveIn{ProtocolVersion: protocol.Version, Store: store, Handles: handles}
		},
	})
}

// deed is Stop or Remove.
type deed struct {
	method, verb string
	offered      func(protocol.Capabilities) bool
	in           func(iounmoorplugin.Store, []iounmoorplugin.Handle) any
}

// act makes as many calls as it takes, all side by side, so that each container has the whole time.
func (p *remote) act(ctx context.Context, store core.StoreInfo, handles []core.Handle, d deed) []core.Outcome {
	where, err := protocol.FromStore(store)
	if err != nil {
		return all(handles, func(core.ContainerID) error { return err })
	}
	batches, refused := protocol.HandleBatches(handles)
	parts := make([][]core.Outcome, len(batches))
	var wg sync.WaitGroup
	for i, batch := range batches {
		wg.Go(func() { parts[i] = p.actOn(ctx, where, batch, d) })
	}
	wg.Wait()
	outcomes := slices.Concat(parts...)
	for i, why := range refused {
		outcomes = append(outcomes, core.Outcome{Container: handles[i].Container.ID, Err: fmt.Errorf("the plugin cannot be asked: %w", why)})
	}
	return outcomes
}

func (p *remote) actOn(ctx context.Context, store iounmoorplugin.Store, handles []iounmoorplugin.Handle, d deed) []core.Outcome {
	missing := make(map[core.ContainerID]bool, len(handles))
	for _, h := range handles {
		missing[core.ContainerID(h.Container.Id)] = true
	}
	outcomes, err := p.outcomes(ctx, store, handles, d)
	for _, o := range outcomes {
		if !missing[o.Container] {
			err = p.blame(ctx, &fault{faultGarbage, fmt.Errorf("it gave an outcome of container %s, which was not due", o.Container.Short())})
			break
		}
		delete(missing, o.Container)
	}
	if f := (*fault)(nil); errors.As(err, &f) && f.kind == faultGarbage {
		outcomes = nil // nor is the rest to be believed
		for _, h := range handles {
			missing[core.ContainerID(h.Container.Id)] = true
		}
	}
	if err == nil {
		err = &fault{faultGarbage, errNoOutcome}
	}
	for id := range missing {
		outcomes = append(outcomes, core.Outcome{Container: id, Err: err})
	}
	return outcomes
}

func (p *remote) outcomes(ctx context.Context, store iounmoorplugin.Store, handles []iounmoorplugin.Handle, d deed) ([]core.Outcome, error) {
	conn, description, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if !d.offered(description.Capabilities) {
		return nil, fmt.Errorf("the plugin cannot %s containers: do it with %s itself", d.verb, description.Engine)
	}
	most := boundOf(len(handles))
	most.silence = silence
	outcomes, err := collect(ctx, p, conn, d.method, d.in(store, handles), most,
		func(o protocol.StopOut) []iounmoorplugin.Outcome { return o.Outcomes }, protocol.ToOutcome)
	if f := (*fault)(nil); ctx.Err() != nil || errors.As(err, &f) && (f.kind == faultSilent || f.kind == faultGarbage) {
		p.working.Store(true)
	}
	return outcomes, err
}
