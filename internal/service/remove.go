package service

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/unmoor/unmoor/core"
)

// Plan says what a removal would do now, and changes nothing. Errors: those of Targets.Check,
// *core.StaleError, and what could not be found out.
func (l *Local) Plan(ctx context.Context, r Request) (*Outcome, error) {
	j := l.job(r)
	if err := j.resolve(ctx, r.Targets); err != nil {
		return nil, err
	}
	if err := j.plan(ctx); err != nil {
		return nil, err
	}
	return j.outcome, nil
}

// Remove removes what is asked for, each of the targets whole or not at all, and where that is an image,
// completes the deletions that an earlier process was killed in. Its errors are Plan's. progress, which may
// be nil, is told of every action, from several goroutines at once; it must not block. ctx ends a removal
// between two actions, and what was not done then is in the outcome.
func (l *Local) Remove(ctx context.Context, r Request, progress func(core.Progress)) (*Outcome, error) {
	j := l.job(r)
	if err := r.Targets.Check(); err != nil {
		return nil, err
	}
	if r.Targets.ofImages() {
		j.complete(ctx)
	}
	if err := j.resolve(ctx, r.Targets); err != nil {
		return j.unplanned(err)
	}
	if !r.NoPrune && r.Revision == "" { // which is that of a plan without it
		j.addRest()
	}
	if err := j.plan(ctx); err != nil {
		return j.unplanned(err)
	}
	if len(j.outcome.Plan.Removals) > 0 {
		engine := *l.Engine
		engine.Progress = progress
		j.outcome.Results = engine.Execute(ctx, j.outcome.Plan)
	}
	j.conclude(ctx)
	return j.outcome, nil
}

// plan plans the request. Where there is nothing to remove, no engine is asked.
func (j *job) plan(ctx context.Context) error {
	for _, c := range append(j.images, j.containers...) {
		j.outcome.References = append(j.outcome.References, c.reference)
		j.outcome.Names = append(j.outcome.Names, c.name)
	}
	if len(j.outcome.References) == 0 {
		j.outcome.Plan = j.nothing()
		return nil
	}
	plan, err := j.Engine.Plan(ctx, j.request)
	if errors.Is(err, core.ErrPlanStale) {
		return err
	}
	if err != nil {
		return fmt.Errorf("plan the removal, nothing was changed: %w", err)
	}
	j.outcome.Plan = plan
	return nil
}

func (j *job) nothing() *core.Plan {
	return &core.Plan{Force: j.request.Force, Removals: []core.Removal{}}
}

// unplanned ends a removal that could not be planned: an error is one where nothing was changed.
func (j *job) unplanned(err error) (*Outcome, error) {
	if len(j.outcome.Completed)+len(j.outcome.Problems) == 0 {
		return nil, err
	}
	return &Outcome{Plan: j.nothing(), Refusals: j.outcome.Refusals, Completed: j.outcome.Completed,
		Problems: append(j.outcome.Problems, err)}, nil
}

// complete ends what an earlier process was killed in. Where that does not work the rest goes on, and the
// next removal tries it again.
func (j *job) complete(ctx context.Context) {
	completed, err := j.Engine.Store.CompleteInterrupted(ctx)
	if err != nil {
		j.outcome.Problems = append(j.outcome.Problems,
			fmt.Errorf("complete the image deletion that an earlier run was interrupted in: %w", err))
	}
	j.completed = completed
	for _, c := range completed {
		for _, i := range c.Deleted {
			j.outcome.Completed = append(j.outcome.Completed, Completion{i.ID, append([]string{}, i.Names...)})
		}
	}
}

// completes is whether a reference means an image whose interrupted deletion was completed.
func (j *job) completes(ctx context.Context, reference string) bool {
	if len(j.completed) == 0 {
		return false
	}
	gone := &core.Snapshot{Store: j.snapshot.Store}
	for _, c := range j.completed {
		gone.Images = append(gone.Images, c.Image)
	}
	id, _, err := j.Engine.Store.ResolveImage(ctx, gone, reference)
	if err != nil {
		return false // and the reference is refused
	}
	j.meant[id] = true
	return true
}

// addRest adds the dangling parents that an interrupted removal had yet to delete.
func (j *job) addRest() {
	for _, c := range j.completed {
		if len(c.Rest) == 0 || j.asksFor(c.Rest[0]) {
			continue
		}
		if image, there := j.snapshot.Image(c.Rest[0]); there {
			j.addTarget(core.RestOf(c), imageName(image, ""))
		}
	}
}

func (j *job) asksFor(id core.ImageID) bool {
	return slices.ContainsFunc(j.request.Images, func(t core.ImageTarget) bool { return t.ID == id })
}

// conclude ends the interrupted deletions of which nothing is left to do: all of the rest is deleted, or
// is kept on purpose. What went wrong is tried again by the next removal.
func (j *job) conclude(ctx context.Context) {
	var errs []error
	for _, c := range j.completed {
		left := len(c.Rest) > 0 && !j.asksFor(c.Rest[0]) && !j.meant[c.Image.ID]
		for _, r := range j.outcome.Results {
			left = left || len(r.Failed) > 0 && slices.Contains(c.Rest, r.Removal.Image)
		}
		if !left {
			errs = append(errs, j.Engine.Store.Conclude(ctx, c.Image.ID))
		}
	}
	if err := errors.Join(errs...); err != nil {
		j.outcome.Problems = append(j.outcome.Problems,
			fmt.Errorf("conclude the image deletion that an earlier run was interrupted in: %w", err))
	}
}
