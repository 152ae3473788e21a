package transcribe

import (
	"github.com/unmoor/unmoor/core"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromBuild writes what is to be built.
func FromBuild(r core.BuildRequest) removal.BuildRequest {
	return removal.BuildRequest{Engine: text(r.Engine), Context: r.Context, Containerfiles: names(r.Containerfiles), Names: names(r.Names),
		Arguments: names(r.Args), Labels: names(r.Labels), Target: text(r.Target), Pull: text(r.Pull), NoCache: optional(r.NoCache),
		Layers: optional(r.Layers), Squash: optional(r.Squash), Format: text(r.Format), Network: text(r.Network),
		Isolation: text(r.Isolation), Quiet: optional(r.Quiet)}
}

// ToBuild reads what is to be built, and checks it. Errors: *ParameterError.
func ToBuild(w removal.BuildRequest) (core.BuildRequest, error) {
	r := core.BuildRequest{Engine: value(w.Engine), Context: w.Context, Containerfiles: value(w.Containerfiles), Names: value(w.Names),
		Args: value(w.Arguments), Labels: value(w.Labels), Target: value(w.Target), Pull: value(w.Pull), NoCache: value(w.NoCache),
		Layers: value(w.Layers), Squash: value(w.Squash), Format: value(w.Format), Network: value(w.Network),
		Isolation: value(w.Isolation), Quiet: value(w.Quiet)}
	if err := r.Check(); err != nil {
		return r, &ParameterError{"build", err}
	}
	return r, nil
}
