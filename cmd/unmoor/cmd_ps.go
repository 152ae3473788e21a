package main

import (
	"context"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
)

func (a *app) psCommand() *cobra.Command {
	var f listFlags
	var size, all bool
	cmd := &cobra.Command{
		Use:   "ps [flags]",
		Short: "List all containers of the store, with owner and use",
		Long: `List all containers of the store, whoever made them, with the engine that owns them and whether they
are in use. An owner with a question mark may own the container and did not answer.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ps(cmd, &f, size) },
	}
	f.register(cmd, "id, name (a regular expression), owner (or none), use, status, ancestor, pod")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "measure the containers' writable layers")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "does nothing: all containers are always listed")
	return cmd
}

func (a *app) ps(cmd *cobra.Command, flags *listFlags, size bool) error {
	text := flags.format
	switch {
	case text != "":
	case flags.quiet:
		text = "{{.ID}}"
	case size:
		text = "table {{.ID}}\t{{.Names}}\t{{.Owner}}\t{{.State}}\t{{.Use}}\t{{.Image}}\t{{.Created}}\t{{.Size}}"
	default:
		text = "table {{.ID}}\t{{.Names}}\t{{.Owner}}\t{{.State}}\t{{.Use}}\t{{.Image}}\t{{.Created}}"
	}
	format, err := parseFormat(text, containerRow{})
	if err != nil {
		return err
	}
	filter, err := parseFilters(flags.filters, containerFilters...)
	if err != nil {
		return err
	}
	size = size || strings.Contains(text, ".Size")
	return a.ask(cmd, func(ctx context.Context, b backend) error {
		ancestors, err := ancestors(ctx, b, filter["ancestor"])
		if err != nil {
			return err
		}
		rows := []containerRow{}
		err = b.Containers(ctx, service.ContainerQuery{Size: size}, func(c service.Container) error {
			if row := (containerRow{container: c, full: flags.noTrunc, ancestors: ancestors}); row.fits(filter) {
				rows = append(rows, row)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return list(a, format, flags, rows, rows, containerHeadings)
	})
}

// ancestors are the images that the values of a filter mean; of one that means none or several nothing is
// made.
func ancestors(ctx context.Context, b backend, values []string) (map[string]core.ImageID, error) {
	all := make(map[string]core.ImageID)
	for _, v := range values {
		if v == "" {
			continue // which would be all images
		}
		err := b.Images(ctx, v, func(i service.Image) error { all[v] = i.ID; return nil })
		if _, ambiguous := errors.AsType[*core.AmbiguousError](err); err != nil && !ambiguous && unknown(err) == nil {
			return nil, err
		}
	}
	return all, nil
}

var containerFilters = []filterKey{
	{name: "id"}, {"name", expression},
	{name: "owner"}, // a plugin, built in or not
	{"use", oneOf("idle", "in_use", "in-use", "unknown")},
	{"status", oneOf(string(core.StateCreated), string(core.StateRunning), string(core.StatePaused), string(core.StateStopped),
		string(core.StateBuilding), string(core.StateRemoving), exited)},
	{name: "ancestor"}, {name: "pod"},
}

// exited is Podman's word for stopped.
const exited = "exited"

var containerHeadings = map[string]string{
	"ID": "CONTAINER ID", "Names": "NAME", "Owner": "OWNER", "Holding": "HOLDING", "State": "STATE", "Status": "STATE",
	"Use": "USE", "Reason": "REASON", "Image": "IMAGE", "ImageID": "IMAGE ID", "Created": "CREATED",
	"CreatedAt": "CREATED AT", "Size": "SIZE", "Pod": "POD", "LayerID": "LAYER ID", "Mounts": "MOUNTS",
	"DisplayName": "NAME", "Owners": "OWNER", "Group": "POD",
}

// containerRow is what a template sees of a container.
type containerRow struct {
	container service.Container
	full      bool
	// ancestors are the images that the values of the filter mean.
	ancestors map[string]core.ImageID
}

func (r containerRow) ID() string      { return r.cutID(string(r.container.ID)) }
func (r containerRow) ImageID() string { return r.cutID(string(r.container.ImageID)) }
func (r containerRow) LayerID() string { return r.cutID(string(r.container.LayerID)) }
func (r containerRow) Holding() string { return r.container.Holding.String() }
func (r containerRow) Use() string     { return r.container.Use.String() }
func (r containerRow) Reason() string  { return plain(r.container.Reason) }
func (r containerRow) Pod() string     { return plain(r.container.Group) }
func (r containerRow) Mounts() int     { return r.container.Mounts }
func (r containerRow) Status() string  { return r.State() }

// Under the names of the JSON, where those are others.
func (r containerRow) DisplayName() string { return plain(r.container.DisplayName) }
func (r containerRow) Owners() string      { return r.Owner() }
func (r containerRow) Group() string       { return r.Pod() }

// Names is what the owner calls it, else its names in the store.
func (r containerRow) Names() string {
	if name := r.container.DisplayName; name != "" {
		return plain(name)
	}
	return plain(strings.Join(r.container.Names, ","))
}

func (r containerRow) Owner() string {
	c := r.container
	switch c.Holding {
	case core.Owned, core.Contested:
		return plain(strings.Join(c.Owners, ","))
	case core.Unowned:
		return "-"
	case core.Undetermined:
	}
	if len(c.Owners) == 0 {
		return "?"
	}
	return plain(strings.Join(c.Owners, "?,")) + "?"
}

func (r containerRow) State() string {
	if s := r.container.State; s != core.StateNone {
		return plain(string(s))
	}
	return "-"
}

func (r containerRow) Image() string {
	if r.container.Image != "" {
		return plain(r.container.Image)
	}
	if r.container.ImageID == "" {
		return "-"
	}
	return r.ImageID()
}

func (r containerRow) Created() string   { return ago(r.container.Created) }
func (r containerRow) CreatedAt() string { return r.container.Created.String() }

func (r containerRow) Size() string {
	if r.container.Size == nil {
		return "-"
	}
	return humanSize(*r.container.Size)
}

func (r containerRow) cutID(id string) string {
	if r.full {
		return plain(id)
	}
	return short(id)
}

func ago(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return units.HumanDuration(time.Since(t)) + " ago"
}

func (r containerRow) fits(f filter) bool {
	c := r.container
	return f.fits("id", func(v string) bool { return strings.HasPrefix(string(c.ID), v) }) &&
		f.fits("name", func(v string) bool {
			named, err := regexp.Compile(v)
			return err == nil && (named.MatchString(r.Names()) || slices.ContainsFunc(c.Names, named.MatchString))
		}) &&
		f.fits("owner", func(v string) bool {
			return slices.Contains(r.container.Owners, v) || v == "none" && r.container.Holding == core.Unowned
		}) &&
		f.fits("use", func(v string) bool { return strings.ReplaceAll(v, "-", "_") == r.Use() }) &&
		f.fits("status", func(v string) bool {
			if v == exited {
				v = string(core.StateStopped)
			}
			return v == string(r.container.State)
		}) &&
		f.fits("pod", func(v string) bool { return v == r.Pod() }) &&
		f.fits("ancestor", func(v string) bool {
			id, ok := r.ancestors[v]
			return ok && id == c.ImageID || v != "" && strings.HasPrefix(string(c.ImageID), v)
		})
}

// MarshalJSON writes the container.
func (r containerRow) MarshalJSON() ([]byte, error) { return json.Marshal(r.container) }
