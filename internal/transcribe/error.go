package transcribe

import (
	"context"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// ReplyError answers a call with the interface's error for err. reference is what was asked for, where that
// was one thing.
func ReplyError(ctx context.Context, c removal.VarlinkCall, reference string, err error) error {
	var parameter *ParameterError
	var ambiguous *core.AmbiguousError
	var stale *core.StaleError
	var lost *service.EventsLostError
	var format *core.FormatError
	var incomplete *IncompleteError
	switch {
	case errors.As(err, &parameter):
		return wire.ReplyInvalidParameter(ctx, c.Call, parameter.Parameter)
	case errors.As(err, &ambiguous):
		return c.ReplyAmbiguousReference(ctx, reference, texts[string, string](ambiguous.Candidates))
	case errors.Is(err, core.ErrImageUnknown):
		return c.ReplyImageNotFound(ctx, reference)
	case errors.Is(err, core.ErrContainerUnknown):
		return c.ReplyContainerNotFound(ctx, reference)
	case errors.As(err, &stale):
		return c.ReplyPlanStale(ctx, stale.Now)
	case errors.As(err, &lost):
		return c.ReplyEventsLost(ctx, lost.Oldest)
	case errors.As(err, &incomplete):
		return c.ReplyLoadIncomplete(ctx, FromLoadedImages(incomplete.Images), incomplete.Reason)
	case errors.As(err, &format):
		return c.ReplyFormatUnknown(ctx, format.Source, list(format.Trials, fromTrial))
	case errors.Is(err, core.ErrArchiveRefused):
		return c.ReplyArchiveRefused(ctx, err.Error())
	case errors.Is(err, core.ErrStoreUnavailable):
		return c.ReplyStoreUnavailable(ctx, err.Error())
	}
	return c.ReplyOperationFailed(ctx, err.Error())
}

// Error is what an error reply means, with what can be branched on. wanted is the revision that was asked
// for. One that means nothing else is returned as it is.
func Error(reply *wire.Error, wanted string) error {
	var p struct {
		Image          *string   `json:"image"`
		Container      *string   `json:"container"`
		Reference      *string   `json:"reference"`
		Candidates     *[]string `json:"candidates"`
		Revision       *string   `json:"revision"`
		Reason         *string   `json:"reason"`
		Name           *string   `json:"name"`
		Address        *string   `json:"address"`
		OldestSequence *int64    `json:"oldestSequence"`

		Source *string                `json:"source"`
		Trials *[]removal.FormatTrial `json:"trials"`
		Images *[]removal.LoadedImage `json:"images"`
	}
	if err := wire.Decode(reply.Parameters, &p); err != nil {
		return fmt.Errorf("read error reply %s: %w", reply.Name, err)
	}
	switch reply.Name {
	case "io.unmoor.Removal.ImageNotFound":
		return fmt.Errorf("%s: %w", value(p.Image), core.ErrImageUnknown)
	case "io.unmoor.Removal.ContainerNotFound":
		return fmt.Errorf("%s: %w", value(p.Container), core.ErrContainerUnknown)
	case "io.unmoor.Removal.AmbiguousReference":
		return &core.AmbiguousError{Reference: value(p.Reference), Candidates: value(p.Candidates)}
	case "io.unmoor.Removal.InvalidReference":
		return fmt.Errorf("%s: %s", value(p.Reference), value(p.Reason))
	case "io.unmoor.Removal.PlanStale":
		return &core.StaleError{Wanted: wanted, Now: value(p.Revision)}
	case "io.unmoor.Removal.StoreUnavailable":
		return &problem{message: value(p.Reason), cause: core.ErrStoreUnavailable}
	case "io.unmoor.Removal.OperationFailed", "io.unmoor.Removal.BuildFailed":
		return errors.New(value(p.Reason))
	case "io.unmoor.Removal.ArchiveRefused":
		return &problem{message: value(p.Reason), cause: core.ErrArchiveRefused}
	case "io.unmoor.Removal.FormatUnknown":
		trials, err := read(value(p.Trials), toTrial)
		return errors.Join(err, &core.FormatError{Source: value(p.Source), Trials: trials})
	case "io.unmoor.Removal.LoadIncomplete":
		images, err := ToLoadedImages(value(p.Images))
		return errors.Join(err, &IncompleteError{Images: images, Reason: value(p.Reason)})
	case "io.unmoor.Removal.PluginNotFound":
		return fmt.Errorf("no plugin is called %s", value(p.Name))
	case "io.unmoor.Removal.PluginRefused":
		return fmt.Errorf("the plugin at %s cannot be registered: %s", value(p.Address), value(p.Reason))
	case "io.unmoor.Removal.EventsLost":
		return &service.EventsLostError{Oldest: value(p.OldestSequence)}
	}
	return reply
}
