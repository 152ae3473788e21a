package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version, and the daemon's where there is one", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(a.out, "unmoor %s\n", version)
			if err := a.configure(cmd); err != nil {
				return err
			}
			c, err := a.connect(cmd.Context(), cmd)
			if c == nil || err != nil {
				return err
			}
			defer c.Close() //nolint:errcheck // It has said which version it is.
			fmt.Fprintf(a.out, "daemon %s at %s\n", plain(c.Version()), plain(c.Address()))
			return nil
		},
	}
}

func none(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q is one argument too many", args[0])
	}
	return nil
}
