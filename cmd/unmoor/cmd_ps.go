package main

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/buildah"
	"github.com/unmoor/unmoor/plugins/crio"
	"github.com/unmoor/unmoor/plugins/podman"
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
	return a.withMachine(cmd, func(ctx context.Context, m *machine) error {
		snapshot, err := m.engine.Store.Snapshot(ctx)
		if err != nil {
			return err
		}
		holders, err := m.engine.Survey(ctx, snapshot, snapshot.Containers)
		if err != nil {
			return err
		}
		ancestors := make(map[string]core.ImageID)
		for _, v := range filter["ancestor"] {
			if id, _, err := m.engine.Store.ResolveImage(ctx, snapshot, v); err == nil {
				ancestors[v] = id
			} // no such image: nothing is made of it
		}
		rows, views := []containerRow{}, []containerView{}
		for _, h := range holders {
			image, _ := snapshot.Image(h.Container.ImageID)
			row := containerRow{holder: h, image: image, full: flags.noTrunc, ancestors: ancestors}
			if !row.fits(filter) {
				continue
			}
			if size {
				if bytes, err := m.engine.Store.ContainerSize(ctx, h.Container); err == nil {
					row.size = &bytes
				} // a layer that cannot be read: its size is not known, the rest is
			}
			rows, views = append(rows, row), append(views, row.view())
		}
		return list(a, format, flags, rows, views, containerHeadings)
	})
}

var containerFilters = []filterKey{
	{name: "id"}, {"name", expression},
	{"owner", oneOf(podman.Name, buildah.Name, crio.Name, "none")},
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
	holder core.Holder
	image  core.Image
	// size is nil where it is not known.
	size *int64
	full bool
	// ancestors are the images that the values of the filter mean.
	ancestors map[string]core.ImageID
}

func (r containerRow) ID() string      { return r.cutID(string(r.holder.Container.ID)) }
func (r containerRow) ImageID() string { return r.cutID(string(r.holder.Container.ImageID)) }
func (r containerRow) LayerID() string { return r.cutID(string(r.holder.Container.LayerID)) }
func (r containerRow) Holding() string { return r.holder.Holding.Kind.String() }
func (r containerRow) Use() string     { return r.holder.Use.String() }
func (r containerRow) Reason() string  { return plain(r.holder.Reason) }
func (r containerRow) Pod() string     { return plain(r.holder.Holding.Claim.Group) }
func (r containerRow) Mounts() int     { return r.holder.Container.Layer.MountCount }
func (r containerRow) Status() string  { return r.State() }

// Under the names of the JSON, where those are others.
func (r containerRow) DisplayName() string { return plain(r.holder.Holding.Claim.DisplayName) }
func (r containerRow) Owners() string      { return r.Owner() }
func (r containerRow) Group() string       { return r.Pod() }

// Names is what the owner calls it, else its names in the store.
func (r containerRow) Names() string {
	if name := r.holder.Holding.Claim.DisplayName; name != "" {
		return plain(name)
	}
	return plain(strings.Join(r.holder.Container.Names, ","))
}

func (r containerRow) Owner() string {
	h := r.holder.Holding
	switch h.Kind {
	case core.Owned, core.Contested:
		return plain(strings.Join(h.Owners, ","))
	case core.Unowned:
		return "-"
	case core.Undetermined:
	}
	if len(h.Owners) == 0 {
		return "?"
	}
	return plain(strings.Join(h.Owners, "?,")) + "?"
}

func (r containerRow) State() string {
	if s := r.holder.Holding.Claim.State; s != core.StateNone {
		return plain(string(s))
	}
	return "-"
}

func (r containerRow) Image() string {
	if len(r.image.Names) > 0 {
		return plain(r.image.Names[0])
	}
	if r.holder.Container.ImageID == "" {
		return "-"
	}
	return r.ImageID()
}

func (r containerRow) Created() string   { return ago(r.holder.Container.Created) }
func (r containerRow) CreatedAt() string { return r.holder.Container.Created.String() }

func (r containerRow) Size() string {
	if r.size == nil {
		return "-"
	}
	return humanSize(*r.size)
}

func (r containerRow) cutID(id string) string {
	if r.full {
		return id
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
	c := r.holder.Container
	return f.fits("id", func(v string) bool { return strings.HasPrefix(string(c.ID), v) }) &&
		f.fits("name", func(v string) bool {
			named, err := regexp.Compile(v)
			return err == nil && (named.MatchString(r.Names()) || slices.ContainsFunc(c.Names, named.MatchString))
		}) &&
		f.fits("owner", func(v string) bool {
			return slices.Contains(r.holder.Holding.Owners, v) || v == "none" && r.holder.Holding.Kind == core.Unowned
		}) &&
		f.fits("use", func(v string) bool { return strings.ReplaceAll(v, "-", "_") == r.Use() }) &&
		f.fits("status", func(v string) bool {
			if v == exited {
				v = string(core.StateStopped)
			}
			return v == string(r.holder.Holding.Claim.State)
		}) &&
		f.fits("pod", func(v string) bool { return v == r.Pod() }) &&
		f.fits("ancestor", func(v string) bool {
			id, ok := r.ancestors[v]
			return ok && id == c.ImageID || v != "" && strings.HasPrefix(string(c.ImageID), v)
		})
}

// MarshalJSON writes the view.
func (r containerRow) MarshalJSON() ([]byte, error) { return json.Marshal(r.view()) }

// containerView is a container in JSON.
type containerView struct {
	ID          core.ContainerID `json:"id"`
	Names       []string         `json:"names"`
	DisplayName string           `json:"displayName,omitempty"`
	ImageID     core.ImageID     `json:"imageId"`
	// Image is the first name of the image; empty where it has none.
	Image   string           `json:"image"`
	LayerID core.LayerID     `json:"layerId"`
	Created time.Time        `json:"created"`
	Holding core.HoldingKind `json:"holding"`
	Owners  []string         `json:"owners"`
	State   core.State       `json:"state,omitempty"`
	Use     core.Use         `json:"use"`
	Reason  string           `json:"reason"`
	Group   string           `json:"group,omitempty"`
	Mounts  int              `json:"mounts"`
	// Size is the bytes of the writable layer; absent where it was not asked for or is not known.
	Size     *int64          `json:"size,omitempty"`
	Evidence []core.Evidence `json:"evidence"`
}

func (r containerRow) view() containerView {
	c, h := r.holder.Container, r.holder.Holding
	v := containerView{
		ID: c.ID, Names: append([]string{}, c.Names...), DisplayName: h.Claim.DisplayName,
		ImageID: c.ImageID, LayerID: c.LayerID, Created: c.Created,
		Holding: h.Kind, Owners: append([]string{}, h.Owners...), State: h.Claim.State,
		Use: r.holder.Use, Reason: r.holder.Reason, Group: h.Claim.Group, Mounts: c.Layer.MountCount,
		Size: r.size, Evidence: evidence(r.holder),
	}
	if len(r.image.Names) > 0 {
		v.Image = r.image.Names[0]
	}
	return v
}

// evidence is what the owner and the kernel say.
func evidence(h core.Holder) []core.Evidence {
	return append(append([]core.Evidence{}, h.Holding.Claim.Evidence...), h.Observation.Evidence...)
}
