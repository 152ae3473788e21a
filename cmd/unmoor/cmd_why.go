package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
)

func (a *app) whyCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "why [flags] IMAGE|CONTAINER [IMAGE|CONTAINER...]",
		Short: "Say who holds an image or a container, with the evidence",
		Long: `Say everything that stands in the way of removing an image or a container: who owns each container,
whether it is in use, what that verdict rests on, and what would lift it. Nothing is changed.`,
		ValidArgsFunction: a.offer(allNames),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.why(cmd, args, format) },
	}
	cmd.Flags().StringVar(&format, "format", "", "print json, or each image or container by a Go `template`")
	return cmd
}

// whyView is what holds one image or container, in JSON and in templates.
type whyView struct {
	Reference string           `json:"reference"`
	Image     core.ImageID     `json:"image,omitempty"`
	Container core.ContainerID `json:"container,omitempty"`
	Names     []string         `json:"names"`
	// LeastForce removes it; none where nothing but the command itself is needed, and where Lifted is
	// false no force does.
	LeastForce core.Force `json:"leastForce"`
	Lifted     bool       `json:"lifted"`
	// Blockers are everything that stands in the way without force, idle containers included.
	Blockers []core.Blocker `json:"blockers"`
	// Holders are the containers among them, with all that is known.
	Holders []core.Holder `json:"holders"`

	subject subject
	// program is the program with its global flags.
	program string
}

// ID is the image or the container, for templates.
func (v whyView) ID() string { return string(v.Image) + string(v.Container) }

func (a *app) why(cmd *cobra.Command, references []string, text string) error {
	if len(references) == 0 {
		return usagef("name at least one image or container")
	}
	format, err := parseFormat(text, whyView{})
	if err != nil {
		return err
	}
	return a.withMachine(cmd, func(ctx context.Context, m *machine) error {
		snapshot, err := m.engine.Store.Snapshot(ctx)
		if err != nil {
			return err
		}
		views := []whyView{}
		for _, reference := range references {
			v, err := m.whyOne(ctx, snapshot, reference)
			if errors.Is(err, core.ErrImageUnknown) || errors.Is(err, core.ErrContainerUnknown) {
				err = fmt.Errorf("no such image or container %s: %s images and %[2]s ps list what there is%[3]w", plain(reference), a.program, silent{core.ErrImageUnknown})
			}
			if err != nil {
				a.refuse(err)
				continue
			}
			v.program = a.program
			views = append(views, v)
		}
		switch {
		case format == nil:
			for i, v := range views {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				fmt.Fprint(a.out, v)
			}
			return nil
		case format.json:
			return a.writeJSON(views)
		}
		return writeRows(a.out, format, views, nil)
	})
}

// silent is an error to branch on that adds no words.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

// whyOne asks about one image or, where there is none of that name, container: as for a removal of
// it without force.
func (m *machine) whyOne(ctx context.Context, snapshot *core.Snapshot, reference string) (whyView, error) {
	v := whyView{Reference: reference, Names: []string{}, Blockers: []core.Blocker{}, Holders: []core.Holder{}}
	var request core.Request
	id, name, err := m.engine.Store.ResolveImage(ctx, snapshot, reference)
	switch {
	case err == nil:
		image, _ := snapshot.Image(id)
		v.Image, v.subject, v.Names = id, imageSubject(image, name), append(v.Names, image.Names...)
		request.Images = []core.ImageTarget{{ID: id, All: true, Reference: reference}}
	case errors.Is(err, core.ErrImageUnknown):
		c, err := matchContainer(snapshot, m.displayNames(ctx, snapshot), reference)
		if err != nil {
			return v, err
		}
		v.Container, v.Names = c.ID, append(v.Names, c.Names...)
		name := ""
		if len(c.Names) > 0 {
			name = c.Names[0]
		}
		v.subject = containerSubject(c.ID, name)
		request.Containers = []core.ContainerID{c.ID}
	default:
		return v, err
	}
	plan, err := m.engine.Plan(ctx, request)
	if err != nil {
		return v, fmt.Errorf("find out what holds %s: %w", v.subject, err)
	}
	for _, r := range plan.Removals {
		v.Blockers = append(v.Blockers, r.Blockers...)
	}
	var hard int
	v.LeastForce, hard = leastForce(v.Blockers)
	v.Lifted = hard == 0
	return v, m.addHolders(ctx, snapshot, &v)
}

