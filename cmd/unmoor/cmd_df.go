package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/treemap"
)

// dfFlags are df's.
type dfFlags struct {
	verbose bool
	format  string
	html    string
}

func (a *app) dfCommand() *cobra.Command {
	var f dfFlags
	cmd := &cobra.Command{
		Use:   "df [flags]",
		Short: "Say what holds the space of the store, and what it takes to get it back",
		Long: `Say what the bytes of the store are held by: images, containers and layers that belong to neither, and
whose containers stand on them. Every layer counts once: with its recorded, uncompressed size; a container
with that of its files.

Reclaimable is what nothing uses: unmoor prune --all --stopped, or rmi and rm, would get it back. What is in
use has to be stopped first; what is protected, pinned, of an additional store, or not known well enough,
goes by no force.

--html draws the same as a map, in one file that needs no network.`,
		Example: `  unmoor df
  unmoor df -v
  unmoor df --format '{{.Type}} {{.Reclaimable}}'
  unmoor df --html store.html`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.df(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "list the images, the containers and the layers that belong to neither")
	flags.StringVar(&f.format, "format", "", "print json, or each kind by a Go `template`, as a table where it begins with \"table \"")
	flags.StringVar(&f.html, "html", "", "draw a map into `file`, or for - on standard output")
	return cmd
}

func (a *app) df(cmd *cobra.Command, f *dfFlags) error {
	format, err := parseFormat(f.format, dfRow{})
	switch {
	case err != nil:
		return err
	case format != nil && !format.json && f.verbose:
		return usagef("a template is for the kinds of things alone: leave --verbose out")
	case f.html != "" && (format != nil || f.verbose):
		return usagef("--html draws all there is: leave --format and --verbose out")
	}
	return a.ask(cmd, func(ctx context.Context, b backend) error {
		u, err := b.Usage(ctx)
		switch {
		case err != nil:
			return err
		case f.html != "":
			return a.draw(u, f.html)
		case format == nil:
			return a.reportUsage(u, f)
		case format.json:
			return a.writeJSON(newUsageView(u, f.verbose))
		}
		return writeRows(a.out, format, dfRows(u.Account), dfHeadings)
	})
}

var dfHeadings = map[string]string{"Type": "TYPE", "Total": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
	"AfterStop": "AFTER STOP", "Never": "NEVER", "RawSize": "RAW SIZE", "RawReclaimable": "RAW RECLAIMABLE"}

// dfRow is what a template sees of a kind of things.
type dfRow struct {
	Type string
	sum  core.Sum
}

func dfRows(a *core.Account) []dfRow {
	rows := []dfRow{{"Images", a.OfImages}, {"Containers", a.OfContainers}}
	if a.OfNothing.Count > 0 {
		rows = append(rows, dfRow{"Layers of nothing", a.OfNothing})
	}
	return rows
}

func (r dfRow) Total() int            { return r.sum.Count }
func (r dfRow) Active() int           { return r.sum.Active }
func (r dfRow) Size() string          { return sumSize(r.sum) }
func (r dfRow) Reclaimable() string   { return part(r.sum.Now, r.sum.Bytes) }
func (r dfRow) AfterStop() string     { return part(r.sum.AfterStop, r.sum.Bytes) }
func (r dfRow) Never() string         { return part(r.sum.Never, r.sum.Bytes) }
func (r dfRow) RawSize() int64        { return r.sum.Bytes }
func (r dfRow) RawReclaimable() int64 { return r.sum.Now }

// sumSize is a size, with a plus behind it where there is more that was not measured.
func sumSize(s core.Sum) string {
	if s.Unmeasured > 0 {
		return humanSize(s.Bytes) + "+"
	}
	return humanSize(s.Bytes)
}

// part is a size as a part of another.
func part(bytes, of int64) string {
	if of == 0 {
		return humanSize(bytes)
	}
	return fmt.Sprintf("%s (%d%%)", humanSize(bytes), int(float64(bytes)/float64(of)*100+0.5))
}

// accountOwners are the owners of an account, in the user's words.
func accountOwners(owners []string) string {
	if len(owners) == 0 {
		return "no container"
	}
	words := make([]string, len(owners))
	for i, o := range owners {
		if words[i] = plain(o); o == "none" {
			words[i] = "nobody"
		}
	}
	return strings.Join(words, ", ")
}

var fateWords = map[core.Fate]string{core.FateNow: "now", core.FateAfterStop: "after a stop", core.FateNever: "never"}

func (a *app) reportUsage(u *service.Usage, f *dfFlags) error {
	table := func(heading string, rows [][]string) error {
		t := tabwriter.NewWriter(a.out, 12, 2, 2, ' ', 0)
		fmt.Fprintln(t, heading)
		for _, row := range rows {
			fmt.Fprintln(t, strings.Join(row, "\t"))
		}
		return t.Flush()
	}
	var rows [][]string
	for _, r := range dfRows(u.Account) {
		rows = append(rows, []string{r.Type, fmt.Sprint(r.Total()), fmt.Sprint(r.Active()), r.Size(), r.Reclaimable()})
	}
	if err := table("TYPE\tTOTAL\tACTIVE\tSIZE\tRECLAIMABLE", rows); err != nil {
		return err
	}
	rows = nil
	owned := func(name, containers, images string, s core.Sum) {
		rows = append(rows, []string{name, containers, images, sumSize(s), humanSize(s.Now), humanSize(s.AfterStop), humanSize(s.Never)})
	}
	for _, o := range u.Account.Owners {
		owned(accountOwners(o.Owners), fmt.Sprint(o.Count), fmt.Sprint(o.Images), o.Sum)
	}
	owned("all", fmt.Sprint(u.Account.OfContainers.Count), fmt.Sprint(u.Account.OfImages.Count), u.Account.Total)
	fmt.Fprintln(a.out)
	if err := table("OWNER\tCONTAINERS\tIMAGES\tSIZE\tNOW\tAFTER STOP\tNEVER", rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	if f.verbose {
		if err := a.reportUsers(u, table); err != nil {
			return err
		}
	}
	if u.Account.ReadOnlyBytes > 0 {
		fmt.Fprintf(a.out, "In additional image stores, and not counted: %s\n", humanSize(u.Account.ReadOnlyBytes))
	}
	if d := u.Disk; d != nil {
		fmt.Fprintf(a.out, "The file system of %s is %d%% full: %s of %s are free\n", plain(u.Account.Store.GraphRoot), d.Used(),
			humanSize(max(d.Available, 0)), humanSize(d.Capacity))
	}
	return nil
}

// reportUsers lists the images, the containers and the layers, the largest first.
func (a *app) reportUsers(u *service.Usage, table func(string, [][]string) error) error {
	largest := func(x, y int64) int { return int(min(max(y-x, -1), 1)) }
	var rows [][]string
	images := slices.Clone(u.Account.Images)
	slices.SortStableFunc(images, func(x, y core.ImageAccount) int { return largest(x.UniqueBytes, y.UniqueBytes) })
	for _, i := range images {
		name := "<none>"
		if len(i.Names) > 0 {
			name = plain(i.Names[0])
		}
		rows = append(rows, []string{name, i.ID.Short(), accountOwners(i.Owners), fmt.Sprint(i.Containers),
			sumSize(core.Sum{Bytes: i.UniqueBytes, Unmeasured: i.Unmeasured}), humanSize(i.SharedBytes), fateWords[i.Fate], plain(i.Reason)})
	}
	if err := table("IMAGE\tIMAGE ID\tOWNER\tCONTAINERS\tUNIQUE SIZE\tSHARED SIZE\tRECLAIMABLE\tREASON", rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	rows = nil
	containers := slices.Clone(u.Account.Containers)
	slices.SortStableFunc(containers, func(x, y core.ContainerAccount) int { return largest(x.Bytes, y.Bytes) })
	for _, c := range containers {
		rows = append(rows, []string{plain(c.Name), c.ID.Short(), accountOwners(c.Owners), c.Image.Short(), sizeOrDash(c.Bytes), fateWords[c.Fate], plain(c.Reason)})
	}
	if err := table("CONTAINER\tCONTAINER ID\tOWNER\tIMAGE ID\tSIZE\tRECLAIMABLE\tREASON", rows); err != nil {
		return err
	}
	fmt.Fprintln(a.out)
	if u.Account.OfNothing.Count == 0 {
		return nil
	}
	rows = nil
	for _, l := range u.Account.Layers {
		if len(l.Images) == 0 && !l.ReadOnly {
			rows = append(rows, []string{l.ID.Short(), sizeOrDash(l.Bytes), "see " + a.program + " doctor"})
		}
	}
	err := table("LAYER OF NOTHING\tSIZE\tREASON", rows)
	fmt.Fprintln(a.out)
	return err
}

// usageView is df in JSON.
type usageView struct {
	Store core.StoreInfo `json:"store"`
	Time  time.Time      `json:"time"`
	Disk  *core.Disk     `json:"disk,omitempty"`

	OfImages      core.Sum            `json:"ofImages"`
	OfContainers  core.Sum            `json:"ofContainers"`
	OfNothing     core.Sum            `json:"ofNothing"`
	Total         core.Sum            `json:"total"`
	Owners        []core.OwnerAccount `json:"owners"`
	ReadOnlyBytes int64               `json:"readOnlyBytes"`
	// The lists are there with --verbose.
	Images     []core.ImageAccount     `json:"images,omitempty"`
	Containers []core.ContainerAccount `json:"containers,omitempty"`
	Layers     []core.LayerAccount     `json:"layers,omitempty"`
}

func newUsageView(u *service.Usage, verbose bool) usageView {
	a := u.Account
	v := usageView{Store: a.Store, Time: u.Time, Disk: u.Disk, OfImages: a.OfImages, OfContainers: a.OfContainers, OfNothing: a.OfNothing,
		Total: a.Total, Owners: append([]core.OwnerAccount{}, a.Owners...), ReadOnlyBytes: a.ReadOnlyBytes}
	if verbose {
		v.Images, v.Containers, v.Layers = a.Images, a.Containers, a.Layers
	}
	return v
}

// draw draws the map. What is in it is for nobody but its owner, until that one says otherwise.
func (a *app) draw(u *service.Usage, path string) error {
	var page bytes.Buffer
	if err := treemap.Write(&page, treemap.Page{Account: u.Account, Disk: u.Disk, Time: u.Time, Program: "unmoor", Version: version}); err != nil {
		return err
	}
	if path == "-" {
		_, err := a.out.Write(page.Bytes())
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), ".unmoor-df-*")
	if err != nil {
		return fmt.Errorf("draw the map: %w", err)
	}
	_, err = draft.Write(page.Bytes())
	if closeErr := draft.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(draft.Name(), path)
	}
	if err != nil {
		_ = os.Remove(draft.Name()) // it says nothing to anybody
		return fmt.Errorf("draw the map: %w", err)
	}
	fmt.Fprintf(a.out, "%s shows the store\n", plain(path))
	return nil
}
