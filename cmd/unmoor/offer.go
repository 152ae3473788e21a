package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/service"
)

// offerTime bounds the waiting of whoever types: where the names are not there by then, none are offered.
const offerTime = 3 * time.Second

// offer gives, for an argument that is being typed, what the store calls its images or containers. Where
// there is no store it offers nothing.
func (a *app) offer(kinds ...func(context.Context, backend) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), offerTime)
		defer cancel()
		cmd.SetContext(ctx)
		var fit []string
		err := a.ask(cmd, func(ctx context.Context, b backend) error {
			for _, names := range kinds {
				all, err := names(ctx, b)
				if err != nil {
					return err
				}
				for _, name := range all {
					// A short name is as good; it is offered to whoever begins with it.
					if _, short, ok := strings.Cut(name, "/"); ok && !strings.HasPrefix(name, begun) {
						name = short
					}
					if strings.HasPrefix(name, begun) && plain(name) == name && !slices.Contains(given, name) {
						fit = append(fit, name)
					}
				}
			}
			return nil
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		slices.Sort(fit)
		return slices.Compact(fit), cobra.ShellCompDirectiveNoFileComp
	}
}

// imageNames are those of all images; an ID, cut, stands for one without a name.
func imageNames(ctx context.Context, b backend) ([]string, error) {
	var names []string
	err := b.Images(ctx, "", func(i service.Image) error {
		if names = append(names, i.Names...); i.Dangling {
			names = append(names, i.ID.Short())
		}
		return nil
	})
	return names, err
}

func containerNames(ctx context.Context, b backend) ([]string, error) { return b.ContainerNames(ctx) }
