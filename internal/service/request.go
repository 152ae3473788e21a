package service

import (
	"errors"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Targets are what a removal is asked for. References are as engines take them: an ID, a unique prefix of
// one, or a name, an image's with or without tag or digest.
type Targets struct {
	Images     []string
	Containers []string
	// Either are names of an image or, where there is none, of a container.
	Either []string
	// AllImages and AllContainers leave nothing to be named.
	AllImages     bool
	AllContainers bool
}

// Check finds what no store could give a sense to.
func (t Targets) Check() error {
	switch {
	case t.AllImages && len(t.Images)+len(t.Either) > 0:
		return errors.New("all images were asked for, and some by name: give either")
	case t.AllContainers && len(t.Containers)+len(t.Either) > 0:
		return errors.New("all containers were asked for, and some by name: give either")
	case !t.AllImages && !t.AllContainers && len(t.Images)+len(t.Containers)+len(t.Either) == 0:
		return errors.New("neither an image nor a container was asked for")
	}
	return nil
}

// ofImages is whether an image may be among them.
func (t Targets) ofImages() bool { return t.AllImages || len(t.Images)+len(t.Either) > 0 }

// Request is a removal that is asked for.
type Request struct {
	Targets Targets
	Force   core.Force
	// Grace is between the polite signal and the forcible one; nil is as configured.
	Grace *time.Duration
	// NoPrune keeps the dangling parents of a deleted image.
	NoPrune bool
	// Revision, where set, is that of the plan that is meant: any other is refused with *core.StaleError.
	Revision string
}

// Outcome is what a request comes to.
type Outcome struct {
	// Plan was made before anything was done; it has no revision where every target was refused.
	Plan *core.Plan
	// References are what each of Plan.Removals was asked for by, Names what its target is called: an
	// image by the name that the reference stands for, or else its first, a container likewise. A name may
	// be empty.
	References []string
	Names      []string
	// Results are one a removal; nil of a plan alone.
	Results []core.Result
	// Refusals are references that mean nothing, or too much. The rest was done all the same.
	Refusals []Refusal
	// Completed are the images whose deletion an earlier process was killed in, and that are deleted now.
	Completed []Completion
	// Problems are what went wrong beside the removals. One that wraps core.ErrPlanStale says that none was
	// begun.
	Problems []error
}

// Refusal is a reference that is not one target. Err wraps core.ErrImageUnknown, core.ErrContainerUnknown or
// *core.AmbiguousError, or says what else is wrong with it.
type Refusal struct {
	Reference string
	Err       error
}

// Completion is a deletion of an image that was completed.
type Completion struct {
	Image core.ImageID
	// Names are those that it had.
	Names []string
}
