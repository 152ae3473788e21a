package main

import (
	"context"
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/service"
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
	return a.ask(cmd, func(ctx context.Context, b backend) error {
		rows, images := []imageRow{}, []service.Image{}
		err := b.Images(ctx, "", func(i service.Image) error {
			if !all && i.Dangling && len(i.Children) > 0 {
				return nil
			}
			of := imageRows(i, flags.noTrunc)
			of = slices.DeleteFunc(of, func(r imageRow) bool { return !r.fits(filter) || name != "" && !r.called(name) })
			if len(of) == 0 {
				return nil
			}
			if flags.quiet {
				of = of[:1]
			}
			rows, images = append(rows, of...), append(images, i)
			return nil
		})
		if err != nil {
			return err
		}
		return list(a, format, flags, rows, images, imageHeadings)
	})
}

var imageHeadings = map[string]string{
	"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Name": "NAME", "Created": "CREATED", "CreatedAt": "CREATED AT",
	"Size": "SIZE", "UniqueSize": "UNIQUE SIZE", "Containers": "CONTAINERS", "Digest": "DIGEST", "ReadOnly": "R/O",
	"Dangling": "DANGLING", "ParentID": "PARENT ID", "Parent": "PARENT ID", "Names": "NAMES", "Digests": "DIGESTS", "ManifestList": "LIST",
}

// imageRow is what a template sees of an image under one of its names.
type imageRow struct {
	image service.Image
	name  string
	full  bool
}

// imageRows is a row a name, one for an image without names.
func imageRows(i service.Image, full bool) []imageRow {
	var rows []imageRow
	for _, name := range i.Names {
		rows = append(rows, imageRow{i, name, full})
	}
	if rows == nil {
		rows = []imageRow{{i, "", full}}
	}
	return rows
}

func (r imageRow) ID() string {
	if r.full {
		return plain(string(r.image.ID))
	}
	return short(string(r.image.ID))
}

func (r imageRow) Name() string       { return plain(r.name) }
func (r imageRow) Repository() string { repository, _ := splitName(r.name); return plain(repository) }
func (r imageRow) Tag() string        { _, tag := splitName(r.name); return plain(tag) }
func (r imageRow) Created() string    { return ago(r.image.Created) }
func (r imageRow) CreatedAt() string  { return r.image.Created.String() }
func (r imageRow) Size() string       { return sizeOrDash(r.image.Size) }
func (r imageRow) UniqueSize() string { return sizeOrDash(r.image.UniqueSize) }
func (r imageRow) Containers() string { return strconv.Itoa(len(r.image.Containers)) }
func (r imageRow) ReadOnly() bool     { return r.image.ReadOnly }
func (r imageRow) Dangling() bool     { return r.image.Dangling }
func (r imageRow) ParentID() string   { return short(string(r.image.Parent)) }

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
	return f.fits("dangling", isTrue(r.image.Dangling)) &&
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

// MarshalJSON writes the image.
func (r imageRow) MarshalJSON() ([]byte, error) { return json.Marshal(r.image) }
