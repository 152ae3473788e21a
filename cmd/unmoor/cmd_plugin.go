package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/plugins/sdk"
	"github.com/unmoor/unmoor/plugins/sdk/conformance"
)

func (a *app) pluginCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "plugin", Short: "Serve a plugin on a socket of its own, or check one",
		Args: none,
		RunE: func(*cobra.Command, []string) error { return usagef("missing command: unmoor plugin serve|check") },
	}
	cmd.AddCommand(a.pluginServeCommand(), a.pluginCheckCommand())
	return cmd
}

func (a *app) pluginServeCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "serve [flags] NAME",
		Short: "Serve a plugin that is built in on a socket of its own",
		Long: `Serve a plugin that is built in (` + strings.Join(engines, ", ") + `) on a socket of its own, with the settings of [plugin.NAME],
so that it runs apart from the daemon, under a unit of its own. [plugin.NAME] socket has the daemon use it.

The socket is the one that the service manager passes in, or else --socket. Only root and the plugin's own
user may call. SIGTERM ends it, after what it was asked to stop or remove by then.`,
		Args: one("a plugin: " + strings.Join(engines, ", ")),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.configure(cmd); err != nil {
				return err
			}
			a.logAsService()
			p, err := engine(args[0], a.config)
			if err != nil {
				return err
			}
			return sdk.Serve(cmd.Context(), p, sdk.Options{Socket: socket, Logger: slog.Default()})
		},
		ValidArgs: engines,
	}
	cmd.Flags().StringVar(&socket, "socket", "", "listen on `path`, which ends in NAME.sock (default "+sdk.DefaultSocket("NAME")+")")
	return cmd
}

// checkFlags are those of plugin check.
type checkFlags struct {
	container string
	timeout   time.Duration
	format    string
}

func (a *app) pluginCheckCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check [flags] ADDRESS | COMMAND [ARG...]",
		Short: "Judge a plugin by the rules of its protocol",
		Long: `Judge a plugin, in whatever language it is written, by the rules of its protocol, and say which hold and
which fail, and why. The plugin is the one that serves the socket at ADDRESS (unix:/path, or a path), or
the one that COMMAND starts, which is passed a socket as the daemon does.

It is asked about containers that are made up, in a store that is made up too, unless --root names one.
Nothing that exists is asked to be stopped or removed, but for the container that --container names: that
one is stopped and removed.

Exit codes: 0 all that was judged holds, 1 something fails, 125 the plugin could not be judged.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("name the plugin's address, such as unix:/run/unmoor/plugins/NAME.sock, or its command")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.pluginCheck(cmd, &f, args) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command is its own
	flags.StringVar(&f.container, "container", "", "try the plugin on a `container` of its engine, which is stopped and removed")
	flags.DurationVar(&f.timeout, "timeout", 30*time.Second, "how `long` one answer may take")
	flags.StringVar(&f.format, "format", "", "print the report as `json`")
	return cmd
}

func (a *app) pluginCheck(cmd *cobra.Command, f *checkFlags, args []string) error {
	if f.format != "" && !strings.EqualFold(f.format, "json") {
		return usagef("--format knows json, and not %q", f.format)
	}
	if f.timeout <= 0 {
		return usagef("--timeout %s leaves no time", f.timeout)
	}
	if err := a.configure(cmd); err != nil {
		return err
	}
	ctx := cmd.Context()
	o := conformance.Options{Deadline: f.timeout, Grace: time.Duration(a.config.Removal.GracePeriod)}
	if f.container != "" || cmd.Flags().Changed("root") {
		if err := a.checkedStore(ctx, f.container, &o); err != nil {
			return err
		}
	}
	target, closing, err := a.target(args)
	if err != nil {
		return err
	}
	report, err := conformance.Run(ctx, target, o)
	if err = errors.Join(err, closing()); err != nil {
		return err
	}
	if report.Count(conformance.Fails) > 0 {
		a.code = max(a.code, exitUnknown)
	}
	if f.format != "" {
		return a.writeJSON(report)
	}
	return report.Text(a.out)
}

// target is an address, or else a command that is started.
func (a *app) target(args []string) (conformance.Target, func() error, error) {
	path, isAddress := strings.CutPrefix(args[0], "unix:")
	if info, err := os.Stat(args[0]); err == nil && info.Mode().Type() == fs.ModeSocket {
		isAddress = true
	}
	if !isAddress {
		p, err := conformance.Start(args, a.err)
		if err != nil {
			return nil, nil, err
		}
		return p, p.Close, nil
	}
	if err := none(nil, args[1:]); err != nil {
		return nil, nil, err
	}
	path, _, _ = strings.Cut(path, ";")
	return conformance.Socket(path), func() error { return nil }, nil
}

// checkedStore has the plugin asked about the store that is configured, and about one container of it.
func (a *app) checkedStore(ctx context.Context, reference string, o *conformance.Options) error {
	if err := checkStore(a.config.Store); err != nil {
		return err
	}
	m, err := a.open(ctx, a.config)
	if err != nil {
		return err
	}
	defer m.close()
	o.Store = m.engine.Store.Info()
	if reference == "" {
		return nil
	}
	meaning, err := m.local(a.config, a.configFile, nil).Resolve(ctx, service.Targets{Containers: []string{reference}})
	if err != nil {
		return err
	}
	if len(meaning.Refusals) > 0 {
		return meaning.Refusals[0].Err
	}
	snapshot, err := m.engine.Store.Snapshot(ctx)
	if err != nil {
		return err
	}
	for _, c := range snapshot.Containers {
		if slices.Contains(meaning.Targets, string(c.ID)) {
			o.Container = &c
			return nil
		}
	}
	return usagef("--container %s: it has just gone", reference)
}
