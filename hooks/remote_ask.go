package hooks

import (
	"context"
	"fmt"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// Claim asks in as many calls as it takes. A container that cannot be asked about is in doubt, and the
// rest is not.
func (p *remote) Claim(ctx context.Context, store core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	where, err := protocol.FromStore(store)
	if err != nil {
		return nil, err
	}
	batches, refused := protocol.Batches(containers, protocol.FromContainer)
	conn, _, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var claims []core.Claim
	for _, batch := range batches {
		in := protocol.ClaimIn{ProtocolVersion: protocol.Version, Store: where, Containers: batch}
		some, err := collect(ctx, p, conn, protocol.MethodClaim, in, boundOf(len(batch)), reportsOfClaim, claimSeenNow)
		if err != nil {
			return nil, err
		}
		claims = append(claims, some...)
	}
	for i, why := range refused {
		claims = append(claims, core.Claim{Container: containers[i].ID,
			Evidence: []core.Evidence{{Kind: core.EvidenceRecord, Detail: "it cannot be asked about: " + why.Error(), Time: time.Now()}}})
	}
	return claims, nil
}

func reportsOfClaim(o protocol.ClaimOut) []iounmoorplugin.Report { return o.Reports }
func reportsOfList(o protocol.ListOut) []iounmoorplugin.Report   { return o.Reports }
func pinsOf(o protocol.PinsOut) []iounmoorplugin.Pin             { return o.Pins }

func claimSeenNow(w iounmoorplugin.Report) (core.Claim, error) {
	return protocol.ToClaim(w, time.Now())
}

// Pins is likewise.
func (p *remote) Pins(ctx context.Context, store core.StoreInfo, images []core.Image) ([]core.Pin, error) {
	where, err := protocol.FromStore(store)
	if err != nil {
		return nil, err
	}
	batches, refused := protocol.Batches(images, protocol.FromImage)
	conn, d, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if !d.Capabilities.Pin {
		return nil, errNotOffered
	}
	var pins []core.Pin
	for _, batch := range batches {
		in := protocol.PinsIn{ProtocolVersion: protocol.Version, Store: where, Images: batch}
		some, err := collect(ctx, p, conn, protocol.MethodPins, in, boundOf(len(batch)), pinsOf, protocol.ToPin)
		if err != nil {
			return nil, err
		}
		pins = append(pins, some...)
	}
	for i, why := range refused {
		pins = append(pins, core.Pin{Image: images[i].ID, Reason: "it cannot be asked about: " + why.Error()})
	}
	return pins, nil
}

func (p *remote) List(ctx context.Context, store core.StoreInfo) ([]core.Claim, error) {
	where, err := protocol.FromStore(store)
	if err != nil {
		return nil, err
	}
	conn, d, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if !d.Capabilities.List {
		return nil, errNotOffered
	}
	in := protocol.ListIn{ProtocolVersion: protocol.Version, Store: where}
	most := bound{items: maxRecords, bytes: 4 * maxAnswer, silence: forEver}
	seen := make(map[string]bool)
	return collect(ctx, p, conn, protocol.MethodList, in, most, reportsOfList, func(w iounmoorplugin.Report) (core.Claim, error) {
		if seen[w.Id] { // it may go on for long
			return core.Claim{}, fmt.Errorf("container %.64q stands there twice", w.Id)
		}
		seen[w.Id] = true
		return claimSeenNow(w)
	})
}
