package main

import (
	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/service"
)

func (a *app) planCommand() *cobra.Command {
	var f removalFlags
	cmd := &cobra.Command{
		Use:   "plan [flags] IMAGE|CONTAINER [IMAGE|CONTAINER...]",
		Short: "Say what rmi (or rm, for a container) would do, and change nothing",
		Long: `Say what rmi, or rm where the name is a container's, would do now and what stands in the way. Nothing
is changed. The exit code is that of the removal: 2 where something stands in the way.`,
		ValidArgsFunction: a.offer(imageNames, containerNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.plan(cmd, args, &f) },
	}
	f.register(cmd, "image")
	cmd.Flags().BoolVar(&f.noPrune, "no-prune", false, "keep the parents of the image that have no name")
	f.dryRun = true
	return cmd
}

// plan is rmi --dry-run; names that no image has may be containers'.
func (a *app) plan(cmd *cobra.Command, references []string, f *removalFlags) error {
	format, err := f.check(references, "image")
	if err != nil {
		return err
	}
	return a.remove(cmd, service.Targets{Either: references, AllImages: f.all}, f, format)
}
