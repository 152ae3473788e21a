package main

import (
	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/service"
)

func (a *app) rmCommand() *cobra.Command {
	var f removalFlags
	var volumes bool
	cmd := &cobra.Command{
		Use:   "rm [flags] CONTAINER [CONTAINER...]",
		Short: "Remove containers, whoever owns them",
		Long: `Remove containers, through the engine that owns them or, where none does, from the store.

Idle containers go without --force. One that is in use is kept, unless --force has its engine stop it
(--force=kill: or its processes are killed where no engine does). What an engine takes along, a pod
with its infra container say, is in the plan.`,
		Example: `  unmoor rm web
  unmoor rm --all
  unmoor rm --force --time 30 web db`,
		ValidArgsFunction: a.offer(containerNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if volumes {
				return usagef("--volumes: anonymous volumes are kept; leave it out, and afterwards podman volume prune removes the volumes that nothing uses")
			}
			return a.rm(cmd, args, &f)
		},
	}
	f.register(cmd, "container")
	cmd.Flags().BoolVarP(&volumes, "volumes", "v", false, "refused: volumes are kept (podman volume prune removes those that nothing uses)")
	f.registerRevision(cmd)
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "change nothing: print what would be done and what stands in the way")
	return cmd
}

func (a *app) rm(cmd *cobra.Command, references []string, f *removalFlags) error {
	format, err := f.check(references, "container")
	if err != nil {
		return err
	}
	return a.remove(cmd, service.Targets{Containers: references, AllContainers: f.all}, f, format)
}
