package protocol

import (
	"cmp"
	"errors"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// FromError makes the error reply of an engine that cannot answer. It keeps core.ErrEngineAbsent, and the
// advice of an error with a method Advice() string.
func FromError(err error) iounmoorplugin.EngineUnavailable {
	w := iounmoorplugin.EngineUnavailable{Reason: cmp.Or(err.Error(), "it does not say why"),
		Absent: optional(errors.Is(err, core.ErrEngineAbsent))}
	var a interface{ Advice() string }
	if errors.As(err, &a) {
		w.Advice = optional(a.Advice())
	}
	return w
}

// ToError is the error of an engine that cannot answer. It wraps core.ErrEngineAbsent where the engine is
// not on this machine, and has a method Advice() string where there is any.
func ToError(w iounmoorplugin.EngineUnavailable) error {
	e := unavailableError{reason: cmp.Or(w.Reason, "it does not say why"), absent: value(w.Absent)}
	if value(w.Advice) == "" {
		return &e
	}
	return &advisedError{e, *w.Advice}
}

type unavailableError struct {
	reason string
	absent bool
}

func (e *unavailableError) Error() string { return e.reason }

func (e *unavailableError) Unwrap() error {
	if e.absent {
		return core.ErrEngineAbsent
	}
	return nil
}

type advisedError struct {
	unavailableError
	advice string
}

func (e *advisedError) Advice() string { return e.advice }
