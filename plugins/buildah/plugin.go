package buildah

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Name is the plugin's name, and the source of its evidence.
const Name = "buildah"

// Options are the settings of a Plugin. The zero value is right for a host.
type Options struct {
	// Command is how buildah is run for a build; empty is "buildah". Nothing else runs it.
	Command []string
	// Builders are the file names of further programs that make working containers. Those whose
	// name has buildah or podman in it need not be listed.
	Builders []string
	// RuntimeDirs are where OCI runtimes keep the state of their containers; empty means those of
	// runc and crun.
	RuntimeDirs []string
	// Settle is how long Stop waits, beyond the grace period, for buildah to tidy up behind a
	// process that was ended. Zero means ten seconds.
	Settle time.Duration
}

// Plugin answers for Buildah. Its methods may be called from several goroutines at once.
type Plugin struct {
	command  []string
	builders []string
	runtimes []string
	settle   time.Duration
}

// New makes a Plugin. It looks at nothing yet.
func New(o Options) *Plugin {
	p := &Plugin{command: o.Command, builders: o.Builders, runtimes: o.RuntimeDirs, settle: o.Settle}
	if len(p.command) == 0 {
		p.command = []string{"buildah"}
	}
	if len(p.runtimes) == 0 {
		p.runtimes = []string{"/run/runc", "/run/crun"}
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			p.runtimes = append(p.runtimes, filepath.Join(dir, "runc"), filepath.Join(dir, "crun"))
		}
	}
	if p.settle <= 0 {
		p.settle = 10 * time.Second
	}
	return p
}

// Hints are what Buildah's containers look like in a store: they have a buildah.json, and no metadata
// from the first moment, before that is written.
func Hints() []core.ClaimHint { return []core.ClaimHint{{File: stateFile}, {NoMetadata: true}} }

// Describe says how Buildah's containers look in a store. The version is left out, since no buildah
// is asked.
func (p *Plugin) Describe(context.Context) (core.Description, error) {
	return core.Description{Name: Name, Engine: "Buildah", Hints: Hints()}, nil
}
