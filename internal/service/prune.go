package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// Pruned is what a prune comes to.
type Pruned struct {
	// Outcome has the plan of all that goes; where several rounds were needed, of all rounds.
	*Outcome
	// Kept is what was meant and has to stay, each with the first thing that keeps it.
	Kept []core.Blocker
	// Bytes are what the plan would give free; AtLeast is whether something was not measured.
	Bytes   int64
	AtLeast bool
	// Disk is the file system of the store as it was; After as it is, where something was done.
	Disk, After *core.Disk
	// Wanted is how many bytes were to become free, where the request was for what is full.
	Wanted int64
	// Thresholds are those that it went by, where the request was for what is full.
	Thresholds core.Thresholds
}

// PlanPrune says what a prune would take now, and changes nothing. Errors: those of PruneRequest.Check,
// *core.StaleError, and what could not be found out.
func (l *Local) PlanPrune(ctx context.Context, r PruneRequest) (*Pruned, error) {
	p, err := l.pruning(r)
	if err != nil {
		return nil, err
	}
	if err := p.measure(); err != nil {
		return nil, err
	}
	return p.pruned, p.plan(ctx, r.Revision, false)
}

// Prune takes what PlanPrune says, nothing of it by more force than idle containers need, and completes the
// deletions of images that an earlier process was killed in. Where the request is for what is full, it goes
// on in rounds until the file system is no fuller than the threshold, or nothing more may go; with a revision
// there is one round. Its errors are PlanPrune's. progress is Remove's.
func (l *Local) Prune(ctx context.Context, r PruneRequest, progress func(core.Progress)) (*Pruned, error) {
	p, err := l.pruning(r)
	if err != nil {
		return nil, err
	}
	p.job.complete(ctx)
	if err := p.measure(); err != nil {
		return p.unplanned(err)
	}
	if err := p.plan(ctx, r.Revision, true); err != nil {
		return p.unplanned(err)
	}
	engine := *l.Engine
	engine.Progress = progress
	for next := p.pruned.Plan; len(next.Removals) > 0; {
		results := engine.Execute(ctx, next)
		p.pruned.Results = append(p.pruned.Results, results...)
		if !r.WhenFull || r.Revision != "" || !moved(results) || ctx.Err() != nil || !p.stillFull() {
			break
		}
		if next, err = p.further(ctx); err != nil {
			p.pruned.Problems = append(p.pruned.Problems, fmt.Errorf("plan the next round of the prune: %w", err))
			break
		}
	}
	p.job.conclude(ctx)
	if disk, err := l.diskOf(); err == nil && len(p.pruned.Results) > 0 {
		p.pruned.After = &disk
	} // else how full it is is only told to people
	return p.pruned, nil
}

// pruning is one prune.
type pruning struct {
	*job
	request PruneRequest
	policy  core.Policy
	now     time.Time
	pruned  *Pruned
	// kept are what Kept names already.
	kept map[string]bool
}

func (l *Local) pruning(r PruneRequest) (*pruning, error) {
	p := &pruning{job: l.job(Request{Force: core.ForceIdle}), request: r, now: time.Now(), kept: make(map[string]bool)}
	var err error
	if p.policy, err = r.policy(l.Cleaning, p.now); err != nil {
		return nil, err
	}
	p.pruned = &Pruned{Outcome: p.outcome}
	if r.WhenFull {
		p.pruned.Thresholds = l.Cleaning.Thresholds
		if r.Thresholds != nil {
			p.pruned.Thresholds = *r.Thresholds
		}
		if t := p.pruned.Thresholds; t.Low < 0 || t.High > 100 || t.Low >= t.High {
			return nil, errors.New("a prune begins above high and ends at low: 100 >= high > low >= 0")
		}
	}
	return p, nil
}

// measure finds out how full the file system is, and how much is to become free.
func (p *pruning) measure() error {
	disk, err := p.diskOf()
	if err != nil && p.request.WhenFull {
		return err
	}
	if err == nil {
		p.pruned.Disk = &disk
	} // else how full it is is only told to people
	if p.request.WhenFull {
		p.pruned.Wanted = p.pruned.Thresholds.Wanted(disk)
		p.policy.Wanted = p.pruned.Wanted
	}
	return nil
}

// plan makes the plan of the first round.
func (p *pruning) plan(ctx context.Context, revision string, keep bool) error {
	p.outcome.Plan = p.nothing()
	if p.request.WhenFull && p.pruned.Wanted == 0 {
		if revision != "" {
			return &core.StaleError{Wanted: revision, Now: "none"}
		}
		if keep { // whoever prunes every few minutes has no other watch
			_, err := p.past(ctx, keep)
			return err
		}
		return nil // no engine is asked
	}
	plan, err := p.round(ctx, revision, keep)
	if err != nil {
		return err
	}
	p.pruned.Plan = plan
	p.pruned.Bytes, p.pruned.AtLeast = p.Engine.Estimate(ctx, plan)
	return ctx.Err()
}

