package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
)

// loadFlags are load's.
type loadFlags struct {
	input string
	copyFlags
}

func (a *app) loadCommand() *cobra.Command {
	var f loadFlags
	cmd := &cobra.Command{
		Use:   "load [flags] [NAME]",
		Short: "Put the images of an archive into the store",
		Long: `Put the images of an archive into the store: a Docker archive, an OCI archive, an OCI layout or a directory
as skopeo's dir: writes it. Archives may be compressed. Without --input it is read from standard input.

The images have the names that the archive gives them; one without a registry gets localhost/ before it.
NAME is one more, for an archive with a single image. What does not succeed leaves nothing behind.`,
		Example: `  unmoor load -i web.tar
  podman save web | unmoor load
  unmoor load -i layout/ web:2`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.load(cmd, args, &f) },
	}
	cmd.Flags().StringVarP(&f.input, "input", "i", "-", "read from a `file`, a directory or a web address; - is standard input")
	f.register(cmd)
	return cmd
}

func (a *app) load(cmd *cobra.Command, args []string, f *loadFlags) error {
	var r core.LoadRequest
	if len(args) > 0 {
		r.Name = args[0]
	}
	return a.askForMore(cmd, func(ctx context.Context, b backend) error {
		source, done, err := f.source(ctx, f.input, true)
		if err != nil {
			return err
		}
		defer done()
		r.Source, r.Copy = source, a.copies(b, &f.copyFlags)
		images, err := b.Load(ctx, r)
		for _, i := range images {
			for _, name := range i.Names {
				fmt.Fprintf(a.out, "Loaded image: %s\n", plain(name))
			}
			if len(i.Names) == 0 {
				fmt.Fprintf(a.out, "Loaded image: sha256:%s\n", i.ID)
			}
		}
		return err
	})
}

// atMost lets so many arguments through.
func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("at most %s can be given", plural(n, "argument"))
		}
		return nil
	}
}
