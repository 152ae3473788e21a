package transcribe

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromFailure writes a failure.
func FromFailure(f core.Failure) removal.Failure {
	return removal.Failure{Action: FromAction(f.Action), Problem: FromProblem(f.Err)}
}

// ToFailure reads a failure.
func ToFailure(f removal.Failure) (core.Failure, error) {
	action, err := ToAction(f.Action)
	if err != nil {
		return core.Failure{}, err
	}
	problem, err := ToProblem(f.Problem)
	return core.Failure{Action: action, Err: problem}, err
}

// FromResult writes a result.
func FromResult(r core.Result) removal.Result {
	return removal.Result{Done: list(r.Done, FromAction), Failures: list(r.Failed, FromFailure), Blockers: list(r.Blockers, FromBlocker),
		ReclaimedBytes: r.Bytes, AtLeast: r.AtLeast}
}

// ToResult reads what became of a removal of a plan.
func ToResult(of core.Removal, r removal.Result) (core.Result, error) {
	out := core.Result{Removal: of, AtLeast: r.AtLeast}
	var done, failed, blockers, bytes error
	out.Done, done = read(r.Done, ToAction)
	out.Failed, failed = read(r.Failures, ToFailure)
	out.Blockers, blockers = read(r.Blockers, ToBlocker)
	out.Bytes, bytes = count(r.ReclaimedBytes, "what was given free")
	return out, errors.Join(done, failed, blockers, bytes)
}

// FromOutcome writes what a removal came to.
func FromOutcome(o *service.Outcome) removal.Outcome {
	return removal.Outcome{
		Plan: FromPlan(o), Results: list(o.Results, FromResult), Refusals: list(o.Refusals, FromRefusal),
		Completed: list(o.Completed, func(c service.Completion) removal.Completion {
			return removal.Completion{Image: string(c.Image), Names: texts[string, string](c.Names)}
		}),
		Problems: list(o.Problems, FromProblem),
	}
}

// ToOutcome reads what a removal came to.
func ToOutcome(o removal.Outcome) (*service.Outcome, error) {
	if len(o.Results) != len(o.Plan.Removals) {
		return nil, fmt.Errorf("read the outcome: %d results of %d removals", len(o.Results), len(o.Plan.Removals))
	}
	return toOutcome(o)
}

// toOutcome reads an outcome whose results, where there are any, are one a removal.
func toOutcome(o removal.Outcome) (*service.Outcome, error) {
	out, err := ToPlan(o.Plan)
	if err != nil {
		return nil, err
	}
	for i, r := range o.Results {
		result, err := ToResult(out.Plan.Removals[i], r)
		if err != nil {
			return nil, fmt.Errorf("read the result for %s: %w", out.References[i], err)
		}
		out.Results = append(out.Results, result)
	}
	for _, c := range o.Completed {
		out.Completed = append(out.Completed, service.Completion{Image: core.ImageID(c.Image), Names: c.Names})
	}
	var refusals, problems error
	out.Refusals, refusals = read(o.Refusals, ToRefusal)
	out.Problems, problems = read(o.Problems, ToProblem)
	if err := errors.Join(refusals, problems); err != nil {
		return nil, fmt.Errorf("read the outcome: %w", err)
	}
	return out, nil
}

// FromProgress writes a step of a removal.
func FromProgress(p core.Progress) removal.Progress {
	out := removal.Progress{Phase: string(p.Phase), Action: FromAction(p.Action)}
	if p.Err != nil {
		message := p.Err.Error()
		out.Error = &message
	}
	return out
}

// ToProgress reads a step of a removal; of its error the words alone.
func ToProgress(p removal.Progress) (core.Progress, error) {
	action, err := ToAction(p.Action)
	out := core.Progress{Phase: core.Phase(p.Phase), Action: action}
	if p.Error != nil {
		out.Err = errors.New(*p.Error)
	}
	return out, err
}
