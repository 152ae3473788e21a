package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
)

func (a *app) whyCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "why [flags] IMAGE|CONTAINER [IMAGE|CONTAINER...]",
		Short: "Say who holds an image or a container, with the evidence",
		Long: `Say everything that stands in the way of removing an image or a container: who owns each container,
whether it is in use, what that verdict rests on, and what would lift it. Nothing is changed.`,
		ValidArgsFunction: a.offer(imageNames, containerNames),
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
	// Holders are the containers among them, as ps shows them.
	Holders []service.Container `json:"holders"`

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
	return a.ask(cmd, func(ctx context.Context, b backend) error {
		views := []whyView{}
		for _, reference := range references {
			e, err := b.Explain(ctx, reference)
			if unknown(err) != nil {
				err = fmt.Errorf("no such image or container %s: %s images and %[2]s ps list what there is%[3]w", plain(reference), a.program, silent{core.ErrImageUnknown})
			}
			if err != nil {
				a.refuse(err)
				continue
			}
			views = append(views, a.whyView(reference, e))
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

func (a *app) whyView(reference string, e *service.Explanation) whyView {
	v := whyView{Reference: reference, Image: e.Image, Container: e.Container, Names: e.Names, LeastForce: e.LeastForce, Lifted: e.Lifted,
		Blockers: e.Blockers, Holders: e.Holders, subject: imageSubject(e.Image, e.Name), program: a.program}
	if e.Container != "" {
		v.subject = containerSubject(e.Container, e.Name)
	}
	return v
}

// silent is an error to branch on that adds no words.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }

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
	for _, c := range v.Holders {
		who := containerSubject(c.ID, containerRow{container: c}.Names()).String()
		if c.Group != "" {
			who += " " + groupWords(c.Group, c.Owners...)
		}
		fmt.Fprintf(&s, "  %s: %s, %s\n", who, useWord(c.Use), plain(c.Reason))
		fmt.Fprintf(&s, "    owner: %s\n", ownerWords(c))
		if c.ImageID != v.Image && v.Image != "" {
			fmt.Fprintf(&s, "    image: %s\n", short(string(c.ImageID)))
		}
		writeEvidence(&s, c.Evidence)
		for _, b := range v.Blockers {
			if b.Container == c.ID {
				if b.Reason == core.ReasonProtected { // the line above tells of its use alone
					fmt.Fprintf(&s, "    %s\n", plain(b.Detail))
				}
				fmt.Fprintf(&s, "    what to do: %s\n", remedy(b))
			}
		}
	}
	switch k := (kept{blockers: v.Blockers, program: v.program, command: v.subject.verb() + " " + quoted(v.Reference)}); {
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

func ownerWords(c service.Container) string {
	who := plain(strings.Join(c.Owners, ", "))
	switch c.Holding {
	case core.Owned:
		if c.State != core.StateNone {
			return fmt.Sprintf("%s, which calls it %s", who, plain(string(c.State)))
		}
		return who
	case core.Contested:
		return "claimed by " + who
	case core.Unowned:
		return "no engine"
	case core.Undetermined:
	}
	if c.Advice != "" {
		return fmt.Sprintf("not known; %s", plain(c.Advice))
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
