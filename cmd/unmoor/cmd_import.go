package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
)

// importFlags are import's.
type importFlags struct {
	request core.ImportRequest
	copyFlags
}

func (a *app) importCommand() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import [flags] FILE|URL|- [NAME]",
		Short: "Make an image of a root file system",
		Long: `Make an image of a root file system: a tar archive, plain or compressed by gzip, zstd, xz or bzip2, from a
file, a web address or, with -, standard input. The ID of the image is printed.

--change takes instructions of a Containerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL,
USER, VOLUME and WORKDIR. What does not succeed leaves nothing behind.`,
		Example: `  unmoor import root.tar.zst base:1
  unmoor import -c 'CMD ["/bin/sh"]' -m 'as it was' https://example.com/root.tar.gz base:1
  tar -C root -c . | unmoor import - base:1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("name the archive: a file, a web address, or - for standard input")
			}
			return atMost(2)(nil, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.importRoot(cmd, args, &f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.request.Changes, "change", "c", nil, "apply an `instruction` of a Containerfile; may be given several times")
	flags.StringVarP(&f.request.Message, "message", "m", "", "the `text` of the image's history")
	flags.StringVar(&f.request.OS, "os", "", "the `name` of the operating system, if not this one")
	flags.StringVar(&f.request.Architecture, "arch", "", "the `name` of the architecture, if not this machine's")
	flags.StringVar(&f.request.Variant, "variant", "", "the `name` of the architecture's variant")
	f.register(cmd)
	return cmd
}

func (a *app) importRoot(cmd *cobra.Command, args []string, f *importFlags) error {
	r := f.request
	if len(args) > 1 {
		r.Name = args[1]
	}
	return a.askForMore(cmd, func(ctx context.Context, b backend) error {
		source, done, err := f.source(ctx, args[0], false)
		if err != nil {
			return err
		}
		defer done()
		r.Source, r.Copy = source, a.copies(b, &f.copyFlags)
		image, err := b.Import(ctx, r)
		if image.ID != "" {
			fmt.Fprintf(a.out, "sha256:%s\n", image.ID)
		}
		return err
	})
}
