package protocol

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// FromPin makes a pin for the wire. What the hooks add to pins does not cross.
func FromPin(p core.Pin) (iounmoorplugin.Pin, error) {
	w := iounmoorplugin.Pin{Id: string(p.Image), Pinned: iounmoorplugin.Pinned(p.Pinned.String()),
		Reason: optional(p.Reason), Advice: optional(p.Advice)}
	var word error
	if p.Pinned < core.PinnedUnknown || p.Pinned > core.PinnedYes {
		word = errors.New("it is one that does not exist")
	}
	if err := cmp.Or(checkID("image", w.Id), word); err != nil {
		return w, fmt.Errorf("pin of image %.12q: %w", w.Id, err)
	}
	return w, nil
}

// ToPin reads a pin.
func ToPin(w iounmoorplugin.Pin) (core.Pin, error) {
	p := core.Pin{Image: core.ImageID(w.Id), Reason: value(w.Reason), Advice: value(w.Advice)}
	if err := cmp.Or(checkID("image", w.Id), p.Pinned.UnmarshalText([]byte(w.Pinned))); err != nil {
		return core.Pin{}, fmt.Errorf("pin of image %.12q: %w", w.Id, err)
	}
	return p, nil
}
