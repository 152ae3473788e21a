package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
)

func (a *app) planCommand() *cobra.Command {
	var f removalFlags
	cmd := &cobra.Command{
		Use:   "plan [flags] IMAGE|CONTAINER [IMAGE|CONTAINER...]",
		Short: "Say what rmi (or rm, for a container) would do, and change nothing",
		Long: `Say what rmi, or rm where the name is a container's, would do now and what stands in the way. Nothing
is changed. The exit code is that of the removal: 2 where something stands in the way.`,
		ValidArgsFunction: a.offer(allNames),
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
	return a.withMachine(cmd, func(ctx context.Context, m *machine) error {
		j := &job{verb: "rmi", program: a.program, request: f.request(a.grace(cmd, f))}
		if j.snapshot, err = m.engine.Store.Snapshot(ctx); err != nil {
			return err
		}
		if f.all {
			j.addAllImages()
		}
		forced := cmd.Flags().Changed("force")
		// The plan lists images before containers.
		var images, containers []string
		for _, reference := range references {
			_, _, err := m.engine.Store.ResolveImage(ctx, j.snapshot, reference)
			if errors.Is(err, core.ErrImageUnknown) {
				if _, err := matchContainer(j.snapshot, m.displayNames(ctx, j.snapshot), reference); err == nil {
					containers = append(containers, reference)
					continue
				}
			}
			images = append(images, reference)
		}
		if err := a.addImages(ctx, m, j, images, f, forced); err != nil {
			return err
		}
		if err := a.addContainers(ctx, m, j, containers, f, forced); err != nil {
			return err
		}
		return a.remove(ctx, m, j, f, format)
	})
}
