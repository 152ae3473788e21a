package sdk

import (
	"context"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Plugin speaks for one engine. It answers only for that engine, in the store that it is asked about,
// and never deletes what the engine does not own. Its methods may be called from several goroutines at
// once, and return soon after ctx ends.
type Plugin interface {
	// Describe says who the plugin is and what its engine's containers look like. An error says that the
	// engine cannot answer at present; Name, Engine and Hints count even then, and Name never changes.
	Describe(ctx context.Context) (core.Description, error)
	// Claim says which of the containers the engine owns, and whether they are in use: exactly one
	// claim a container, in any order, without side effects. "Could not find out" is
	// core.OwnershipUnknown. An error means that the engine could not be asked at all; one with a method
	// Advice() string says with it what an operator can do, and one that wraps core.ErrEngineAbsent that
	// the engine is not on this machine.
	Claim(ctx context.Context, store core.StoreInfo, containers []core.Container) ([]core.Claim, error)
	// Stop stops containers the engine's own way, all of them side by side, with grace between the
	// polite signal and the forcible one; zero is the forcible one at once. There is one outcome a
	// handle. A container that is stopped or gone is a success; one that is another engine's is refused
	// with an error that wraps core.ErrNotOwner, and one that is not as its claim's revision says with
	// core.ErrPlanStale.
	Stop(ctx context.Context, store core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome
	// Remove removes stopped containers the engine's own way, its records included, likewise. One that
	// runs again is refused with an error that wraps core.ErrStillInUse.
	Remove(ctx context.Context, store core.StoreInfo, handles []core.Handle) []core.Outcome
}

// Pinner is a Plugin whose engine can pin images: it wants them kept, containers or not.
type Pinner interface {
	// Pins says which of the images the engine pins: exactly one pin an image, in any order, without
	// side effects. What it cannot tell of one image is a pin that is unknown, with the reason. An error
	// is as one of Claim.
	Pins(ctx context.Context, store core.StoreInfo, images []core.Image) ([]core.Pin, error)
}

// Lister is a Plugin whose engine has records of its own about its containers.
type Lister interface {
	// List claims every container that the engine has in the store, also those whose storage is gone.
	// Handles with these claims may be given to Stop and Remove for containers that the store does not
	// have. An error is as one of Claim.
	List(ctx context.Context, store core.StoreInfo) ([]core.Claim, error)
}

// Builder is a Plugin whose engine builds images.
type Builder interface {
	// Build builds an image in the store, names it and returns its ID. output is told of each line that the
	// engine writes; it may be called from several goroutines at once, and not after Build has returned. ctx
	// ends the build: the caller has gone away, or the plugin is told to end. An error says why there is no
	// image; one that wraps core.ErrEngineAbsent, or has a method Advice() string, is as one of Claim.
	Build(ctx context.Context, store core.StoreInfo, r core.BuildRequest, output func(line string)) (core.ImageID, error)
}

// Settled tells the caller of an outcome before Stop or Remove returns, in the ctx of that call. The
// first outcome of a container counts; it may be among those that are returned, too. Where nobody
// listens, nothing is done.
func Settled(ctx context.Context, o core.Outcome) {
	if l, ok := ctx.Value(ledgerKey{}).(*ledger); ok {
		l.settle(o)
	}
}

type ledgerKey struct{}
