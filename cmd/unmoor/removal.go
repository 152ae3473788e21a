package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
)

// job is a removal that was asked for: what the store knows of it, and what was refused before any
// plan.
type job struct {
	verb     string
	request  core.Request
	snapshot *core.Snapshot
	// subjects belong to the plan's removals, one each; references are the user's words for them.
	subjects   []subject
	references []string
	refused    []refusedReference
	// completed are deletions that an earlier run was killed in, named those that a reference means.
	completed []core.Interrupted
	named     map[core.ImageID]bool
	// program is the program with its global flags.
	program string
}

type refusedReference struct {
	reference string
	err       error
}

func (j *job) kept(i int, blockers []core.Blocker, f *removalFlags, planned bool) kept {
	return kept{subject: j.subjects[i], blockers: blockers, program: j.program, command: j.verb + " " + quoted(j.references[i]),
		verbose: f.verbose, planned: planned}
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

// addImages adds the images that the references mean to the request. An error is one that must keep
// everything.
func (a *app) addImages(ctx context.Context, m *machine, j *job, references []string, f *removalFlags, forced bool) error {
	for _, reference := range references {
		id, name, err := m.engine.Store.ResolveImage(ctx, j.snapshot, reference)
		if errors.Is(err, core.ErrImageUnknown) && a.completes(ctx, m, j, reference) {
			continue
		}
		if err != nil {
			if err := j.refuse(reference, err, core.ErrImageUnknown, f, forced); err != nil {
				return err
			}
			continue
		}
		image, _ := j.snapshot.Image(id)
		j.request.Images = append(j.request.Images, core.ImageTarget{ID: id, Name: name, Reference: reference})
		j.subjects = append(j.subjects, imageSubject(image, name))
		j.references = append(j.references, reference)
	}
	return nil
}

// completes is whether a reference means an image whose interrupted deletion was completed.
func (a *app) completes(ctx context.Context, m *machine, j *job, reference string) bool {
	if len(j.completed) == 0 {
		return false
	}
	gone := &core.Snapshot{Store: j.snapshot.Store}
	for _, c := range j.completed {
		gone.Images = append(gone.Images, c.Image)
	}
	id, _, err := m.engine.Store.ResolveImage(ctx, gone, reference)
	if err != nil {
		return false
	}
	if j.named == nil {
		j.named = make(map[core.ImageID]bool)
	}
	j.named[id] = true
	return true
}

// addRest adds the dangling parents that an interrupted run had yet to delete.
func (j *job) addRest() {
	for _, c := range j.completed {
		if len(c.Rest) == 0 || j.asksFor(c.Rest[0]) {
			continue
		}
		if image, there := j.snapshot.Image(c.Rest[0]); there {
			target := core.RestOf(c)
			j.request.Images = append(j.request.Images, target)
			j.subjects = append(j.subjects, imageSubject(image, ""))
			j.references = append(j.references, target.Reference)
		}
	}
}

func (j *job) asksFor(id core.ImageID) bool {
	return slices.ContainsFunc(j.request.Images, func(t core.ImageTarget) bool { return t.ID == id })
}

// conclude ends the interrupted deletions of which nothing is left to do: all of the rest is deleted, or
// is kept on purpose. What went wrong is tried again by the next run.
func (a *app) conclude(ctx context.Context, m *machine, j *job, results []core.Result) {
	for _, c := range j.completed {
		left := len(c.Rest) > 0 && !j.asksFor(c.Rest[0]) && !j.named[c.Image.ID]
		for _, r := range results {
			left = left || len(r.Failed) > 0 && slices.Contains(c.Rest, r.Removal.Image)
		}
		if left {
			continue
		}
		if err := m.engine.Store.Conclude(ctx, c.Image.ID); err != nil {
			a.refuse(fmt.Errorf("conclude the image deletion that an earlier run was interrupted in: %w", err))
		}
	}
}

func (j *job) addImage(i core.Image) {
	s := imageSubject(i, "")
	reference := s.name
	if reference == "" {
		reference = i.ID.Short()
	}
	j.request.Images = append(j.request.Images, core.ImageTarget{ID: i.ID, All: true, Reference: reference})
	j.subjects = append(j.subjects, s)
	j.references = append(j.references, reference)
}

func (j *job) addAllImages() {
	var images []core.Image
	for _, i := range j.snapshot.Images {
		if !i.ReadOnly {
			images = append(images, i)
		}
	}
	for _, i := range childrenFirst(images) {
		j.addImage(i)
	}
}

func (j *job) addContainer(c core.Container, name, reference string) {
	if name == "" && len(c.Names) > 0 {
		name = c.Names[0]
	}
	j.request.Containers = append(j.request.Containers, c.ID)
	j.subjects = append(j.subjects, containerSubject(c.ID, name))
	j.references = append(j.references, reference)
}

func (a *app) addContainers(ctx context.Context, m *machine, j *job, references []string, f *removalFlags, forced bool) error {
	names := m.displayNames(ctx, j.snapshot)
	for _, reference := range references {
		c, err := matchContainer(j.snapshot, names, reference)
		if err != nil {
			if err := j.refuse(reference, err, core.ErrContainerUnknown, f, forced); err != nil {
				return err
			}
			continue
		}
		name := ""
		if !strings.HasPrefix(string(c.ID), reference) {
			name = reference
		}
		j.addContainer(c, name, reference)
	}
	return nil
}

// refuse notes a reference that means nothing. It is an error where the user seems to have meant a
// level of force: `--force idle web` would stop web.
func (j *job) refuse(reference string, err, unknown error, f *removalFlags, forced bool) error {
	if !errors.Is(err, unknown) {
		j.refused = append(j.refused, refusedReference{reference, err})
		return nil
	}
	if forced && isForceWord(reference) {
		return usagef("%v %s; a level of force is written --force=%s. Nothing was changed", unknown, reference, reference)
	}
	if !f.ignore {
		j.refused = append(j.refused, refusedReference{reference, &unknownError{reference, unknown, j.program}})
	}
	return nil
}

// remove plans, and where it is no dry run carries out, and reports.
func (a *app) remove(ctx context.Context, m *machine, j *job, f *removalFlags, format *format) error {
	human := format == nil
	doc := document{DryRun: f.dryRun, Force: f.force.level}
	for _, r := range j.refused {
		a.refuse(r.err)
		doc.Errors = append(doc.Errors, errorView{r.reference, lines(errorWords(r.err))})
	}
	for _, c := range j.completed {
		for _, i := range c.Deleted {
			doc.Completed = append(doc.Completed, completedView{i.ID, i.Names})
			switch {
			case human && f.quiet:
				fmt.Fprintln(a.out, i.ID)
			case human:
				for _, name := range i.Names {
					fmt.Fprintf(a.out, "Untagged: %s\n", plain(name))
				}
				fmt.Fprintf(a.out, "Deleted: %s (an earlier run was interrupted in it)\n", i.ID)
			}
		}
	}
	if len(j.subjects) == 0 {
		a.conclude(ctx, m, j, nil)
		doc.Plan = &core.Plan{Force: f.force.level, Removals: []core.Removal{}}
		return a.reportDocument(&doc, format)
	}
	plan, err := m.engine.Plan(ctx, j.request)
	if errors.Is(err, core.ErrPlanStale) {
		a.code = max(a.code, exitInUse)
		fmt.Fprintf(a.err, "Error: %s; nothing was changed: make a new plan, and look at it\n", oneLine(err.Error()))
		doc.Errors = append(doc.Errors, errorView{j.request.Revision, oneLine(err.Error())})
		doc.Plan = &core.Plan{Force: f.force.level, Removals: []core.Removal{}}
		return a.reportDocument(&doc, format)
	}
	if err != nil {
		return fmt.Errorf("plan the removal, nothing was changed: %w", err)
	}
	doc.Plan = plan
	if f.dryRun {
		if human {
			a.reportPlan(j, plan, f)
			return nil
		}
		for i, r := range plan.Removals {
			if r.Blocked() {
				a.code = max(a.code, exitInUse)
				fmt.Fprint(a.err, "Error: ", j.kept(i, r.Blockers, f, true))
			}
		}
		return a.reportDocument(&doc, format)
	}
	progress := newProgress(a.err, j.request.Grace)
	m.engine.Progress = progress.tell
	results := m.engine.Execute(ctx, plan)
	progress.finish()
	a.conclude(ctx, m, j, results)
	a.reportResults(j, results, f, human)
	for i, r := range results {
		doc.add(j.references[i], r)
	}
	return a.reportDocument(&doc, format)
}

// complete ends what an earlier run was killed in. Where that does not work the rest goes on: it is
// reported, and tried again by the next run.
func (a *app) complete(ctx context.Context, m *machine) []core.Interrupted {
	completed, err := m.engine.Store.CompleteInterrupted(ctx)
	if err != nil {
		a.refuse(fmt.Errorf("complete the image deletion that an earlier run was interrupted in: %w", err))
	}
	return completed
}

func (f *removalFlags) request(grace time.Duration) core.Request {
	return core.Request{Force: f.force.level, Grace: grace, NoPrune: f.noPrune, Revision: f.revision}
}