// addHolders looks at the containers that are in the way, and at the one that was asked about.
func (m *machine) addHolders(ctx context.Context, snapshot *core.Snapshot, v *whyView) error {
	var containers []core.Container
	seen := make(map[core.ContainerID]bool)
	add := func(id core.ContainerID) {
		c, ok := snapshot.Container(id)
		if ok && !seen[id] {
			seen[id] = true
			containers = append(containers, c)
		}
	}
	if v.Container != "" {
		add(v.Container)
	}
	for _, b := range v.Blockers {
		add(b.Container)
	}
	if len(containers) == 0 {
		return nil
	}
	holders, err := m.engine.Survey(ctx, snapshot, containers)
	if err != nil {
		return fmt.Errorf("find out what holds %s: %w", v.subject, err)
	}
	v.Holders = holders
	return nil
}

// String is the view for people.
func (v whyView) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n", v.subject)
	if len(v.Names) > 1 {
		fmt.Fprintf(&s, "  names: %s\n", plain(strings.Join(v.Names, ", ")))
	}
	for _, b := range v.Blockers {
		if b.Container == "" {
			fmt.Fprintf(&s, "  %s; %s\n", obstacle(v.subject, b), remedy(b))
			writeEvidence(&s, b.Evidence)
		}
	}
	for _, h := range v.Holders {
		row := containerRow{holder: h}
		who := containerSubject(h.Container.ID, row.Names()).String()
		if group := h.Holding.Claim.Group; group != "" {
			who += " " + groupWords(group, h.Holding.Owners...)
		}
		fmt.Fprintf(&s, "  %s: %s, %s\n", who, useWord(h.Use), plain(h.Reason))
		fmt.Fprintf(&s, "    owner: %s\n", ownerWords(h.Holding))
		if h.Container.ImageID != v.Image && v.Image != "" {
			fmt.Fprintf(&s, "    image: %s\n", short(string(h.Container.ImageID)))
		}
		writeEvidence(&s, evidence(h))
		for _, b := range v.Blockers {
			if b.Container == h.Container.ID {
				if b.Reason == core.ReasonProtected { // the line above tells of its use alone
					fmt.Fprintf(&s, "    %s\n", plain(b.Detail))
				}
				fmt.Fprintf(&s, "    what to do: %s\n", remedy(b))
			}
		}
	}
	verb := "rm"
	if v.Image != "" {
		verb = "rmi"
	}
	switch k := (kept{blockers: v.Blockers, program: v.program, command: verb + " " + quoted(v.Reference)}); {
	case len(v.Blockers) == 0:
		fmt.Fprintf(&s, "  Nothing is in the way: %s %s\n", k.program, k.command)
	default:
		fmt.Fprintf(&s, "  %s\n", k.advice())
	}
	return s.String()
}

func useWord(u core.Use) string {
	switch u {
	case core.UseInUse:
		return "in use"
	case core.UseIdle:
		return "idle"
	case core.UseUnknown:
	}
	return "perhaps in use"
}

func ownerWords(h core.Holding) string {
	who := plain(strings.Join(h.Owners, ", "))
	switch h.Kind {
	case core.Owned:
		if h.Claim.State != core.StateNone {
			return fmt.Sprintf("%s, which calls it %s", who, plain(string(h.Claim.State)))
		}
		return who
	case core.Contested:
		return "claimed by " + who
	case core.Unowned:
		return "no engine"
	case core.Undetermined:
	}
	if h.Advice != "" {
		return fmt.Sprintf("not known; %s", plain(h.Advice))
	}
	return "not known"
}

// writeEvidence writes what was observed, a line for each process and for each thing without one.
func writeEvidence(s *strings.Builder, evidence []core.Evidence) {
	written := make(map[int]bool)
	for i, e := range evidence {
		if written[i] {
			continue
		}
		fmt.Fprintf(s, "    %s: %s", plain(e.Source), evidenceWords(e))
		for n := i + 1; n < len(evidence) && e.Process != nil; n++ {
			if o := evidence[n]; o.Source == e.Source && o.Process != nil && o.Process.PID == e.Process.PID {
				written[n] = true
				o.Process = nil
				fmt.Fprintf(s, "; %s", evidenceWords(o))
			}
		}
		if !e.Time.IsZero() {
			s.WriteString(" (" + e.Time.Local().Format(time.TimeOnly) + ")")
		}
		s.WriteByte('\n')
	}
}

func evidenceWords(e core.Evidence) string {
	var parts []string
	if e.Process != nil {
		parts = append(parts, processWords(*e.Process))
		if e.Process.Cgroup != "" && e.Process.Unit == "" {
			parts = append(parts, "cgroup "+plain(e.Process.Cgroup))
		}
	}
	if e.Detail != "" {
		parts = append(parts, plain(e.Detail))
	}
	if e.Path != "" && !strings.Contains(e.Detail, e.Path) {
		parts = append(parts, plain(e.Path))
	}
	if len(parts) == 0 {
		return plain(string(e.Kind))
	}
	return strings.Join(parts, ", ")
}
