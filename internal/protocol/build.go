package protocol

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// FromBuild makes a build for the wire. Which plugin builds is not told: it is the one that is asked.
func FromBuild(r core.BuildRequest) (iounmoorplugin.BuildRequest, error) {
	if err := r.Check(); err != nil {
		return iounmoorplugin.BuildRequest{}, fmt.Errorf("build: %w", err)
	}
	return iounmoorplugin.BuildRequest{Context: r.Context, Containerfiles: texts(r.Containerfiles), Names: texts(r.Names),
		Arguments: texts(r.Args), Labels: texts(r.Labels), Target: optional(r.Target), Pull: optional(r.Pull), NoCache: r.NoCache,
		Layers: r.Layers, Squash: r.Squash, Format: optional(r.Format), Network: optional(r.Network),
		Isolation: optional(r.Isolation), Quiet: r.Quiet}, nil
}

// ToBuild reads a build.
func ToBuild(w iounmoorplugin.BuildRequest) (core.BuildRequest, error) {
	r := core.BuildRequest{Context: w.Context, Containerfiles: typed[string](w.Containerfiles), Names: typed[string](w.Names),
		Args: typed[string](w.Arguments), Labels: typed[string](w.Labels), Target: value(w.Target), Pull: value(w.Pull),
		NoCache: w.NoCache, Layers: w.Layers, Squash: w.Squash, Format: value(w.Format), Network: value(w.Network),
		Isolation: value(w.Isolation), Quiet: w.Quiet}
	if err := r.Check(); err != nil {
		return core.BuildRequest{}, fmt.Errorf("build: %w", err)
	}
	return r, nil
}

// Check wants a reply that can stand where it does: the last one has the image, and no other.
func (o BuildOut) Check(last bool) error {
	switch {
	case !last && o.ImageID != nil:
		return errors.New("it names the image that it built, and goes on")
	case last && o.ImageID == nil:
		return errors.New("it does not say which image it built")
	case last:
		return CheckBuilt(core.ImageID(*o.ImageID))
	}
	return nil
}

// CheckBuilt wants what can be the ID of an image that was built.
func CheckBuilt(id core.ImageID) error { return checkID("the image that it built,", id) }
