package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/hooks"
	"github.com/unmoor/unmoor/internal/audit"
	"github.com/unmoor/unmoor/internal/config"
	"github.com/unmoor/unmoor/internal/daemon"
	"github.com/unmoor/unmoor/internal/journal"
	"github.com/unmoor/unmoor/internal/sdnotify"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/wire"
)

// serving is the daemon with all that a new configuration changes.
type serving struct {
	app   *app
	cmd   *cobra.Command
	level *slog.LevelVar

	registry *hooks.Registry
	daemon   *daemon.Daemon
	// config is in force, and came from a file, or from none.
	config config.Config
	file   string
	// store is what is served, for people.
	store string
	// broken has why the service can do no more than end.
	broken chan error
}

func (a *app) newServing(cmd *cobra.Command, level *slog.LevelVar) (*serving, error) {
	ctx := cmd.Context()
	s := &serving{app: a, cmd: cmd, level: level, broken: make(chan error, 1)}
	entries, err := entries(a.config)
	if err != nil {
		return nil, err
	}
	options := pluginOptions(a.config)
	options.Changed = func(p hooks.PluginStatus) {
		if s.daemon != nil { // what is found at the start is no change
			s.daemon.PluginChanged(pluginOf(p))
		}
	}
	if s.registry, err = hooks.New(entries, options); err != nil {
		return nil, err
	}
	setup, err := s.setup(ctx, a.config, a.configFile)
	if err != nil {
		s.registry.Close()
		return nil, err
	}
	var o daemon.Options
	if f, ok := a.err.(*os.File); ok && journal.Listens(f) {
		o.Comings = noteComings(slog.New(journal.New(f, slog.LevelInfo)))
	}
	s.daemon = daemon.New(setup, o)
	return s, nil
}

// noteComings has a log say, whatever the level of others, what came into the store and what went, as the
// engines' users look for it in the journal.
func noteComings(log *slog.Logger) func(service.Event) {
	return func(e service.Event) {
		attributes := []any{"sequence", e.Sequence, "operation", e.Operation}
		if e.UID != nil {
			attributes = append(attributes, "uid", *e.UID)
		}
		if e.Image != "" {
			attributes = append(attributes, "image", e.Image, "names", strings.Join(e.Names, " "))
		}
		if a := e.Action; a != nil {
			if a.Container != "" {
				attributes = append(attributes, "container", a.Container)
			} else {
				attributes = append(attributes, "image", a.Image)
			}
			attributes = append(attributes, "name", a.Name)
			if a.Owner != "" {
				attributes = append(attributes, "by", a.Owner)
			}
		}
		log.Info(string(e.Type), attributes...)
	}
}

// setup opens what a configuration of a file names.
func (s *serving) setup(ctx context.Context, c config.Config, file string) (*daemon.Setup, error) {
	access, err := daemon.NewAccess(c.Access.Read, c.Access.Write)
	if err != nil {
		return nil, err
	}
	m, err := openStore(ctx, c, s.registry, storeOptions{labels: true, step: s.app.step, broken: func(err error) {
		select {
		case s.broken <- err:
		default: // one reason is enough
		}
	}})
	if err != nil {
		return nil, err
	}
	log, err := openAudit(c.Audit)
	if err != nil {
		m.close()
		return nil, err
	}
	local, info := m.local(c, file, s.app.step), m.engine.Store.Info()
	local.Journal = m.watch(ctx)
	s.config, s.file, s.store = c, file, fmt.Sprintf("%s (%s)", info.GraphRoot, info.GraphDriver)
	return &daemon.Setup{
		Service: local, Plugins: roster{s.registry}, Access: access, Audit: log, Process: m.process, PruneEvery: pruneEvery(c.Prune),
		Close: func() {
			m.close()
			if log == nil {
				return
			}
			if err := log.Close(); err != nil {
				slog.Warn("close the audit log", "error", err)
			}
		},
	}, nil
}

