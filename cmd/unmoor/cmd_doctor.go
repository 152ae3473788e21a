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

// doctorFlags are the doctor's.
type doctorFlags struct {
	repair bool
	max    time.Duration
	time   secondsFlag
	format string
}

func (a *app) doctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [flags] [NAME...]",
		Short: "Find damage in the store and around it, and with --repair mend it",
		Long: `Find what is wrong in the store and around it: processes on files that were deleted under them,
engines' records without storage and storage without records, mounts, mount counts, layers and
directories that belong to nothing. Nothing is changed without --repair.

With --repair, what is proven dead is cleaned. What is not, a process that runs on deleted files say, is
ended only where it is named: by the ID or the name of the container, its pod, a pid, the layer or the
path. A repair goes through the engine first.

Exit codes: 0 nothing is wrong, or all that was to be mended is; 1 nothing damaged has that name; 2 there
is damage; 125 anything else.`,
		Example: `  unmoor doctor
  unmoor doctor --repair
  unmoor doctor --repair --time 5 shop/web`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.doctor(cmd, args, &f) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.repair, "repair", false, "mend what is proven dead, or what is named")
	flags.DurationVarP(&f.max, "max", "m", core.DefaultSettled, "take a layer that belongs to nothing for damage where it is older than this `duration`")
	flags.VarP(&f.time, "time", "t", "`seconds` between the polite signal and the forcible one (default from config.toml)")
	flags.StringVar(&f.format, "format", "", "print json, or each finding by a Go `template`")
	return cmd
}

// findingView is one finding in JSON and in templates.
type findingView struct {
	core.Finding
	// Repaired is whether it was mended; Error says why it could not be, or why that is not certain.
	Repaired bool   `json:"repaired"`
	Error    string `json:"error,omitempty"`
}

func (a *app) doctor(cmd *cobra.Command, names []string, f *doctorFlags) error {
	format, err := parseFormat(f.format, findingView{})
	if err != nil {
		return err
	}
	if f.max < 0 {
		return usagef("--max: wants a length of time that is not negative")
	}
	return a.ask(cmd, func(ctx context.Context, b backend) error {
		e, err := b.Examine(ctx, service.ExamineRequest{Names: names, Settled: max(f.max, 1), Repair: f.repair, Grace: f.time.duration(cmd)})
		if err != nil {
			return err
		}
		for _, s := range e.Silences {
			a.refuse(fmt.Errorf("%s did not say what it has, so nothing is said of its records: %w", s.Plugin, s.Err))
		}
		for _, name := range e.UnknownNames {
			a.refuse(fmt.Errorf("nothing damaged is called %s: see %s doctor%w", plain(name), a.program, silent{core.ErrContainerUnknown}))
		}
		views := make([]findingView, len(e.Findings))
		for i, found := range e.Findings {
			views[i] = findingView{Finding: found.Finding, Repaired: found.Repaired}
			if found.Err != nil {
				views[i].Error = lines(errorWords(found.Err))
				a.code = max(a.code, exitCode(found.Err))
			}
			if !found.Repaired {
				a.code = max(a.code, exitInUse)
			}
		}
		if format == nil && len(views) == 0 && len(names) == 0 && a.code == exitDone {
			store, err := b.Store(ctx)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "Nothing is wrong with the store in %s.\n", plain(store.GraphRoot))
		}
		return a.reportFindings(views, f, format)
	})
}

func (a *app) reportFindings(views []findingView, f *doctorFlags, format *format) error {
	switch {
	case format != nil && format.json:
		return a.writeJSON(views)
	case format != nil:
		return writeRows(a.out, format, views, nil)
	}
	open, dead := 0, 0
	for _, v := range views {
		switch {
		case v.Repaired:
			fmt.Fprintf(a.out, "Repaired: %s\n", findingWords(v.Finding))
			if v.Error != "" {
				fmt.Fprintf(a.err, "Error: whether that lasts is not known: %s\n", v.Error)
			}
		case v.Error != "":
			open++
			fmt.Fprintf(a.err, "Error: %s, and is not mended: %s\n", findingWords(v.Finding), v.Error)
		default:
			open++
			if v.Dead {
				dead++
			}
			fmt.Fprintf(a.out, "%s%s; %s\n", findingWords(v.Finding), findingHolders(v.Finding), a.cure(v.Finding))
		}
	}
	if dead > 0 && !f.repair {
		fmt.Fprintf(a.out, "%s, %d proven dead: %s doctor --repair\n", plural(open, "thing"), dead, a.program)
	}
	return nil
}

var damageWords = map[core.Damage]string{
	core.DamageWreck:             "Wreck",
	core.DamageLostStorage:       "Record without storage",
	core.DamageLostRecord:        "Storage without record",
	core.DamageLostLayer:         "Container without layer",
	core.DamageStrayMount:        "Stray mount",
	core.DamageStrayDirectory:    "Stray directory",
	core.DamageUnreferencedLayer: "Unreferenced layer",
	core.DamageMountCount:        "Stale mount count",
	core.DamageDeletion:          "Interrupted deletion",
	core.DamageLoad:              "Interrupted load",
}

// findingWords is "Wreck: container shop/web/app (0a8175395fe2) of crio, in pod shop/web: runs on …".
func findingWords(f core.Finding) string {
	var who string
	switch {
	case f.Container != "":
		who = containerSubject(f.Container, f.Name).String()
	case f.Image != "":
		who = imageSubject(f.Image, f.Name).String()
	case f.Layer != "":
		who = "layer " + short(string(f.Layer))
	default:
		who = plain(f.Path)
	}
	if f.Owner != "" {
		who += " of " + plain(f.Owner)
	}
	if f.Group != "" {
		who += ", " + groupWords(f.Group, f.Owner) + ","
	}
	if f.Path != "" && (f.Damage == core.DamageStrayDirectory || f.Damage == core.DamageStrayMount) {
		who += " at " + plain(f.Path)
	}
	return fmt.Sprintf("%s: %s: %s", damageWords[f.Damage], strings.TrimSuffix(who, ","), plain(f.Detail))
}

// findingHolders names the processes that use what is damaged, or the mounts.
func findingHolders(f core.Finding) string {
	if f.Use == core.UseIdle && f.Damage != core.DamageStrayMount {
		return ""
	}
	return holders(core.Blocker{Evidence: f.Evidence, Detail: f.Detail})
}

// cure is what to do about a finding.
func (a *app) cure(f core.Finding) string {
	name := quoted(short(f.ID()))
	if f.ID() == f.Path {
		name = quoted(f.Path)
	}
	repair := fmt.Sprintf("%s doctor --repair %s", a.program, name)
	switch {
	case f.Dead:
		return "it is dead: doctor --repair cleans it"
	case f.Advice != "":
		return plain(f.Advice) + ", " + repair
	case f.Damage == core.DamageWreck:
		return "end it with " + repair
	case f.Damage == core.DamageLostRecord && f.Use != core.UseIdle, f.Damage == core.DamageLostLayer && f.Use != core.UseIdle:
		return fmt.Sprintf("see %s why %s", a.program, name)
	}
	return "where nobody needs it, " + repair
}