// further makes the plan of one more round, and adds it to the whole.
func (p *pruning) further(ctx context.Context) (*core.Plan, error) {
	plan, err := p.round(ctx, "", true)
	if err != nil {
		return nil, err
	}
	p.pruned.Plan.Removals = append(p.pruned.Plan.Removals, plan.Removals...)
	bytes, atLeast := p.Engine.Estimate(ctx, plan)
	p.pruned.Bytes, p.pruned.AtLeast = p.pruned.Bytes+bytes, p.pruned.AtLeast || atLeast
	p.pruned.Plan.ReclaimableBytes += plan.ReclaimableBytes
	return plan, nil
}

// round makes the plan of a round, and notes how what it takes is called.
func (p *pruning) round(ctx context.Context, revision string, keep bool) (*core.Plan, error) {
	past, err := p.past(ctx, keep)
	if err != nil {
		return nil, err
	}
	if asksForLabels(p.policy) {
		snapshot, err := p.Engine.Store.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		if !labelsKnown(snapshot) {
			return nil, errors.New("the labels of images were not read, so no filter can go by them")
		}
	}
	plan, kept, err := p.Engine.PlanPrune(ctx, core.Prune{Policy: p.policy, Past: past, Now: p.now, Revision: revision})
	if errors.Is(err, core.ErrPlanStale) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("plan the prune: %w", err)
	}
	for _, b := range kept {
		if id := string(b.Image) + string(b.Container); !p.kept[id] {
			p.kept[id] = true
			p.pruned.Kept = append(p.pruned.Kept, b)
		}
	}
	for _, r := range plan.Removals {
		reference, name := r.Reference, ""
		if r.Container != "" {
			reference = r.Container.Short()
		}
		for _, a := range r.Actions {
			if a.Name != "" && (r.Container != "" && a.Container == r.Container || r.Image != "" && a.Image == r.Image) {
				name = a.Name
			}
		}
		p.outcome.References, p.outcome.Names = append(p.outcome.References, reference), append(p.outcome.Names, name)
	}
	return plan, nil
}

// past is what is known of the images' past; nothing where there is no journal.
func (p *pruning) past(ctx context.Context, keep bool) (map[core.ImageID]core.Past, error) {
	if p.Journal == nil {
		return nil, nil
	}
	past, problem, err := p.Journal.Past(ctx, p.Engine.Store.Snapshot, keep)
	if problem != nil && (p.policy.UnusedFor > 0 || p.request.WhenFull) { // else nothing goes by it but an age
		p.outcome.Problems = append(p.outcome.Problems, problem)
	}
	return past, err
}

// stillFull measures anew, and says whether the next round has something to do.
func (p *pruning) stillFull() bool {
	disk, err := p.diskOf()
	if err != nil {
		p.outcome.Problems = append(p.outcome.Problems, err)
		return false
	}
	// From the second round on there is no high to be below of.
	p.policy.Wanted = core.Thresholds{Low: p.pruned.Thresholds.Low}.Wanted(disk)
	return disk.Used() > p.pruned.Thresholds.Low && p.policy.Wanted > 0
}

// moved is whether a round has deleted an image: what has not will not do better in the next one.
func moved(results []core.Result) bool {
	for _, r := range results {
		for _, a := range r.Done {
			if a.Verb == core.VerbDeleteImage {
				return true
			}
		}
	}
	return false
}

// unplanned ends a prune that could not be planned: an error is one where nothing was changed.
func (p *pruning) unplanned(err error) (*Pruned, error) {
	outcome, err := p.job.unplanned(err)
	if err != nil {
		return nil, err
	}
	p.pruned.Outcome = outcome
	return p.pruned, nil
}

// diskOf is the file system of the store.
func (l *Local) diskOf() (core.Disk, error) {
	if l.disk != nil {
		return l.disk()
	}
	directory := l.Engine.Store.Info().GraphRoot
	var s unix.Statfs_t
	if err := unix.Statfs(directory, &s); err != nil {
		return core.Disk{}, fmt.Errorf("see how full the file system of %s is: %w", directory, err)
	}
	unit := s.Frsize
	if unit == 0 {
		unit = s.Bsize
	}
	return core.Disk{Capacity: int64(s.Blocks) * unit, Available: int64(s.Bavail) * unit}, nil
}

// Usage is what a store's bytes are held by.
type Usage struct {
	Account *core.Account
	// Disk is the file system of the store; nil where it is not known.
	Disk *core.Disk
	Time time.Time
}

// Usage accounts for all of the store.
func (l *Local) Usage(ctx context.Context) (*Usage, error) {
	account, err := l.Engine.Account(ctx)
	if err != nil {
		return nil, fmt.Errorf("account for the store: %w", err)
	}
	u := &Usage{Account: account, Time: time.Now()}
	if disk, err := l.diskOf(); err == nil {
		u.Disk = &disk
	} // else it is only told to people
	return u, nil
}
