package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/docker/go-units"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/service"
)

// target is the full ID of what an action acts on.
func target(a core.Action) string {
	if a.Container != "" {
		return string(a.Container)
	}
	return string(a.Image)
}

// actionWords is an action that is to be done: "stop container web (91bc…) by podman".
func actionWords(a core.Action) string {
	container := containerSubject(a.Container, a.Name).String()
	by := ""
	if a.Owner != "" {
		by = " by " + plain(a.Owner)
	}
	if a.Group != "" {
		by += ", " + groupWords(a.Group, a.Owner)
	}
	if a.Detail != "" && a.Verb != core.VerbUnmount {
		by += ", " + plain(a.Detail)
	}
	switch a.Verb {
	case core.VerbStop:
		return "stop " + container + by
	case core.VerbKill:
		return fmt.Sprintf("kill %s in %s%s", processList(a.Processes), container, by)
	case core.VerbRemove:
		return "remove " + container + by
	case core.VerbUnmount:
		if a.Detail != "" {
			return "unmount " + plain(a.Detail)
		}
		return "unmount what is mounted of " + container
	case core.VerbDeleteContainer:
		return "delete " + container + by
	case core.VerbUntag:
		return "untag " + plain(a.Name)
	case core.VerbDeleteImage:
		return "delete " + imageSubject(a.Image, a.Name).String() + by
	}
	return fmt.Sprintf("%s %s%s", plain(string(a.Verb)), short(target(a)), by)
}

// doneWords is an action that was done, as Podman would say it where it has such words.
func doneWords(a core.Action) string {
	by, of := "", ""
	if a.Owner != "" {
		by = " by " + plain(a.Owner)
	}
	if a.Group != "" {
		of = " " + groupWords(a.Group, a.Owner)
	}
	container := containerSubject(a.Container, a.Name).String() + of
	switch a.Verb {
	case core.VerbStop:
		return "Stopped: " + container + by
	case core.VerbKill:
		return fmt.Sprintf("Killed: %s in %s", processList(a.Processes), container)
	case core.VerbRemove, core.VerbDeleteContainer:
		return "Removed: " + container + by
	case core.VerbUnmount:
		return "Unmounted: " + plain(a.Detail)
	case core.VerbUntag:
		return "Untagged: " + plain(a.Name)
	case core.VerbDeleteImage:
		return "Deleted: " + plain(string(a.Image))
	}
	return fmt.Sprintf("Done: %s %s%s", plain(string(a.Verb)), short(target(a)), by)
}

func processList(processes []core.Process) string {
	const named = 5
	var all []string
	for i, p := range processes {
		if i == named && len(processes) > named+1 {
			all = append(all, fmt.Sprintf("%d more", len(processes)-named))
			break
		}
		text := fmt.Sprintf("pid %d", p.PID)
		if p.Command != "" {
			text += " (" + cut(plain(p.Command), 60) + ")"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// humanSize is a size as Podman writes it.
func humanSize(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// reportPlan writes a dry run.
func (a *app) reportPlan(of *removal) {
	for i, r := range of.outcome.Plan.Removals {
		s := of.subject(i)
		if r.Blocked() {
			a.code = max(a.code, exitInUse)
			// Whoever asks for IDs alone must not take what is in the way for one.
			if kept := of.kept(i, r.Blockers, true); of.flags.quiet {
				fmt.Fprint(a.err, "Error: ", kept)
			} else {
				fmt.Fprint(a.out, kept)
			}
			continue
		}
		if of.flags.quiet {
			a.reportIDs(s, r.Actions)
			continue
		}
		if len(r.Actions) > 0 {
			fmt.Fprintf(a.out, "%s, in this order:\n", s)
		}
		for n, action := range r.Actions {
			fmt.Fprintf(a.out, "%4d. %s\n", n+1, actionWords(action))
		}
		for _, note := range r.Notes {
			fmt.Fprintf(a.out, "%s: %s\n", s, plain(note))
		}
	}
	if bytes := of.outcome.Plan.ReclaimableBytes; bytes > 0 && !of.flags.quiet {
		fmt.Fprintf(a.out, "This would free about %s.\n", humanSize(bytes))
	}
}

// reportResults writes what was done to standard output, and what was not to standard error.
func (a *app) reportResults(of *removal, human bool) {
	var freed int64
	about := ""
	for i, r := range of.outcome.Results {
		freed += r.Bytes
		if r.AtLeast {
			about = "at least "
		}
		s := of.subject(i)
		if human && of.flags.quiet {
			a.reportIDs(s, r.Done)
		}
		for _, action := range inPlanOrder(r) {
			if human && !of.flags.quiet {
				fmt.Fprintln(a.out, doneWords(action))
			}
		}
		if !of.flags.quiet {
			for _, note := range r.Removal.Notes {
				fmt.Fprintf(a.err, "Note: %s: %s\n", s, plain(note))
			}
		}
		if len(r.Failed) > 0 {
			failure := failed{s, r, of.program}
			a.code = max(a.code, failure.code())
			fmt.Fprint(a.err, "Error: ", failure)
		} else if len(r.Blockers) > 0 {
			a.code = max(a.code, exitInUse)
			fmt.Fprint(a.err, "Error: ", of.kept(i, r.Blockers, false))
		}
	}
	if human && !of.flags.quiet && freed > 0 {
		fmt.Fprintf(a.out, "Freed: %s%s\n", about, humanSize(freed))
	}
}

// reportLost writes what is known to be done of a removal whose daemon was lost.
func (a *app) reportLost(lost *client.LostError, of service.Targets, f *removalFlags) {
	if f.quiet {
		s := subject{kind: "image"}
		if len(of.Containers) > 0 || of.AllContainers {
			s.kind = "container"
		}
		a.reportIDs(s, lost.Done)
		return
	}
	for _, action := range lost.Done {
		fmt.Fprintln(a.out, doneWords(action))
	}
}

// inPlanOrder lists what was done in the order of the plan, since what ran side by side ended in any
// order. What the plan did not name keeps its place behind what it followed.
func inPlanOrder(r core.Result) []core.Action {
	type placed struct {
		action core.Action
		place  int
	}
	var all []placed
	place := 0
	for _, a := range r.Done {
		if i := slices.IndexFunc(r.Removal.Actions, func(p core.Action) bool {
			return p.Verb == a.Verb && target(p) == target(a) && p.Name == a.Name && a.Verb != core.VerbUnmount
		}); i >= 0 {
			place = i
		}
		all = append(all, placed{a, place})
	}
	slices.SortStableFunc(all, func(a, b placed) int { return a.place - b.place })
	done := make([]core.Action, len(all))
	for i, p := range all {
		done[i] = p.action
	}
	return done
}

// reportIDs prints the images, or where containers were asked for the containers, that go.
func (a *app) reportIDs(s subject, actions []core.Action) {
	for _, action := range actions {
		switch action.Verb {
		case core.VerbDeleteImage:
			fmt.Fprintln(a.out, plain(string(action.Image)))
		case core.VerbRemove, core.VerbDeleteContainer:
			if s.kind == "container" {
				fmt.Fprintln(a.out, plain(string(action.Container)))
			}
		case core.VerbStop, core.VerbKill, core.VerbUnmount, core.VerbUntag:
		}
	}
}
