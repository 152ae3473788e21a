package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

func (h *handlers) Remove(ctx context.Context, c removal.VarlinkCall, targets removal.Targets, force *removal.Force,
	revision *string, gracePeriodMs *int64, noPrune *bool) error {
	in := transcribe.RemoveIn{Targets: targets, Force: force, Revision: revision, GracePeriodMs: gracePeriodMs, NoPrune: noPrune}
	return h.remove(ctx, c, in, "", answer{
		parameter: "targets",
		step: func(c removal.VarlinkCall, o *operation, p core.Progress) error {
			progress := transcribe.FromProgress(p)
			return c.ReplyRemove(ctx, o.id, &progress, nil)
		},
		end: func(c removal.VarlinkCall, o *operation) error {
			outcome := transcribe.FromOutcome(o.result.outcome)
			return c.ReplyRemove(ctx, o.id, nil, &outcome)
		},
	})
}

func (h *handlers) RemoveImage(ctx context.Context, c removal.VarlinkCall, image string, force *removal.Force,
	revision *string, gracePeriodMs *int64, noPrune *bool) error {
	in := transcribe.RemoveIn{Targets: removal.Targets{Images: &[]string{image}}, Force: force, Revision: revision,
		GracePeriodMs: gracePeriodMs, NoPrune: noPrune}
	return h.remove(ctx, c, in, image, answer{
		parameter: "image",
		step: func(c removal.VarlinkCall, o *operation, p core.Progress) error {
			if p.Phase != core.PhaseFinished {
				return nil
			}
			action := transcribe.FromAction(p.Action)
			return c.ReplyRemoveImage(ctx, o.id, &action, nil, nil, nil, nil)
		},
		end: func(c removal.VarlinkCall, o *operation) error {
			if replied, err := replyKept(ctx, c, o, image); replied {
				return err
			}
			g := goneOf(o.result.outcome)
			return c.ReplyRemoveImage(ctx, o.id, nil, &g.untagged, &g.images, &g.containers, &g.bytes)
		},
	})
}

func (h *handlers) RemoveContainer(ctx context.Context, c removal.VarlinkCall, container string, force *removal.Force,
	revision *string, gracePeriodMs *int64) error {
	in := transcribe.RemoveIn{Targets: removal.Targets{Containers: &[]string{container}}, Force: force, Revision: revision,
		GracePeriodMs: gracePeriodMs}
	return h.remove(ctx, c, in, container, answer{
		parameter: "container",
		step: func(c removal.VarlinkCall, o *operation, p core.Progress) error {
			if p.Phase != core.PhaseFinished {
				return nil
			}
			action := transcribe.FromAction(p.Action)
			return c.ReplyRemoveContainer(ctx, o.id, &action, nil, nil)
		},
		end: func(c removal.VarlinkCall, o *operation) error {
			if replied, err := replyKept(ctx, c, o, container); replied {
				return err
			}
			g := goneOf(o.result.outcome)
			return c.ReplyRemoveContainer(ctx, o.id, nil, &g.containers, &g.bytes)
		},
	})
}

// answer is how a method answers: with more, a step as it is done; then the end of what was begun.
type answer struct {
	// parameter is what says what is to be removed.
	parameter string
	step      func(removal.VarlinkCall, *operation, core.Progress) error
	end       func(removal.VarlinkCall, *operation) error
}

// remove carries out a call. reference is what was asked for, where that is one thing.
func (h *handlers) remove(ctx context.Context, c removal.VarlinkCall, in transcribe.RemoveIn, reference string, a answer) error {
	request, err := transcribe.ToRequest(in)
	if err == nil {
		err = checkRequest(in, a.parameter)
	}
	if err != nil {
		return transcribe.ReplyError(ctx, c, reference, err)
	}
	return h.carryOut(ctx, c, h.removalTask(callOf(ctx), request), recordRequest(request), reference, a)
}

