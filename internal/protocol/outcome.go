package protocol

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// The problems of an outcome.
const (
	ProblemStillInUse       iounmoorplugin.Problem = "still_in_use"
	ProblemNotOwner         iounmoorplugin.Problem = "not_owner"
	ProblemRevisionMismatch iounmoorplugin.Problem = "revision_mismatch"
	ProblemFailed           iounmoorplugin.Problem = "failed"
)

// problem finds the word for an error, and cause the error for a word.
func problem(err error) iounmoorplugin.Problem {
	switch {
	case errors.Is(err, core.ErrStillInUse):
		return ProblemStillInUse
	case errors.Is(err, core.ErrNotOwner): // which is core.ErrPlanStale too
		return ProblemNotOwner
	case errors.Is(err, core.ErrPlanStale):
		return ProblemRevisionMismatch
	}
	return ProblemFailed
}

func cause(p iounmoorplugin.Problem) (error, error) {
	switch p {
	case ProblemStillInUse:
		return core.ErrStillInUse, nil
	case ProblemNotOwner:
		return core.ErrNotOwner, nil
	case ProblemRevisionMismatch:
		return core.ErrPlanStale, nil
	case ProblemFailed:
		return nil, nil
	}
	return nil, fmt.Errorf("there is no problem %.80q", p)
}

// problemError is an error of a plugin in its own words.
type problemError struct {
	message string
	cause   error
}

func (e *problemError) Error() string { return e.message }
func (e *problemError) Unwrap() error { return e.cause }

// FromOutcome makes an outcome for the wire. Of the error core.ErrStillInUse, core.ErrNotOwner and
// core.ErrPlanStale are told on the other side, and the words.
func FromOutcome(o core.Outcome) (iounmoorplugin.Outcome, error) {
	w := iounmoorplugin.Outcome{Id: string(o.Container), Along: optionalTexts(o.Along)}
	if o.Err != nil {
		p, message := problem(o.Err), cmp.Or(o.Err.Error(), "it does not say why")
		w.Problem, w.Message = &p, &message
	} else {
		w.StorageRemoved = optional(o.StorageRemoved)
	}
	return w, checkOutcome(w)
}

// ToOutcome reads an outcome.
func ToOutcome(w iounmoorplugin.Outcome) (core.Outcome, error) {
	if err := checkOutcome(w); err != nil {
		return core.Outcome{}, err
	}
	o := core.Outcome{Container: core.ContainerID(w.Id), StorageRemoved: value(w.StorageRemoved),
		Along: typed[core.ContainerID](value(w.Along))}
	if w.Problem == nil {
		return o, nil
	}
	why, err := cause(*w.Problem)
	if err != nil {
		return core.Outcome{}, fmt.Errorf("outcome of container %.12q: %w", w.Id, err)
	}
	o.Err = &problemError{message: *w.Message, cause: why}
	return o, nil
}

func checkOutcome(w iounmoorplugin.Outcome) error {
	err := cmp.Or(checkID("container", w.Id), checkIDs("container that went along", value(w.Along)))
	switch {
	case err != nil:
	case w.Problem != nil && value(w.Message) == "":
		err = errors.New("it has a problem without a message")
	case w.Problem != nil && value(w.StorageRemoved):
		err = errors.New("it has a problem, and yet its storage was removed")
	}
	if err != nil {
		return fmt.Errorf("outcome of container %.12q: %w", w.Id, err)
	}
	return nil
}
