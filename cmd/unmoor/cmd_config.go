package main

import (
	"fmt"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/config"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Check or show the configuration",
		Args: none,
		RunE: func(*cobra.Command, []string) error { return usagef("missing command: unmoor config check|show") },
	}
	cmd.AddCommand(
		&cobra.Command{
			Use: "check [FILE]", Short: "Say whether a configuration file is right",
			Args: func(_ *cobra.Command, args []string) error { return none(nil, args[min(1, len(args)):]) },
			RunE: func(_ *cobra.Command, args []string) error { return a.configCheck(args) },
		},
		&cobra.Command{
			Use: "show", Short: "Print the configuration that is in effect, flags included",
			Args: none,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if err := a.configure(cmd); err != nil {
					return err
				}
				text, err := a.config.TOML()
				fmt.Fprint(a.out, text)
				return err
			},
		})
	return cmd
}

func (a *app) configCheck(args []string) error {
	if len(args) == 1 {
		a.global.config = args[0]
	}
	c, path, err := a.loadConfig()
	if err != nil {
		return err
	}
	if path == "" {
		fmt.Fprintf(a.out, "%s is not there: the defaults are in effect\n", config.DefaultPath)
	} else {
		fmt.Fprintf(a.out, "%s: ok\n", path)
	}
	if c.Podman.Enabled && c.Podman.Address == "" && c.Podman.Socket == "" {
		a.checkProgram("podman", c.Podman.Command)
	}
	for _, e := range c.External {
		if e.Enabled && len(e.Command) > 0 {
			a.checkProgram(e.Name, e.Command)
		}
	}
	return nil
}

func (a *app) checkProgram(plugin string, command []string) {
	if _, err := exec.LookPath(command[0]); err != nil {
		fmt.Fprintf(a.err, "Warning: plugin.%s.command: %s: %s's containers cannot be told or removed without it\n", plugin, plain(err.Error()), plugin)
	}
}
