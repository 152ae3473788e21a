package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/service"
)

func (a *app) pluginsCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:   "plugins [flags]",
		Short: "List the plugins that are asked about containers, and how they stand",
		Long: `List the plugins that are asked about containers: built in, named in the configuration, found by their
socket, or registered. A daemon tells how they stood when they were last asked; without one each is
asked who it is.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.listPlugins(cmd, &f) },
	}
	f.registerFormat(cmd, "n")
	cmd.AddCommand(
		&cobra.Command{
			Use: "register ADDRESS", Short: "Have the daemon ask the plugin at an address, too",
			Long: `Have the daemon ask the plugin that serves the socket at ADDRESS (unix:/path), until it is unregistered.`,
			Args: one("the address of a plugin's socket, such as unix:/run/NAME.sock"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.registerPlugin(cmd, args[0]) },
		},
		&cobra.Command{
			Use: "unregister NAME", Short: "Have the daemon forget a plugin",
			Long: `Have the daemon forget a plugin that was registered, or whose socket is gone for good. What its
containers look like is forgotten too: they are nobody's from then on.`,
			Args: one("the name of a plugin"),
			RunE: func(cmd *cobra.Command, args []string) error { return a.unregisterPlugin(cmd, args[0]) },
		})
	return cmd
}

// one wants one argument.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("name %s", what)
		}
		return none(nil, args[1:])
	}
}

func (a *app) listPlugins(cmd *cobra.Command, flags *listFlags) error {
	text := flags.format
	switch {
	case text != "":
	case flags.quiet:
		text = "{{.Name}}"
	default:
		text = "table {{.Name}}\t{{.EngineVersion}}\t{{.Status}}\t{{.Source}}\t{{.Address}}"
	}
	format, err := parseFormat(text, pluginRow{})
	if err != nil {
		return err
	}
	plugins, err := a.askPlugins(cmd)
	if err != nil {
		return err
	}
	rows := make([]pluginRow, len(plugins))
	for i, p := range plugins {
		rows[i] = pluginRow{p}
		if flags.format == "" && !flags.quiet && p.LastError != "" {
			fmt.Fprintf(a.err, "Note: %s: %s\n", plain(p.Name), withAdvice(p))
		}
	}
	return list(a, format, flags, rows, rows, pluginHeadings)
}

// askPlugins asks the daemon, where there is one.
func (a *app) askPlugins(cmd *cobra.Command) ([]service.Plugin, error) {
	if err := a.configure(cmd); err != nil {
		return nil, err
	}
	ctx := cmd.Context()
	c, err := a.connect(ctx, cmd)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return a.plugins(ctx, a.config)
	}
	defer c.Close() //nolint:errcheck // The answer was read, or the error is known.
	return c.Plugins(ctx)
}

func withAdvice(p service.Plugin) string {
	if p.Advice == "" {
		return oneLine(p.LastError)
	}
	return oneLine(p.LastError) + ": " + oneLine(p.Advice)
}

func (a *app) registerPlugin(cmd *cobra.Command, address string) error {
	return a.askDaemon(cmd, func(ctx context.Context, c *client.Client) error {
		p, err := c.RegisterPlugin(ctx, address)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "Registered: plugin %s at %s (%s)\n", plain(p.Name), plain(p.Address), plain(p.Status))
		return nil
	})
}

func (a *app) unregisterPlugin(cmd *cobra.Command, name string) error {
	return a.askDaemon(cmd, func(ctx context.Context, c *client.Client) error {
		if err := c.UnregisterPlugin(ctx, name); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "Unregistered: plugin %s\n", plain(name))
		return nil
	})
}

var pluginHeadings = map[string]string{
	"Name": "NAME", "EngineVersion": "VERSION", "Status": "STATUS", "Source": "SOURCE", "Address": "ADDRESS", "Required": "REQUIRED",
	"WhenUnavailable": "WHEN UNAVAILABLE", "ProtocolVersion": "PROTOCOL", "Capabilities": "CAPABILITIES", "LastError": "LAST ERROR",
	"LastSeen": "LAST SEEN", "Advice": "ADVICE",
}

// pluginRow is what a template sees of a plugin.
type pluginRow struct{ plugin service.Plugin }

func (r pluginRow) Name() string            { return plain(r.plugin.Name) }
func (r pluginRow) Source() string          { return plain(r.plugin.Source) }
func (r pluginRow) Required() bool          { return r.plugin.Required }
func (r pluginRow) WhenUnavailable() string { return plain(r.plugin.WhenUnavailable) }
func (r pluginRow) Status() string          { return plain(r.plugin.Status) }
func (r pluginRow) Address() string         { return orDash(r.plugin.Address) }
func (r pluginRow) EngineVersion() string   { return orDash(r.plugin.EngineVersion) }
func (r pluginRow) ProtocolVersion() int    { return r.plugin.ProtocolVersion }
func (r pluginRow) Capabilities() string    { return plain(strings.Join(r.plugin.Capabilities, ",")) }
func (r pluginRow) LastError() string       { return oneLine(r.plugin.LastError) }
func (r pluginRow) LastSeen() string        { return ago(r.plugin.LastSeen) }
func (r pluginRow) Advice() string          { return oneLine(r.plugin.Advice) }

// MarshalJSON writes the plugin.
func (r pluginRow) MarshalJSON() ([]byte, error) { return json.Marshal(r.plugin) }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}
