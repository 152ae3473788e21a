package transcribe

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromAction writes an action.
func FromAction(a core.Action) removal.Action {
	out := removal.Action{Verb: string(a.Verb), Container: text(a.Container), Image: text(a.Image), Owner: text(a.Owner),
		Name: text(a.Name), Group: text(a.Group), Detail: text(a.Detail), Bytes: optional(a.Bytes)}
	if len(a.Processes) > 0 {
		processes := list(a.Processes, FromProcess)
		out.Processes = &processes
	}
	return out
}

// ToAction reads an action.
func ToAction(a removal.Action) (core.Action, error) {
	out := core.Action{Verb: core.Verb(a.Verb), Container: core.ContainerID(value(a.Container)), Image: core.ImageID(value(a.Image)),
		Owner: value(a.Owner), Name: value(a.Name), Group: value(a.Group), Detail: value(a.Detail)}
	var processes, bytes error
	out.Processes, processes = read(value(a.Processes), ToProcess)
	out.Bytes, bytes = count(value(a.Bytes), "what it gave free")
	if err := errors.Join(processes, bytes); err != nil {
		return out, fmt.Errorf("read action %s: %w", a.Verb, err)
	}
	return out, nil
}

// FromBlocker writes a blocker.
func FromBlocker(b core.Blocker) removal.Blocker {
	return removal.Blocker{Reason: string(b.Reason), Container: text(b.Container), Image: text(b.Image), Name: text(b.Name),
		Owners: texts[string, string](b.Owners), Group: text(b.Group), State: text(b.State), LiftedBy: removal.Force(b.LiftedBy.String()),
		Detail: text(b.Detail), Advice: text(b.Advice), Evidence: list(b.Evidence, FromEvidence)}
}

// ToBlocker reads a blocker.
func ToBlocker(b removal.Blocker) (core.Blocker, error) {
	out := core.Blocker{Reason: core.Reason(b.Reason), Container: core.ContainerID(value(b.Container)), Image: core.ImageID(value(b.Image)),
		Name: value(b.Name), Owners: b.Owners, Group: value(b.Group), State: core.State(value(b.State)),
		Detail: value(b.Detail), Advice: value(b.Advice)}
	var evidence error
	out.Evidence, evidence = read(b.Evidence, ToEvidence)
	if err := errors.Join(evidence, word(b.LiftedBy, &out.LiftedBy)); err != nil {
		return out, fmt.Errorf("read blocker %s: %w", b.Reason, err)
	}
	return out, nil
}

// FromPlan writes the plan of an outcome, with what its targets were asked for by and are called.
func FromPlan(o *service.Outcome) removal.RemovalPlan {
	out := removal.RemovalPlan{Revision: o.Plan.Revision, Force: removal.Force(o.Plan.Force.String()),
		Removals: make([]removal.Removal, len(o.Plan.Removals)), ReclaimableBytes: o.Plan.ReclaimableBytes}
	for i, r := range o.Plan.Removals {
		out.Removals[i] = removal.Removal{Reference: o.References[i], Image: text(r.Image), Container: text(r.Container),
			Name: text(o.Names[i]), Actions: list(r.Actions, FromAction), Blockers: list(r.Blockers, FromBlocker),
			Notes: texts[string, string](r.Notes)}
	}
	return out
}

// ToPlan reads a plan, as an outcome without more. It cannot be executed: the facts are not in it.
func ToPlan(p removal.RemovalPlan) (*service.Outcome, error) {
	out := &service.Outcome{Plan: &core.Plan{Revision: p.Revision, Removals: []core.Removal{}}}
	if err := word(p.Force, &out.Plan.Force); err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	var err error
	if out.Plan.ReclaimableBytes, err = count(p.ReclaimableBytes, "what it gives free"); err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	for _, r := range p.Removals {
		to := core.Removal{Image: core.ImageID(value(r.Image)), Container: core.ContainerID(value(r.Container)),
			Reference: r.Reference, Notes: r.Notes}
		if to.Container != "" {
			to.Reference = string(to.Container) // as core has it
		}
		var actions, blockers error
		to.Actions, actions = read(r.Actions, ToAction)
		to.Blockers, blockers = read(r.Blockers, ToBlocker)
		if err := errors.Join(actions, blockers); err != nil {
			return nil, fmt.Errorf("read the plan for %s: %w", r.Reference, err)
		}
		out.Plan.Removals = append(out.Plan.Removals, to)
		out.References = append(out.References, r.Reference)
		out.Names = append(out.Names, value(r.Name))
	}
	return out, nil
}
