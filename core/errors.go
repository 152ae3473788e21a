package core

import (
	"errors"
	"fmt"
	"strings"
)

// The errors to branch on.
var (
	// ErrImageUnknown: no image of this store has that name or ID.
	ErrImageUnknown = errors.New("no such image")
	// ErrContainerUnknown: no container of this store has that name or ID.
	ErrContainerUnknown = errors.New("no such container")
	// ErrImageInUse: the store refuses to delete an image, since a container of it is there.
	ErrImageInUse = errors.New("image is used by a container")
	// ErrReadOnly: the record lies in an additional image store, which is never written.
	ErrReadOnly = errors.New("read-only store")
	// ErrStoreUnavailable: the store cannot be opened or read.
	ErrStoreUnavailable = errors.New("store unavailable")
	// ErrStillInUse: what was to be removed is in use, seen after the plan was made.
	ErrStillInUse = errors.New("still in use")
	// ErrEngineAbsent: an engine is not on this machine, as far as a plugin can see; it does not run
	// and has left nothing to reach it by.
	ErrEngineAbsent = errors.New("the engine is not on this machine")
	// ErrPlanStale: the store, an owner or an answer about use changed since the plan was made.
	ErrPlanStale = errors.New("the plan no longer holds")
	// ErrNotOwner: an engine was given a container to stop or remove that is not its own. It is
	// ErrPlanStale, since one is given only what one has claimed.
	ErrNotOwner = fmt.Errorf("another owner: %w", ErrPlanStale)
)

// AmbiguousError is a name or an ID prefix that fits several images or containers.
type AmbiguousError struct {
	Reference  string
	Candidates []string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("%q is ambiguous: %s", e.Reference, strings.Join(e.Candidates, ", "))
}

// StaleError says that a request's plan is not the one that was meant, by the revisions of both. It wraps
// ErrPlanStale.
type StaleError struct{ Wanted, Now string }

func (e *StaleError) Error() string {
	return fmt.Sprintf("revision %.12s was asked for, and it is %.12s now: %v", e.Wanted, e.Now, ErrPlanStale)
}

func (e *StaleError) Unwrap() error { return ErrPlanStale }

// BusyError says that a container, or an image itself, is in use, or that its use could not be ruled
// out, with the evidence. It wraps ErrStillInUse.
type BusyError struct {
	// At most one of Container and Image is set.
	Container   ContainerID
	Image       ImageID
	Observation Observation
	// Reason is one clause: "its mount at … is busy".
	Reason string
}

func (e *BusyError) Error() string {
	what := "it"
	switch {
	case e.Container != "":
		what = "container " + e.Container.Short()
	case e.Image != "":
		what = "image " + e.Image.Short()
	}
	s := fmt.Sprintf("%s is %s: %s", what, useClause(e.Observation.Use), e.Reason)
	for _, p := range Processes(e.Observation.Evidence) {
		s += fmt.Sprintf(" (pid %d, %s)", p.PID, p.Command)
	}
	return s
}

func (e *BusyError) Unwrap() error { return ErrStillInUse }

func useClause(u Use) string {
	switch u {
	case UseInUse:
		return "in use"
	case UseIdle:
		return "idle"
	case UseUnknown:
	}
	return "perhaps in use"
}
