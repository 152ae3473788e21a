package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
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
	// Repaired is whether it was mended; Error says why it could not be.
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
	return a.withMachine(cmd, func(ctx context.Context, m *machine) error {
		m.doctor.Settled = max(f.max, 1)
		found, inventories, err := m.doctor.Examine(ctx)
		if err != nil {
			return fmt.Errorf("look for damage: %w", err)
		}
		for _, i := range inventories {
			if i.Err != nil {
				a.refuse(fmt.Errorf("%s did not say what it has, so nothing is said of its records: %w", i.Engine, i.Err))
			}
		}
		wanted := found
		if len(names) > 0 {
			wanted = a.named(found, names)
		}
		views := make([]findingView, len(wanted))
		for i, w := range wanted {
			views[i].Finding = w
		}
		if f.repair {
			if views, err = a.mend(ctx, m, views, len(names) > 0, a.grace(cmd, &removalFlags{seconds: f.time})); err != nil {
				return err
			}
		}
		for _, v := range views {
			if !v.Repaired {
				a.code = max(a.code, exitInUse)
			}
		}
		return a.reportFindings(views, f, format, len(names) > 0, m)
	})
}

// named are the findings that the names mean; a name that means none is refused.
func (a *app) named(found []core.Finding, names []string) []core.Finding {
	chosen := make([]bool, len(found))
	for _, name := range names {
		hit := false
		for i, f := range found {
			if called(f, name) {
				chosen[i], hit = true, true
			}
		}
		if !hit {
			a.refuse(fmt.Errorf("nothing damaged is called %s: see %s doctor%w", plain(name), a.program, silent{core.ErrContainerUnknown}))
		}
	}
	var wanted []core.Finding
	for i, f := range found {
		if chosen[i] {
			wanted = append(wanted, f)
		}
	}
	return wanted
}

// called is whether a name means a finding. An ID may be cut, but not so short that it is taken for a pid.
func called(f core.Finding, name string) bool {
	if name == "" {
		return false
	}
	for _, id := range []string{string(f.Container), string(f.Layer), string(f.Image)} {
		if len(name) >= 8 && strings.HasPrefix(id, name) {
			return true
		}
	}
	for _, p := range core.Processes(f.Evidence) {
		if f.Use == core.UseInUse && name == strconv.Itoa(p.PID) {
			return true
		}
	}
	return slices.Contains([]string{f.Name, f.Group, strings.TrimPrefix(f.Group, "pod "), f.Path}, name)
}

// mend repairs what was named, or what is dead. A repair may lay bare what was its engine's to clean
// before, so it looks again.
func (a *app) mend(ctx context.Context, m *machine, views []findingView, named bool, grace time.Duration) ([]findingView, error) {
	const rounds = 3
	for round := 0; ; round++ {
		var open []int
		var todo []core.Finding
		for i, v := range views {
			if (named || v.Dead) && !v.Repaired && v.Error == "" {
				open, todo = append(open, i), append(todo, v.Finding)
			}
		}
		if len(todo) == 0 || round == rounds {
			return views, nil
		}
		for n, err := range m.doctor.Repair(ctx, todo, grace) {
			v := &views[open[n]]
			v.Repaired = err == nil
			if err != nil {
				v.Error = lines(errorWords(err))
				a.code = max(a.code, exitCode(err))
			}
		}
		found, _, err := m.doctor.Examine(ctx)
		if err != nil {
			return views, fmt.Errorf("look for damage after the repair: %w", err)
		}
		for _, f := range found {
			known := slices.IndexFunc(views, func(v findingView) bool { return v.Damage == f.Damage && v.ID() == f.ID() })
			switch {
			case known >= 0 && views[known].Repaired:
				views[known].Repaired, views[known].Error = false, "it is there again after the repair"
			case known < 0 && f.Dead && (!named || belongs(f, views)):
				views = append(views, findingView{Finding: f})
			}
		}
	}
}

// belongs is whether a finding is about a container that was mended.
func belongs(f core.Finding, views []findingView) bool {
	return f.Container != "" && slices.ContainsFunc(views, func(v findingView) bool { return v.Repaired && v.Container == f.Container })
}

func (a *app) reportFindings(views []findingView, f *doctorFlags, format *format, named bool, m *machine) error {
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
	switch {
	case len(views) == 0 && !named && a.code == exitDone:
		fmt.Fprintf(a.out, "Nothing is wrong with the store in %s.\n", plain(m.doctor.Store.Info().GraphRoot))
	case dead > 0 && !f.repair:
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
		who = imageSubject(core.Image{ID: f.Image}, f.Name).String()
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
