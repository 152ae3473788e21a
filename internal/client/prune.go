package client

import (
	"context"
	"errors"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
)

// PlanPrune is service.Local's.
func (c *Client) PlanPrune(ctx context.Context, r service.PruneRequest) (*service.Pruned, error) {
	in := transcribe.FromPruneRequest(r)
	var out transcribe.PlanPruneOut
	if err := c.call(ctx, "PlanPrune", transcribe.PlanPruneIn{Policy: in.Policy}, &out); err != nil {
		return nil, err
	}
	p, err := transcribe.ToPruned(out.Pruning, true)
	if err != nil {
		return nil, c.senseless(err)
	}
	if now := p.Plan.Revision; r.Revision != "" && now != r.Revision {
		return nil, &core.StaleError{Wanted: r.Revision, Now: now}
	}
	return p, nil
}

// Prune is service.Local's. progress is called from one goroutine. Errors beside service.Local's:
// *LostError, after which the same request goes on with what is left.
func (c *Client) Prune(ctx context.Context, r service.PruneRequest, progress func(core.Progress)) (*service.Pruned, error) {
	lost := &LostError{Address: c.address}
	var pruned *service.Pruned
	err := stream(ctx, c, "Prune", transcribe.FromPruneRequest(r), func(reply transcribe.PruneOut, last bool) error {
		if err := lost.hear(reply.Progress, progress); err != nil || !last {
			return err
		}
		if reply.Pruning == nil {
			return errors.New("the last reply does not say what was pruned")
		}
		var err error
		pruned, err = transcribe.ToPruned(*reply.Pruning, false)
		return err
	})
	return pruned, c.ended("Prune", r.Revision, err, lost)
}

// Usage is service.Local's.
func (c *Client) Usage(ctx context.Context) (*service.Usage, error) {
	account := core.Account{Images: []core.ImageAccount{}, Containers: []core.ContainerAccount{}, Layers: []core.LayerAccount{}}
	var usage *service.Usage
	err := stream(ctx, c, "GetUsage", nil, func(reply transcribe.GetUsageOut, last bool) error {
		switch {
		case last && reply.Totals == nil:
			return errors.New("the last reply has no totals")
		case last:
			var err error
			usage, err = transcribe.ToUsageTotals(*reply.Totals)
			return err
		case reply.Image != nil:
			return more(&account.Images, *reply.Image, transcribe.ToImageUsage)
		case reply.Container != nil:
			return more(&account.Containers, *reply.Container, transcribe.ToContainerUsage)
		case reply.Layer != nil:
			return more(&account.Layers, *reply.Layer, transcribe.ToLayerUsage)
		}
		return errors.New("a reply in the middle is empty")
	})
	if err != nil {
		return nil, c.failed("GetUsage", "", err)
	}
	usage.Account.Images, usage.Account.Containers, usage.Account.Layers = account.Images, account.Containers, account.Layers
	return usage, nil
}

// more reads one more of a list.
func more[W, M any](list *[]M, one W, read func(W) (M, error)) error {
	m, err := read(one)
	*list = append(*list, m)
	return err
}
