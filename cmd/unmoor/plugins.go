package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/hooks"
	"github.com/unmoor/unmoor/internal/config"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/plugins/buildah"
	"github.com/unmoor/unmoor/plugins/crio"
	"github.com/unmoor/unmoor/plugins/podman"
)

// entries are the plugins that the configuration names: those that are built in, or served elsewhere in
// their place, and others.
func entries(c config.Config) ([]hooks.Entry, error) {
	var all []hooks.Entry
	for _, b := range []struct {
		name   string
		socket string
		hints  []core.ClaimHint
		config config.Plugin
	}{
		{podman.Name, c.Podman.Socket, podman.Hints(), c.Podman.Plugin},
		{buildah.Name, c.Buildah.Socket, buildah.Hints(), c.Buildah.Plugin},
		{crio.Name, c.CRIO.Socket, crio.Hints(), c.CRIO.Plugin},
	} {
		p, err := engine(b.name, c)
		if err != nil {
			return nil, err
		}
		all = append(all, builtin(b.name, p, b.socket, b.hints, b.config))
	}
	for _, x := range c.External {
		e := entry(x.Name, x.Plugin)
		e.Address, e.Command = x.Address, x.Command
		all = append(all, e)
	}
	return all, nil
}

// engines are the plugins that are built in.
var engines = []string{podman.Name, buildah.Name, crio.Name}

// engine is one of them, with its settings.
func engine(name string, c config.Config) (hooks.Plugin, error) {
	switch name {
	case podman.Name:
		return podman.New(podman.Options{Command: c.Podman.Command, Address: c.Podman.Address})
	case buildah.Name:
		return buildah.New(buildah.Options{Command: c.Buildah.Command}), nil
	case crio.Name:
		// Shorter than the deadline of the hooks, so that the plugin can say itself what is slow.
		return crio.New(crio.Options{Address: c.CRIO.Address, Timeout: time.Duration(c.CRIO.ClaimTimeout) * 2 / 3})
	}
	return nil, usagef("no plugin %q is built in: there are %s", name, strings.Join(engines, ", "))
}

// builtin is the entry of an engine that is built in; what it looks like is known wherever it is served.
func builtin(name string, p hooks.Plugin, socket string, hints []core.ClaimHint, c config.Plugin) hooks.Entry {
	e := entry(name, c)
	e.Hints = hints
	if e.Address = socket; socket == "" {
		e.Plugin = p
	}
	return e
}

func entry(name string, c config.Plugin) hooks.Entry {
	e := hooks.Entry{Name: name, Disabled: !c.Enabled, Required: c.Required, ClaimTimeout: time.Duration(c.ClaimTimeout)}
	if c.WhenUnavailable == config.Ignore {
		e.WhenUnavailable = hooks.Ignore
	}
	return e
}

// describePlugins asks the plugins of a configuration who they are.
func describePlugins(ctx context.Context, c config.Config) ([]service.Plugin, error) {
	entries, err := entries(c)
	if err != nil {
		return nil, err
	}
	registry, err := hooks.New(entries, pluginOptions(c))
	if err != nil {
		return nil, err
	}
	defer registry.Close()
	plugins := []service.Plugin{}
	for _, s := range registry.Describe(ctx) {
		plugins = append(plugins, pluginOf(s))
	}
	return plugins, ctx.Err() // which would be theirs
}

// pluginOf is how a plugin stands, for people.
func pluginOf(s hooks.PluginStatus) service.Plugin {
	p := service.Plugin{Name: s.Name, Address: s.Address, Source: string(s.Source), Required: s.Required, WhenUnavailable: string(config.Block),
		Status: string(s.State), EngineVersion: s.EngineVersion, ProtocolVersion: s.ProtocolVersion, Capabilities: append([]string{}, s.Capabilities...),
		LastError: s.LastError, LastSeen: s.LastSeen, Advice: s.Advice}
	if s.WhenUnavailable == hooks.Ignore {
		p.WhenUnavailable = string(config.Ignore)
	}
	return p
}

// pluginOptions say where other plugins are found. Where an ordinary user has no directory of that kind,
// there are none, and nothing is kept.
func pluginOptions(c config.Config) hooks.Options {
	o := hooks.Options{Directory: c.Plugins.Directory, Hints: c.Plugins.Hints, Logger: slog.Default()}
	directory, hints := "/run/unmoor/plugins", "/var/lib/unmoor/hints"
	if cstore.Rootless() {
		directory = below(os.Getenv("XDG_RUNTIME_DIR"), "unmoor/plugins")
		hints = ofState("unmoor/hints")
	}
	if o.Directory == "" {
		o.Directory = directory
	}
	if o.Hints == "" {
		o.Hints = hints
	}
	return o
}

// ofState is a path among what an ordinary user's programs keep; empty where nobody says where that is.
func ofState(path string) string {
	if p := below(os.Getenv("XDG_STATE_HOME"), path); p != "" {
		return p
	}
	return below(os.Getenv("HOME"), filepath.Join(".local/state", path))
}

// below is a path in a directory; empty where that is not named.
func below(directory, path string) string {
	if !filepath.IsAbs(directory) {
		return ""
	}
	return filepath.Join(directory, path)
}
