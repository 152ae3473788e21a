package crio

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// Name is the plugin's name, and the source of its evidence.
const Name = "crio"

// The defaults of Options.
const (
	DefaultAddress       = "unix:///run/crio/crio.sock"
	DefaultTimeout       = 20 * time.Second
	DefaultStopMargin    = 15 * time.Second
	DefaultRemoveTimeout = time.Minute
	DefaultSettling      = 5 * time.Minute
	DefaultParallel      = 16
)

// Options say how to reach CRI-O. The zero value is right for a node.
type Options struct {
	// Address is CRI-O's socket, as unix:///path or unix:/path. Empty is DefaultAddress.
	Address string
	// Timeout is what one question may take. Zero is DefaultTimeout.
	Timeout time.Duration
	// StopMargin is what a stop may take beyond the grace period, RemoveTimeout what a removal may.
	// Zero is the default.
	StopMargin    time.Duration
	RemoveTimeout time.Duration
	// Settling is how old a container with CRI-O's metadata must be before it counts that CRI-O does
	// not list it. Kubernetes gives a creation 4 minutes. Zero is DefaultSettling, negative none.
	Settling time.Duration
	// Parallel is how many removals, or states of images, CRI-O is asked for at once. Zero is
	// DefaultParallel.
	Parallel int
}

// Plugin speaks for CRI-O. Its methods may be called from several goroutines at once.
type Plugin struct {
	socket  string
	options Options
	now     func() time.Time
	proc    processes
}

// New makes the plugin. It connects to nothing. An address that is not a unix socket is an error.
func New(o Options) (*Plugin, error) {
	if o.Address == "" {
		o.Address = DefaultAddress
	}
	path, ok := strings.CutPrefix(o.Address, "unix:")
	if path = filepath.Clean(path); !ok || !filepath.IsAbs(path) || path == "/" {
		return nil, fmt.Errorf("address %q of crio: it is unix:///PATH", o.Address)
	}
	for _, d := range []struct {
		value   *time.Duration
		nothing time.Duration
	}{
		{&o.Timeout, DefaultTimeout}, {&o.StopMargin, DefaultStopMargin}, {&o.RemoveTimeout, DefaultRemoveTimeout},
	} {
		if *d.value <= 0 {
			*d.value = d.nothing
		}
	}
	if o.Settling == 0 {
		o.Settling = DefaultSettling
	}
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	return &Plugin{socket: path, options: o, now: time.Now, proc: processes{"/proc"}}, nil
}

// Hints are what CRI-O's containers look like in the store (cri-o/cri-o, internal/storage/runtime.go,
// RuntimeContainerMetadata). CRI-O takes a container for its own that has both keys; one with either
// is kept while CRI-O cannot be asked.
func Hints() []core.ClaimHint {
	return []core.ClaimHint{{MetadataKey: keyPodID}, {MetadataKey: keyPodName}}
}

// runtimeName is CRI-O's name for itself (server/version.go).
const runtimeName = "cri-o"

// Describe says who the plugin is. The error says that CRI-O could not be asked for its version, which is
// missing then.
func (p *Plugin) Describe(ctx context.Context) (core.Description, error) {
	d := core.Description{Name: Name, Engine: "CRI-O", Hints: Hints()}
	ctx, cancel := context.WithTimeout(ctx, p.options.Timeout)
	defer cancel()
	c, err := p.connect(ctx)
	if err != nil {
		return d, err
	}
	defer c.close()
	version, err := c.version(ctx)
	if err != nil {
		return d, err
	}
	d.EngineVersion = clip(version)
	return d, nil
}

// version asks who answers on the socket. Another runtime than CRI-O is an error.
func (c *client) version(ctx context.Context) (string, error) {
	v, err := c.runtime.Version(ctx, &cri.VersionRequest{})
	if err != nil {
		return "", c.failed("its version", err)
	}
	if v.RuntimeName != runtimeName {
		return "", fmt.Errorf("%s is the socket of %q, not of CRI-O: %w", c.socket, clip(v.RuntimeName), errAddress)
	}
	return v.RuntimeVersion, nil
}

var errAddress = errors.New("set [plugin.crio] address in config.toml to CRI-O's socket")
