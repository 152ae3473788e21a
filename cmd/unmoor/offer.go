package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// offered is what can be offered for an argument that is being typed.
type offered int

const (
	offerImages offered = iota
	offerContainers
)

// offerTime bounds the waiting of whoever types: where the names are not there by then, none are offered.
const offerTime = 3 * time.Second

// offer gives, for an argument that is being typed, what the store calls its images or containers. Where
// there is no store it offers nothing.
func (a *app) offer(kinds ...offered) cobra.CompletionFunc {
	return func(cmd *cobra.Command, given []string, begun string) ([]string, cobra.ShellCompDirective) {
		var fit []string
		err := a.ask(cmd, func(ctx context.Context, b backend) error {
			ctx, cancel := context.WithTimeout(ctx, offerTime)
			defer cancel()
			var names [2][]string
			var err error
			if names[offerImages], names[offerContainers], err = b.Names(ctx); err != nil {
				return err
			}
			for _, kind := range kinds {
				for _, name := range names[kind] {
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
