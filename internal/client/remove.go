package client

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// senseless is an answer that cannot be read.
func (c *Client) senseless(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the daemon at %s, of version %s, gave an answer that makes no sense: %w", c.address, c.version, err)
}

// Plan is service.Local's.
func (c *Client) Plan(ctx context.Context, r service.Request) (*service.Outcome, error) {
	in := transcribe.FromRequest(r)
	var out transcribe.PlanOut
	if err := c.call(ctx, "Plan", transcribe.PlanIn{Targets: in.Targets, Force: in.Force, NoPrune: in.NoPrune}, &out); err != nil {
		return nil, err
	}
	outcome, err := transcribe.ToPlan(out.Plan)
	if err != nil {
		return nil, c.senseless(err)
	}
	for _, r := range out.Refusals {
		refusal, err := transcribe.ToRefusal(r)
		if err != nil {
			return nil, c.senseless(err)
		}
		outcome.Refusals = append(outcome.Refusals, refusal)
	}
	if now := outcome.Plan.Revision; r.Revision != "" && now != "" && now != r.Revision {
		return nil, &core.StaleError{Wanted: r.Revision, Now: now}
	}
	return outcome, nil
}

// Remove is service.Local's. progress is called from one goroutine. Errors beside service.Local's:
// *LostError, after which the same request goes on with what is left.
func (c *Client) Remove(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error) {
	lost := &LostError{Address: c.address}
	var outcome *service.Outcome
	err := stream(ctx, c, "Remove", transcribe.FromRequest(r), func(reply transcribe.RemoveOut, last bool) error {
		if err := lost.hear(reply.Progress, progress); err != nil || !last {
			return err
		}
		if reply.Outcome == nil {
			return errors.New("the last reply has no outcome")
		}
		var err error
		outcome, err = transcribe.ToOutcome(*reply.Outcome)
		return err
	})
	return outcome, c.ended("Remove", r.Revision, err, lost)
}

// ended is what an error of a call means that may have changed something.
func (c *Client) ended(method, revision string, err error, lost *LostError) error {
	if _, reply := errors.AsType[*wire.Error](err); err == nil || reply {
		return c.failed(method, revision, err)
	}
	lost.Err = err
	return lost
}

// hear remembers a step, where there is one, and hands it on.
func (e *LostError) hear(step *removal.Progress, progress func(core.Progress)) error {
	if step == nil {
		return nil
	}
	p, err := transcribe.ToProgress(*step)
	if err != nil {
		return err
	}
	e.note(p)
	if progress != nil {
		progress(p)
	}
	return nil
}

// note remembers a step.
func (e *LostError) note(p core.Progress) {
	if p.Phase == core.PhaseStarted {
		e.Open = append(e.Open, p.Action)
		return
	}
	e.Open = slices.DeleteFunc(e.Open, func(a core.Action) bool {
		return a.Verb == p.Action.Verb && a.Container == p.Action.Container && a.Image == p.Action.Image && a.Name == p.Action.Name
	})
	if p.Phase == core.PhaseFinished {
		e.Done = append(e.Done, p.Action)
	}
}

// Examine is service.Local's. Errors beside its own: *LostError of a repair.
func (c *Client) Examine(ctx context.Context, r service.ExamineRequest) (*service.Examination, error) {
	in := transcribe.FromExamineRequest(r)
	var out transcribe.ExamineOut
	var err error
	if r.Repair {
		err = c.ended("Repair", "", c.conn.Call(ctx, name+".Repair", in, &out), &LostError{Address: c.address})
	} else {
		err = c.call(ctx, "Examine", in, &out)
	}
	if err != nil {
		return nil, err
	}
	e, err := transcribe.ToExamination(out)
	return e, c.senseless(err)
}
