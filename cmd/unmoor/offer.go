package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
)

// offer gives, for an argument that is being typed, what the store calls its images or containers.
// That is from a snapshot alone: no engine is asked. Where there is no store it offers nothing.
func (a *app) offer(names func(*core.Snapshot) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		var fit []string
		err := a.withMachine(cmd, func(ctx context.Context, m *machine) error {
			snapshot, err := m.engine.Store.Snapshot(ctx)
			if err != nil {
				return err
			}
			for _, name := range names(snapshot) {
				// A short name is as good; it is offered to whoever begins with it.
				if _, short, ok := strings.Cut(name, "/"); ok && !strings.HasPrefix(name, begun) {
					name = short
				}
				if strings.HasPrefix(name, begun) && plain(name) == name && !slices.Contains(given, name) {
					fit = append(fit, name)
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

func imageNames(s *core.Snapshot) []string {
	var names []string
	for _, i := range s.Images {
		names = append(names, i.Names...)
		if len(i.Names) == 0 {
			names = append(names, i.ID.Short())
		}
	}
	return names
}

func containerNames(s *core.Snapshot) []string {
	var names []string
	for _, c := range s.Containers {
		names = append(names, c.Names...)
		if len(c.Names) == 0 {
			names = append(names, c.ID.Short())
		}
	}
	return names
}

func allNames(s *core.Snapshot) []string { return append(imageNames(s), containerNames(s)...) }
