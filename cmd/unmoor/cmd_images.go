package main

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
)

func (a *app) imagesCommand() *cobra.Command {
	var f listFlags
	var all bool
	cmd := &cobra.Command{
		Use:     "images [flags] [IMAGE]",
		Aliases: []string{"ls"},
		Short:   "List the images of the store, with the number of containers of each",
		Long: `List the images of the store, with the number of containers of each. IMAGE is a name, with or
without registry, project and tag: those of that name alone.`,
		Args:              func(_ *cobra.Command, args []string) error { return none(nil, args[min(1, len(args)):]) },
		ValidArgsFunction: a.offer(imageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.images(cmd, &f, all, args[0])
			}
			return a.images(cmd, &f, all, "")
		},
	}
	f.register(cmd, "reference (a pattern), dangling, readonly")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "list images too that have no name and on which others are built")
	return cmd
}

func (a *app) images(cmd *cobra.Command, flags *listFlags, all bool, name string) error {
	text := flags.format
	switch {
	case text != "":
	case flags.quiet:
		text = "{{.ID}}"
	default:
		text = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Created}}\t{{.Size}}\t{{.Containers}}"
	}
	format, err := parseFormat(text, imageRow{})
	if err != nil {
		return err
	}
	filter, err := parseFilters(flags.filters, filterKey{"reference", pattern}, filterKey{"dangling", truth}, filterKey{"readonly", truth})
	if err != nil {
		return err
	}
	return a.withMachine(cmd, func(ctx context.Context, m *machine) error {
		snapshot, err := m.engine.Store.Snapshot(ctx)
		if err != nil {
			return err
		}
		images := slices.Clone(snapshot.Images)
		slices.SortStableFunc(images, func(a, b core.Image) int { return b.Created.Compare(a.Created) })
		rows, views := []imageRow{}, []imageView{}
		for _, i := range images {
			if !all && i.Dangling() && len(snapshot.Children(i.ID)) > 0 {
				continue
			}
			of := imageRows(i, snapshot.ContainersOf(i.ID), flags.noTrunc)
			of = slices.DeleteFunc(of, func(r imageRow) bool { return !r.fits(filter) || name != "" && !r.called(name) })
			if len(of) == 0 {
				continue
			}
			if flags.quiet {
				of = of[:1]
			}
			rows, views = append(rows, of...), append(views, of[0].view())
		}
		return list(a, format, flags, rows, views, imageHeadings)
	})
}

var imageHeadings = map[string]string{
	"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Name": "NAME", "Created": "CREATED", "CreatedAt": "CREATED AT",
	"Size": "SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS", "Digest": "DIGEST", "ReadOnly": "R/O",
	"Dangling": "DANGLING", "ParentID": "PARENT ID", "Parent": "PARENT ID", "Names": "NAMES", "Digests": "DIGESTS", "ManifestList": "LIST",
}

// imageRow is what a template sees of an image under one of its names.
type imageRow struct {
	image      core.Image
	name       string
	containers []core.Container
	full       bool
}

// imageRows is a row a name, one for an image without names.
func imageRows(i core.Image, containers []core.Container, full bool) []imageRow {
	var rows []imageRow
	for _, name := range i.Names {
		rows = append(rows, imageRow{i, name, containers, full})
	}
	if rows == nil {
		rows = []imageRow{{i, "", containers, full}}
	}
	return rows
}

func (r imageRow) ID() string {
	if r.full {
		return string(r.image.ID)
	}
	return r.image.ID.Short()
}

func (r imageRow) Name() string       { return plain(r.name) }
func (r imageRow) Repository() string { repository, _ := splitName(r.name); return plain(repository) }
func (r imageRow) Tag() string        { _, tag := splitName(r.name); return plain(tag) }
func (r imageRow) Created() string    { return ago(r.image.Created) }
func (r imageRow) CreatedAt() string  { return r.image.Created.String() }
func (r imageRow) Size() string       { return sizeOrDash(r.image.Size) }
func (r imageRow) UniqueSize() string { return sizeOrDash(r.image.UniqueSize) }
func (r imageRow) Containers() string { return strconv.Itoa(len(r.containers)) }
func (r imageRow) ReadOnly() bool     { return r.image.ReadOnly }
func (r imageRow) Dangling() bool     { return r.image.Dangling() }
func (r imageRow) ParentID() string   { return r.image.Parent.Short() }

// Under the names of the JSON, where those are others.
func (r imageRow) Names() string      { return plain(strings.Join(r.image.Names, ",")) }
func (r imageRow) Digests() string    { return plain(strings.Join(r.image.Digests, ",")) }
func (r imageRow) Parent() string     { return r.ParentID() }
func (r imageRow) ManifestList() bool { return r.image.ManifestList }

func (r imageRow) Digest() string {
	if len(r.image.Digests) == 0 {
		return "-"
	}
	return plain(r.image.Digests[0])
}

func sizeOrDash(n int64) string {
	if n < 0 {
		return "-"
	}
	return humanSize(n)
}

// splitName parts a name into repository and tag; a name by digest has no tag.
func splitName(name string) (repository, tag string) {
	if name == "" {
		return "<none>", "<none>"
	}
	if repository, _, ok := strings.Cut(name, "@"); ok {
		return repository, "<none>"
	}
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, "<none>"
}

// called is whether the row is under the name, of which registry, project and tag may be left out.
func (r imageRow) called(name string) bool {
	repository, tag := splitName(r.name)
	for _, own := range []string{r.name, repository, repository + ":" + tag} {
		if own == name || strings.HasSuffix(own, "/"+name) {
			return r.name != ""
		}
	}
	return false
}

func (r imageRow) fits(f filter) bool {
	isTrue := func(is bool) func(string) bool {
		return func(v string) bool { b, err := strconv.ParseBool(v); return err == nil && b == is }
	}
	return f.fits("dangling", isTrue(r.image.Dangling())) &&
		f.fits("readonly", isTrue(r.image.ReadOnly)) &&
		f.fits("reference", func(v string) bool {
			repository, tag := splitName(r.name)
			short := path.Base(repository)
			for _, name := range []string{r.name, repository, short, short + ":" + tag} {
				if ok, err := path.Match(v, name); ok && err == nil && r.name != "" {
					return true
				}
			}
			return false
		})
}

// MarshalJSON writes the view.
func (r imageRow) MarshalJSON() ([]byte, error) { return json.Marshal(r.view()) }

// imageView is an image in JSON.
type imageView struct {
	ID           core.ImageID       `json:"id"`
	Names        []string           `json:"names"`
	Digests      []string           `json:"digests"`
	Created      time.Time          `json:"created"`
	Size         int64              `json:"size"`
	UniqueSize   int64              `json:"uniqueSize"`
	ReadOnly     bool               `json:"readOnly"`
	Dangling     bool               `json:"dangling"`
	ManifestList bool               `json:"manifestList"`
	Parent       core.ImageID       `json:"parent,omitempty"`
	Containers   []core.ContainerID `json:"containers"`
}

func (r imageRow) view() imageView {
	i := r.image
	v := imageView{
		ID: i.ID, Names: append([]string{}, i.Names...), Digests: append([]string{}, i.Digests...), Created: i.Created,
		Size: i.Size, UniqueSize: i.UniqueSize, ReadOnly: i.ReadOnly, Dangling: i.Dangling(),
		ManifestList: i.ManifestList, Parent: i.Parent, Containers: []core.ContainerID{},
	}
	for _, c := range r.containers {
		v.Containers = append(v.Containers, c.ID)
	}
	return v
}