// carryOut does a task for a call, and answers.
func (h *handlers) carryOut(ctx context.Context, c removal.VarlinkCall, t task, r *requestRecord, reference string, a answer) error {
	call := callOf(ctx)
	o, err := h.operate(ctx, t, r)
	if err != nil {
		return transcribe.ReplyError(ctx, c, reference, err)
	}
	if c.IsOneway() {
		return nil // nobody waits for it, and nobody can leave it
	}
	err = o.follow(ctx, func(p core.Progress) error {
		if !c.WantsMore() {
			return nil
		}
		c.Continues = true
		return a.step(c, o, p)
	})
	h.leave(call, o, err != nil)
	if err != nil {
		return err
	}
	c.Continues = false
	if o.err != nil {
		return transcribe.ReplyError(ctx, c, reference, o.err)
	}
	return a.end(c, o)
}

// checkRequest refuses what its caller cannot have meant: a script's variable that is empty.
func checkRequest(in transcribe.RemoveIn, parameter string) error {
	for _, references := range []*[]string{in.Targets.Images, in.Targets.Containers, in.Targets.Either} {
		if references != nil && slices.Contains(*references, "") {
			return &transcribe.ParameterError{Parameter: parameter, Err: errors.New("it is empty")}
		}
	}
	if in.Revision != nil && !isRevision(*in.Revision) {
		return &transcribe.ParameterError{Parameter: "revision", Err: errors.New("it has 64 hexadecimal digits")}
	}
	return nil
}

func isRevision(s string) bool {
	return len(s) == 64 && !slices.ContainsFunc([]byte(s), func(b byte) bool { return (b < '0' || b > '9') && (b < 'a' || b > 'f') })
}

// operate begins an operation or joins one, and writes down which.
func (h *handlers) operate(ctx context.Context, t task, r *requestRecord) (*operation, error) {
	call := callOf(ctx)
	call.who = call.setup.recordCaller(ctx, call.caller)
	h.hold(call.setup)
	t.ended = func() { h.release(call.setup) }
	o, joined, err := h.operations.enter(ctx, call.caller, t)
	if err != nil || joined {
		h.release(call.setup)
	}
	if err == nil && joined {
		err = h.audit(call.setup, record{Event: "joined", Method: call.method, Operation: o.id, Caller: call.who, Request: r})
		if err != nil {
			o.leave()
		}
	}
	return o, err
}

// leave ends a caller's part in an operation. early is whether it goes away before the end.
func (h *handlers) leave(call *call, o *operation, early bool) {
	if early {
		// That the operation was begun, and its end, are written down in any case.
		_ = h.audit(call.setup, record{Event: "left", Method: call.method, Operation: o.id, Caller: call.who})
	}
	o.leave()
}

// removalTask is a removal for a call.
func (h *handlers) removalTask(call *call, r service.Request) task {
	key, err := json.Marshal(r)
	if err != nil {
		key = []byte(newID()) // it is the same as no other one
	}
	return task{
		key: "remove " + string(key),
		resolve: func(ctx context.Context) (*service.Meaning, error) {
			return call.setup.Service.Resolve(ctx, r.Targets)
		},
		run: func(ctx context.Context, o *operation) (result, error) {
			return h.written(call, o, recordRequest(r), func() (result, error) {
				outcome, err := call.setup.Service.Remove(ctx, r, func(p core.Progress) {
					o.tell(p)
					h.publish(o, p)
				})
				return result{outcome: outcome}, err
			})
		},
	}
}

// written does what an operation is for, and writes down before that it begins, and afterwards what came
// of it. What cannot be written down is not begun.
func (h *handlers) written(call *call, o *operation, r *requestRecord, do func() (result, error)) (result, error) {
	began := time.Now()
	err := h.audit(call.setup, record{Event: "begun", Method: call.method, Operation: o.id, Caller: call.who, Request: r,
		Targets: clips(o.targets())})
	if err != nil {
		return result{}, err
	}
	out, err := do()
	end := record{Event: "ended", Method: call.method, Operation: o.id, Milliseconds: max(time.Since(began).Milliseconds(), 1)}
	switch {
	case err != nil:
		end.Error = clip(err.Error())
	default:
		end.Outcome = recordResult(out)
		if why := o.ended(); why != nil {
			end.Error = "ended before its time: " + why.Error()
		}
	}
	h.logger.Info("an operation has ended", "method", call.method, "operation", o.id, "uid", call.UID, "pid", call.PID,
		"milliseconds", end.Milliseconds, "error", end.Error)
	if err := h.audit(call.setup, end); err != nil && out.outcome != nil {
		out.outcome.Problems = append(out.outcome.Problems, fmt.Errorf("the removal was carried out, and is not in the audit log: %w", err))
	}
	return out, err
}

