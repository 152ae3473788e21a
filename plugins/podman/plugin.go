package podman

import (
	"context"
	"fmt"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Name is the plugin's name.
const Name = "podman"

// DefaultSettling is how long Podman is given to write its record of a new container. It waits for the
// pod's lock in between, which a "podman pod stop" holds to its end, and for the database, for 100 s
// with SQLite (libpod/runtime_ctr.go, setupContainer; libpod/sqlite_state.go, 5.4.2).
const DefaultSettling = 10 * time.Minute

// Options say how to reach Podman. The zero value runs "podman".
type Options struct {
	// Command is how to run Podman, with leading arguments: {"chroot", DIR, "podman"}. Empty is
	// {"podman"}.
	Command []string
	// ExtraArgs are global options of Podman's, put before its subcommand.
	ExtraArgs []string
	// TmpDir is passed as --tmpdir where it is set. It is needed only where Podman's own
	// configuration names another one than the database does and Podman does not correct it.
	TmpDir string
	// Env are further environment variables, NAME=value.
	Env []string
	// Address is Podman's API socket, as unix:/path or unix:///path. Where it is set, Command and
	// what belongs to it go unused, and Podman's store is the one that its service has open.
	Address string
	// Settling is how old a container must be before Podman's "no such container" counts. Zero is
	// DefaultSettling, negative none.
	Settling time.Duration
}

// Plugin speaks for Podman. Its methods may be called from several goroutines at once.
type Plugin struct {
	engine   engine
	settling time.Duration
	now      func() time.Time
	proc     processes
}

// New makes the plugin. It runs nothing. An address that is not a unix socket is an error.
func New(options Options) (*Plugin, error) {
	p := &Plugin{settling: options.Settling, now: time.Now, proc: processes{"/proc"}}
	if p.settling == 0 {
		p.settling = DefaultSettling
	}
	if options.Address == "" {
		p.engine = newCLI(options)
		return p, nil
	}
	a, err := newAPI(options.Address)
	if err != nil {
		return nil, err
	}
	p.engine = a
	return p, nil
}

// Hints are what Podman's containers look like in the store: metadata with image-name (libpod/storage.go,
// RuntimeContainerMetadata), without CRI-O's pod-id.
func Hints() []core.ClaimHint {
	return []core.ClaimHint{{MetadataKey: keyImageName, MetadataKeyAbsent: keyPodID}}
}

// Describe says who the plugin is. The error says that Podman could not be asked for its version, which
// is missing then.
func (p *Plugin) Describe(ctx context.Context) (core.Description, error) {
	d := core.Description{Name: Name, Engine: "Podman", Hints: Hints()}
	var err error
	if d.EngineVersion, err = p.engine.version(ctx); err != nil {
		err = fmt.Errorf("ask podman for its version: %w", err)
	}
	return d, err
}
