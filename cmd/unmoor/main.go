package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/kernel"
	"github.com/unmoor/unmoor/hooks"
	"github.com/unmoor/unmoor/internal/config"
	"github.com/unmoor/unmoor/internal/usage"
)

func main() { os.Exit(run()) }

func run() int {
	if cstore.Reexec() {
		return exitDone
	}
	// The first signal ends the work between two actions, the second one the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	// A reader of our output that goes away is an error of a write, and no reason to die in the
	// middle of a removal. (To ignore the signal would be inherited by the engines.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	a := &app{out: newOutput(os.Stdout), err: os.Stderr, in: os.Stdin, step: failpoint(), socket: defaultSocket(), plugins: describePlugins}
	a.open = func(ctx context.Context, c config.Config) (*machine, error) {
		return openMachine(ctx, c, a.labels, a.step)
	}
	return a.run(ctx, os.Args[1:])
}

// openMachine wires the real parts. labels is whether to read those of images. step, where it is set, is told of
// the store's own steps too.
func openMachine(ctx context.Context, c config.Config, labels bool, step func(string)) (*machine, error) {
	if err := enterUserNamespace(c.Podman.Command); err != nil {
		return nil, err
	}
	entries, err := entries(c)
	if err != nil {
		return nil, err
	}
	plugins, err := hooks.New(entries, pluginOptions(c))
	if err != nil {
		return nil, err
	}
	m, err := openStore(ctx, c, plugins, storeOptions{labels: labels, step: step})
	if err != nil {
		return nil, err
	}
	closeStore := m.close
	m.close = func() {
		plugins.Close()
		closeStore()
	}
	return m, nil
}

// storeOptions are what a configuration does not say of a store.
type storeOptions struct {
	// labels is whether to read those of images.
	labels bool
	// step is told of the store's own steps, broken when this process can do no more than end.
	step   func(string)
	broken func(error)
}

// openStore opens the store and what looks at it, for plugins that are somebody else's to close.
func openStore(ctx context.Context, c config.Config, plugins *hooks.Registry, o storeOptions) (*machine, error) {
	options := cstore.Options{
		GraphRoot: c.Store.Root, RunRoot: c.Store.RunRoot, Driver: c.Store.Driver, DriverOptions: c.Store.Options,
		ImageLabels: o.labels || len(c.Protect.Labels) > 0,
		Logger:      slog.Default(),
		Broken:      o.broken,
	}
	if o.step != nil {
		// The engine has a delete_container of its own.
		options.Step = func(name string) { o.step("store_" + name) }
	}
	store, err := cstore.Open(ctx, options)
	if err != nil {
		return nil, err
	}
	inspector, err := kernel.New(kernel.Options{Logger: slog.Default(), AllProcessesHere: c.Store.AllProcessesHere,
		Launcher: launcher()})
	if err != nil {
		return nil, fmt.Errorf("look at processes and mounts: %w", err)
	}
	engine := &core.Engine{Store: store, Owners: plugins, Kernel: inspector}
	return &machine{
		engine:  engine,
		doctor:  &core.Doctor{Engine: engine, Store: store, Owners: plugins, Kernel: inspector},
		builder: plugins,
		loader:  store,
		process: inspector.Process,
		journal: usage.Of(store.Info().GraphRoot),
		places:  store.Places(),
		close: func() {
			if err := inspector.Close(); err != nil {
				slog.Debug("close the view of processes and mounts", "error", err)
			}
		},
	}, nil
}
