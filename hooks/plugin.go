package hooks

import (
	"context"
	"fmt"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Plugin speaks for one engine. It answers only for that engine, in the store that it is asked
// about, and never deletes what the engine does not own. Its methods may be called from several
// goroutines at once, and return soon after ctx ends.
type Plugin interface {
	// Describe says who the plugin is. The name equals its entry's.
	Describe(ctx context.Context) (core.Description, error)
	// Claim says which of the containers the engine owns, and whether they are in use: exactly one
	// claim a container, in any order, without side effects. An error means that the engine could
	// not be asked at all; one with a method Advice() string says with it what an operator can do.
	Claim(ctx context.Context, store core.StoreInfo, containers []core.Container) ([]core.Claim, error)
	// Stop stops containers the engine's own way, all of them side by side, with grace between the
	// polite signal and the forcible one; zero is the forcible one at once. There is one outcome a
	// handle. A container that is stopped or gone is a success.
	Stop(ctx context.Context, store core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome
	// Remove removes stopped containers the engine's own way, its records included. There is one
	// outcome a handle. A container that is gone is a success; one that runs again is refused with
	// an error that wraps core.ErrStillInUse.
	Remove(ctx context.Context, store core.StoreInfo, handles []core.Handle) []core.Outcome
}

// Pinner is a Plugin whose engine can pin images: it wants them kept, containers or not.
type Pinner interface {
	// Pins says which of the images the engine pins: exactly one pin an image, in any order, without
	// side effects. What it cannot tell of one image is a pin that is unknown, with the reason. An
	// error means that the engine could not be asked at all, and wraps core.ErrEngineAbsent where it
	// is not on this machine.
	Pins(ctx context.Context, store core.StoreInfo, images []core.Image) ([]core.Pin, error)
}

// WhenUnavailable says what becomes of the containers that a plugin may own, and of the images that
// it may pin, while it cannot answer for them.
type WhenUnavailable int

// The choices of an operator. The zero value keeps them.
const (
	Block WhenUnavailable = iota
	Ignore
)

// The deadlines of an entry that sets none.
const (
	DefaultClaimTimeout  = 30 * time.Second
	DefaultStopMargin    = 30 * time.Second
	DefaultRemoveTimeout = 2 * time.Minute
)

// Entry is a plugin with its settings.
type Entry struct {
	// Name is the plugin's, such as podman; it stands in holdings and in config.toml.
	Name string
	// One of these is set, or Disabled is: a plugin of this process; the address of the socket that it
	// serves, unix:/path; how it is started, to serve a socket that is passed to it as a service manager
	// does (sd_listen_fds(3)).
	Plugin  Plugin
	Address string
	Command []string
	// Disabled is whether it is not asked, wherever it comes from: its containers are nobody's.
	Disabled bool
	// Hints hold even when the plugin never answered. An entry without hints may own whatever no other one claims. Those that
	// a plugin on a socket has told of are added.
	Hints []core.ClaimHint
	// Required is whether no container may be touched while the plugin does not answer, and where it
	// is a Pinner, no image.
	Required bool
	// WhenUnavailable says what a failure means for the containers that fit a hint, and for images.
	// A required plugin cannot be ignored.
	WhenUnavailable WhenUnavailable
	// ClaimTimeout bounds a call of Claim, Pins or Describe, RemoveTimeout one of Remove; StopMargin is
	// what a call of Stop may take beyond the grace period. Zero is the default. Stop and Remove are
	// given another 200 ms for each container of their batch, and Stop another grace period for every
	// eight: an engine may have no more workers. The end of that time ends the waiting; an engine that
	// is at work is not to be broken off.
	ClaimTimeout  time.Duration
	StopMargin    time.Duration
	RemoveTimeout time.Duration

	source Source
	// kept is whether nothing but what is remembered of it speaks for it.
	kept bool
}

// setting is what an operator writes into config.toml. A plugin that is in no section of it needs its
// address there too.
func (e Entry) setting(assignment string) string {
	if e.source == SourceDirectory || e.source == SourceRegistered {
		return fmt.Sprintf(`[plugin.%s] address = %q and %s in config.toml`, e.Name, e.Address, assignment)
	}
	return fmt.Sprintf(`[plugin.%s] %s in config.toml`, e.Name, assignment)
}

func (e Entry) withDefaults() Entry {
	if e.ClaimTimeout <= 0 {
		e.ClaimTimeout = DefaultClaimTimeout
	}
	if e.StopMargin <= 0 {
		e.StopMargin = DefaultStopMargin
	}
	if e.RemoveTimeout <= 0 {
		e.RemoveTimeout = DefaultRemoveTimeout
	}
	return e
}
