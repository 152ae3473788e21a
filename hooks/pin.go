package hooks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/unmoor/unmoor/core"
)

// Pins asks every plugin that can pin about the images, all plugins side by side, in one batch each.
func (r *Registry) Pins(ctx context.Context, store core.StoreInfo, images []core.Image, containers []core.Container) map[core.ImageID]core.Pin {
	pins := make(map[core.ImageID]core.Pin, len(images))
	if len(images) == 0 {
		return pins
	}
	var ballots []*ballot
	var wg sync.WaitGroup
	for _, m := range r.asked() {
		// What it was able to do in another life says nothing: the question has it describe itself.
		if p, ok := m.plugin.(Pinner); ok {
			b := &ballot{}
			ballots = append(ballots, b)
			wg.Go(func() { b.ask(ctx, m, p, store, images) })
		}
	}
	wg.Wait()
	ballots = slices.DeleteFunc(ballots, func(b *ballot) bool { return b.fault != nil && b.overruled(containers) })
	for _, i := range images {
		pins[i.ID] = pin(i.ID, ballots)
	}
	return pins
}

// ballot is what asking one plugin about pins came to: pins that hold, or a fault.
type ballot struct {
	entry Entry
	pins  map[core.ImageID]core.Pin
	fault *fault
	// lacks is whether the plugin is known not to pin, by the last that it said of itself.
	lacks bool
}

func (b *ballot) ask(ctx context.Context, m *member, p Pinner, store core.StoreInfo, images []core.Image) {
	store.GraphOptions = slices.Clone(store.GraphOptions)
	copies := cloneImages(images)
	_, b.fault = try(ctx, m, m.settings().ClaimTimeout, func(ctx context.Context) ([]core.Pin, error) {
		return p.Pins(ctx, store, copies)
	}, func(pins []core.Pin) (err error) {
		b.pins, err = checkPins(images, pins)
		return err
	})
	b.entry, b.lacks = m.settings(), !m.offers("pin")
}

// overruled is whether a fault does not matter: the plugin said that its engine cannot pin, or the
// operator said so, or the engine is not on this machine and left no container behind.
func (b *ballot) overruled(containers []core.Container) bool {
	switch {
	case b.lacks, errors.Is(b.fault, errNotOffered):
		return true
	case b.entry.Required || b.fault.kind == faultCanceled:
		return false
	case b.entry.WhenUnavailable == Ignore:
		return true
	}
	return b.fault.kind == faultError && errors.Is(b.fault.err, core.ErrEngineAbsent) &&
		!slices.ContainsFunc(containers, func(c core.Container) bool { return fits(b.entry.Hints, c) })
}

// checkPins validates a plugin's whole answer to images. One flaw and nothing of it counts.
func checkPins(images []core.Image, pins []core.Pin) (map[core.ImageID]core.Pin, error) {
	if len(pins) > len(images) {
		return nil, fmt.Errorf("it gave %d pins of %d images", len(pins), len(images))
	}
	asked := make(map[core.ImageID]bool, len(images))
	for _, i := range images {
		asked[i.ID] = true
	}
	valid := make(map[core.ImageID]core.Pin, len(pins))
	for _, p := range pins {
		if !asked[p.Image] {
			return nil, fmt.Errorf("it gave a pin of image %.64q, which it was not asked about", p.Image)
		}
		if _, doubled := valid[p.Image]; doubled {
			return nil, fmt.Errorf("it gave two pins of image %s", p.Image.Short())
		}
		switch p.Pinned {
		case core.PinnedUnknown, core.PinnedNo, core.PinnedYes:
		default:
			return nil, fmt.Errorf("its pin of image %s does not exist", p.Image.Short())
		}
		if len(p.Reason)+len(p.Advice) > maxText {
			return nil, fmt.Errorf("its pin of image %s is too long", p.Image.Short())
		}
		valid[p.Image] = p
	}
	for id := range asked {
		if _, ok := valid[id]; !ok {
			return nil, fmt.Errorf("it gave no pin of image %s", id.Short())
		}
	}
	return valid, nil
}

// pin makes one image's pin of all the ballots. One that pins it outweighs those in doubt: it is kept
// either way, and a pin says more.
func pin(id core.ImageID, ballots []*ballot) core.Pin {
	all := core.Pin{Image: id, Pinned: core.PinnedNo}
	var reasons, advice []string
	add := func(pinned core.Pinned, b *ballot, reason, what string) {
		if all.Pinned != pinned {
			all = core.Pin{Image: id, Pinned: pinned}
			reasons, advice = nil, nil
		}
		all.Owners = append(all.Owners, b.entry.Name)
		reasons, advice = append(reasons, oneLine(reason)), append(advice, oneLine(what))
	}
	for _, b := range ballots {
		p := b.pins[id]
		switch {
		case p.Pinned == core.PinnedYes:
			if p.Reason == "" {
				p.Reason = "pinned by " + b.entry.Name
			}
			if p.Advice == "" {
				p.Advice = "unpin it in " + b.entry.Name
			}
			add(core.PinnedYes, b, p.Reason, p.Advice)
		case p.Pinned == core.PinnedNo || all.Pinned == core.PinnedYes:
		case b.fault != nil:
			add(core.PinnedUnknown, b, failure(b.entry, b.fault, "which may pin it"), repair(b.entry, b.fault, withoutPins))
			all.Garbage = all.Garbage || b.fault.kind == faultGarbage
		case b.entry.WhenUnavailable == Ignore:
			// It cannot tell of this one, and is not to be waited for.
		default:
			reason := b.entry.Name + " cannot tell whether it pins it"
			if p.Reason != "" {
				reason += ": " + p.Reason
			}
			if p.Advice == "" {
				p.Advice = fmt.Sprintf(`set [plugin.%s] when_unavailable = "ignore" in config.toml %s`, b.entry.Name, withoutPins)
			}
			add(core.PinnedUnknown, b, reason, p.Advice)
		}
	}
	slices.Sort(all.Owners)
	all.Reason, all.Advice = strings.Join(reasons, "; "), strings.Join(advice, "; ")
	return all
}

const withoutPins = "to go on without its pins"

// cloneImages gives a plugin images of its own.
func cloneImages(images []core.Image) []core.Image {
	copies := slices.Clone(images)
	for i := range copies {
		copies[i].Names = slices.Clone(copies[i].Names)
		copies[i].Digests = slices.Clone(copies[i].Digests)
		copies[i].OwnLayers = slices.Clone(copies[i].OwnLayers)
		copies[i].Instances = slices.Clone(copies[i].Instances)
		copies[i].Labels = maps.Clone(copies[i].Labels)
	}
	return copies
}
