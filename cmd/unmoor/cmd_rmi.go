package main

import (
	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/service"
)

func (a *app) rmiCommand() *cobra.Command {
	var f removalFlags
	cmd := &cobra.Command{
		Use:   "rmi [flags] IMAGE [IMAGE...]",
		Short: "Remove images, and with --force their containers",
		Long: `Remove images, and with --force their containers.

Each image goes whole or not at all: where anything that stands in its way is not lifted by the level
of force, nothing is stopped or removed for it. The other images are removed all the same.

  without --force   containers are never touched
  --force=idle      containers that are proven idle go too
  --force, -f       (=stop) containers in use are stopped by their engine first
  --force=kill      processes that use a container and that no engine stops are killed, too`,
		Example: `  unmoor rmi localhost/web:1
  unmoor rmi --force --time 30 web
  unmoor rmi --force=kill --dry-run web`,
		ValidArgsFunction: a.offer(imageNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.rmi(cmd, args, &f) },
	}
	f.register(cmd, "image")
	cmd.Flags().BoolVar(&f.noPrune, "no-prune", false, "keep the parents of the image that have no name")
	f.registerRevision(cmd)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing: print what would be done and what stands in the way")
	return cmd
}

func (a *app) rmi(cmd *cobra.Command, references []string, f *removalFlags) error {
	format, err := f.check(references, "image")
	if err != nil {
		return err
	}
	return a.remove(cmd, service.Targets{Images: references, AllImages: f.all}, f, format)
}

// check finds what is wrong with the flags alone.
func (f *removalFlags) check(references []string, noun string) (*format, error) {
	switch {
	case f.all && len(references) > 0:
		return nil, usagef("--all takes no names: give either")
	case !f.all && len(references) == 0:
		return nil, usagef("name at least one %s, or give --all", noun)
	}
	if f.revision != "" && !isRevision(f.revision) {
		return nil, usagef("--plan wants the revision of a plan: 64 hexadecimal digits, as plan --format json prints")
	}
	return parseFormat(f.format, resultView{})
}