// openAudit opens the audit log; it is nil where there is to be none.
func openAudit(c config.Audit) (*audit.Log, error) {
	if !c.Enabled {
		return nil, nil
	}
	path := c.File
	if path == "" {
		path = "/var/log/unmoor/audit.log"
		if cstore.Rootless() {
			path = ofState("unmoor/audit.log")
		}
	}
	if path == "" {
		return nil, errors.New("neither $XDG_STATE_HOME nor $HOME is set, and so there is no usual place for the audit log: " +
			"name one with file under [audit], or do without by enabled = false")
	}
	return audit.Open(audit.Options{Path: path, MaxSize: int64(c.MaxSize), Keep: c.Keep, Logger: slog.Default()})
}

// reload takes the configuration as it is now. Where that is wrong, or does not open, the one before stays.
func (s *serving) reload(ctx context.Context) {
	sdnotify.Reloading()
	c, file, err := s.app.effective(s.cmd)
	switch {
	case err != nil:
	case file == "" && s.file != "": // what it protected would go without a word
		err = fmt.Errorf("%s is gone: start the service again to go on without it", s.file)
	default:
		err = s.replace(ctx, c, file)
	}
	if err != nil {
		slog.Error("the configuration is not taken; the one before stays in force", "error", err)
		sdnotify.Ready(s.status() + "; the new configuration is not taken: " + err.Error())
		return
	}
	slog.Info("the configuration is taken", "file", file)
	sdnotify.Ready(s.status())
}

func (s *serving) replace(ctx context.Context, c config.Config, file string) error {
	if err := checkStore(c.Store); err != nil {
		return err
	}
	entries, err := entries(c)
	if err != nil {
		return err
	}
	before := *s
	setup, err := s.setup(ctx, c, file)
	if err != nil {
		return err
	}
	// The last that can fail; it changes the plugins of removals that go on, too.
	if err := s.registry.Configure(entries); err != nil {
		s.config, s.file, s.store = before.config, before.file, before.store
		setup.Close()
		return err
	}
	s.daemon.Replace(setup)
	s.level.Set(logLevel(c.Log.Level))
	for section, differs := range map[string]bool{"service": before.config.Service != c.Service, "plugins": before.config.Plugins != c.Plugins} {
		if differs {
			slog.Warn("this section is taken with the next start of the service", "section", section)
		}
	}
	return nil
}

func (s *serving) status() string { return "Serves the store at " + s.store }

// close ends what run does not.
func (s *serving) close() {
	s.daemon.Close()
	s.registry.Close()
}

// answers is nil where the service at a socket answers. That it hangs up at once, since too many are
// connected, or has a queue before it, is a sign of life too.
func answers(ctx context.Context, socket string) error {
	const between = 50 * time.Millisecond
	for {
		err := ask(ctx, socket)
		if !errors.Is(err, unix.EAGAIN) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(between):
		}
	}
}

func ask(ctx context.Context, socket string) error {
	c, err := wire.Dial(ctx, "unix:"+socket, wire.DialOptions{})
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // Nothing was written that could be lost.
	err = c.Call(ctx, "org.varlink.service.GetInfo", nil, nil)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		return nil
	}
	return err
}

// roster is the registry, as the daemon asks it.
type roster struct{ *hooks.Registry }

func (r roster) Plugins() []service.Plugin {
	plugins := []service.Plugin{}
	for _, s := range r.Status() {
		plugins = append(plugins, pluginOf(s))
	}
	return plugins
}

func (r roster) Register(ctx context.Context, address string) (service.Plugin, error) {
	s, err := r.Registry.Register(ctx, address)
	return pluginOf(s), err
}

func (r roster) Unregister(name string) error {
	err := r.Registry.Unregister(name)
	if errors.Is(err, hooks.ErrPluginUnknown) {
		return fmt.Errorf("%w: %w", err, daemon.ErrPluginUnknown)
	}
	return err
}