// publish tells those that watch of a step.
func (h *handlers) publish(o *operation, p core.Progress) {
	a := p.Action
	const most = 100 // of a container that is full of processes
	a.Processes = a.Processes[:min(len(a.Processes), most)]
	e := service.Event{Operation: o.id, UID: &o.by.UID, PID: &o.by.PID, Action: &a}
	tell := func(t service.EventType) {
		e.Type = t
		h.events.publish(e)
	}
	switch p.Phase {
	case core.PhaseStarted:
		tell(service.EventActionStarted)
	case core.PhaseFailed:
		if p.Err != nil {
			e.Error = clip(p.Err.Error())
		}
		tell(service.EventActionFailed)
	case core.PhaseFinished:
		tell(service.EventActionFinished)
		switch a.Verb {
		case core.VerbDeleteImage:
			tell(service.EventImageRemoved)
		case core.VerbUntag:
			tell(service.EventImageUntagged)
		case core.VerbRemove, core.VerbDeleteContainer:
			tell(service.EventContainerRemoved)
		case core.VerbStop, core.VerbKill, core.VerbUnmount:
		}
	}
}

// replyKept answers with the error of a removal of one thing that did not happen whole.
func replyKept(ctx context.Context, c removal.VarlinkCall, o *operation, reference string) (replied bool, err error) {
	out := o.result.outcome
	for _, r := range out.Refusals {
		return true, replyRefusal(ctx, c, r)
	}
	for i, r := range out.Results {
		switch {
		case out.References[i] != reference || r.OK(): // what an earlier removal left is no error of this one
		case len(r.Failed) == 0 && len(r.Done) == 0:
			return true, c.ReplyBlocked(ctx, transcribe.FromResult(r).Blockers)
		default:
			w := transcribe.FromResult(r)
			return true, c.ReplyIncomplete(ctx, o.id, w.Done, w.Failures)
		}
	}
	if len(out.Problems) > 0 && !slices.Contains(out.References, reference) {
		return true, transcribe.ReplyError(ctx, c, reference, errors.Join(out.Problems...))
	}
	return false, nil
}

func replyRefusal(ctx context.Context, c removal.VarlinkCall, r service.Refusal) error {
	var ambiguous *core.AmbiguousError
	switch {
	case errors.Is(r.Err, core.ErrImageUnknown), errors.Is(r.Err, core.ErrContainerUnknown), errors.As(r.Err, &ambiguous),
		errors.Is(r.Err, core.ErrStoreUnavailable):
		return transcribe.ReplyError(ctx, c, r.Reference, r.Err)
	}
	return c.ReplyInvalidReference(ctx, r.Reference, r.Err.Error())
}

// gone is what a removal took away.
type gone struct {
	untagged, images, containers []string
	bytes                        int64
}

func goneOf(o *service.Outcome) gone {
	g := gone{untagged: []string{}, images: []string{}, containers: []string{}}
	for _, c := range o.Completed {
		g.images = append(g.images, string(c.Image))
		g.untagged = append(g.untagged, c.Names...)
	}
	for _, r := range o.Results {
		g.bytes += r.Bytes
		for _, a := range r.Done {
			switch a.Verb {
			case core.VerbUntag:
				g.untagged = append(g.untagged, a.Name)
			case core.VerbDeleteImage:
				g.images = append(g.images, string(a.Image))
			case core.VerbRemove, core.VerbDeleteContainer:
				g.containers = append(g.containers, string(a.Container))
			case core.VerbStop, core.VerbKill, core.VerbUnmount:
			}
		}
	}
	return g
}
