package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/service"
)

// removal is one that was asked for, or its plan, and what it came to.
type removal struct {
	flags   *removalFlags
	outcome *service.Outcome
	// program is the program with its global flags.
	program string
}

func (r *removal) subject(i int) subject {
	of := r.outcome.Plan.Removals[i]
	if of.Container != "" {
		return containerSubject(of.Container, r.outcome.Names[i])
	}
	return imageSubject(of.Image, r.outcome.Names[i])
}

func (r *removal) kept(i int, blockers []core.Blocker, planned bool) kept {
	s := r.subject(i)
	return kept{subject: s, blockers: blockers, program: r.program, command: s.verb() + " " + quoted(r.outcome.References[i]),
		verbose: r.flags.verbose, planned: planned}
}

// quoted is fit to be pasted into a shell.
func quoted(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-", r)
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(plain(s), "'", `'\''`) + "'"
}

// remove plans the removal of the targets, and where it is no dry run carries it out, and reports.
func (a *app) remove(cmd *cobra.Command, targets service.Targets, f *removalFlags, format *format) error {
	return a.ask(cmd, func(ctx context.Context, b backend) error {
		request := service.Request{Targets: targets, Force: f.force.level, NoPrune: f.noPrune, Revision: f.revision,
			Grace: f.seconds.duration(cmd)}
		r := &removal{flags: f, program: a.program}
		err := a.mistaken(ctx, b, request, cmd.Flags().Changed("force"))
		if err != nil {
			return err
		}
		if f.dryRun {
			r.outcome, err = b.Plan(ctx, request)
		} else {
			progress := newProgress(a.err, grace(b, request.Grace))
			r.outcome, err = b.Remove(ctx, request, progress.tell)
			progress.finish()
		}
		if errors.Is(err, core.ErrPlanStale) {
			nothing := &core.Plan{Force: f.force.level, Removals: []core.Removal{}}
			r.outcome, err = &service.Outcome{Plan: nothing, Problems: []error{err}}, nil
		}
		if lost, ok := errors.AsType[*client.LostError](err); ok && format == nil {
			a.reportLost(lost, targets, f)
		}
		if err != nil {
			return err
		}
		return a.report(r, format)
	})
}

// mistaken is an error where the user seems to have meant a level of force: `--force idle web` would stop
// web.
func (a *app) mistaken(ctx context.Context, b backend, request service.Request, forced bool) error {
	t := request.Targets
	suspect := service.Targets{Images: forceWords(t.Images), Containers: forceWords(t.Containers), Either: forceWords(t.Either)}
	if !forced || len(suspect.Images)+len(suspect.Containers)+len(suspect.Either) == 0 {
		return nil
	}
	outcome, err := b.Plan(ctx, service.Request{Targets: suspect})
	if err != nil {
		return err
	}
	for _, r := range outcome.Refusals {
		if unknown := unknown(r.Err); unknown != nil {
			return usagef("%v %s; a level of force is written --force=%[2]s. Nothing was changed", unknown, r.Reference)
		}
	}
	return nil
}

// unknown is the sentinel of an error that says that nothing of a name is there; nil where it is another.
func unknown(err error) error {
	for _, is := range []error{core.ErrImageUnknown, core.ErrContainerUnknown} {
		if errors.Is(err, is) {
			return is
		}
	}
	return nil
}

// report says what became of a removal or what its plan is, in the format that was asked for.
func (a *app) report(r *removal, format *format) error {
	doc := document{DryRun: r.flags.dryRun, Force: r.flags.force.level, Plan: r.outcome.Plan}
	a.reportProblems(r, &doc)
	a.reportCompleted(r, &doc, format == nil)
	switch {
	case r.flags.dryRun && format == nil:
		a.reportPlan(r)
	case r.flags.dryRun:
		for i, of := range r.outcome.Plan.Removals {
			if of.Blocked() {
				a.code = max(a.code, exitInUse)
				fmt.Fprint(a.err, "Error: ", r.kept(i, of.Blockers, true))
			}
		}
	default:
		a.reportResults(r, format == nil)
	}
	for i, result := range r.outcome.Results {
		doc.add(r.outcome.References[i], result)
	}
	return a.reportDocument(&doc, format)
}

// reportProblems says what went wrong beside the removals, and which references mean nothing or too much.
func (a *app) reportProblems(r *removal, doc *document) {
	for _, err := range r.outcome.Problems {
		if !errors.Is(err, core.ErrPlanStale) {
			a.refuse(err)
			continue
		}
		a.code = max(a.code, exitInUse)
		fmt.Fprintf(a.err, "Error: %s; nothing was changed: make a new plan, and look at it\n", oneLine(err.Error()))
		doc.Errors = append(doc.Errors, errorView{r.flags.revision, oneLine(err.Error())})
	}
	for _, refusal := range r.outcome.Refusals {
		err := refusal.Err
		if unknown := unknown(err); unknown != nil {
			if r.flags.ignore {
				continue
			}
			err = &unknownError{refusal.Reference, unknown, r.program}
		}
		a.refuse(err)
		doc.Errors = append(doc.Errors, errorView{refusal.Reference, lines(errorWords(err))})
	}
}

// reportCompleted says which deletions of images were completed that an earlier run was interrupted in.
func (a *app) reportCompleted(r *removal, doc *document, human bool) {
	for _, c := range r.outcome.Completed {
		doc.Completed = append(doc.Completed, completedView{c.Image, c.Names})
		switch {
		case human && r.flags.quiet:
			fmt.Fprintln(a.out, plain(string(c.Image)))
		case human:
			for _, name := range c.Names {
				fmt.Fprintf(a.out, "Untagged: %s\n", plain(name))
			}
			fmt.Fprintf(a.out, "Deleted: %s (an earlier run was interrupted in it)\n", plain(string(c.Image)))
		}
	}
}
