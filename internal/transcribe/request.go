package transcribe

import (
	"fmt"
	"time"

	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// ParameterError is a parameter of a call that makes no sense.
type ParameterError struct {
	// Parameter is its name.
	Parameter string
	Err       error
}

func (e *ParameterError) Error() string { return fmt.Sprintf("parameter %s: %v", e.Parameter, e.Err) }
func (e *ParameterError) Unwrap() error { return e.Err }

// FromTargets writes targets.
func FromTargets(t service.Targets) removal.Targets {
	return removal.Targets{Images: names(t.Images), Containers: names(t.Containers), Either: names(t.Either),
		AllImages: optional(t.AllImages), AllContainers: optional(t.AllContainers)}
}

// ToTargets reads targets, and checks them. Errors: *ParameterError.
func ToTargets(t removal.Targets) (service.Targets, error) {
	out := service.Targets{Images: value(t.Images), Containers: value(t.Containers), Either: value(t.Either),
		AllImages: value(t.AllImages), AllContainers: value(t.AllContainers)}
	if err := out.Check(); err != nil {
		return out, &ParameterError{"targets", err}
	}
	return out, nil
}

// names leaves an empty list out.
func names(all []string) *[]string {
	if len(all) == 0 {
		return nil
	}
	return &all
}

// FromRequest writes a request.
func FromRequest(r service.Request) RemoveIn {
	in := RemoveIn{Targets: FromTargets(r.Targets), Revision: text(r.Revision), GracePeriodMs: fromGrace(r.Grace), NoPrune: optional(r.NoPrune)}
	if r.Force != 0 {
		force := removal.Force(r.Force.String())
		in.Force = &force
	}
	return in
}

// ToRequest reads a request. Errors: *ParameterError.
func ToRequest(in RemoveIn) (service.Request, error) {
	out := service.Request{Revision: value(in.Revision), NoPrune: value(in.NoPrune)}
	var err error
	if out.Targets, err = ToTargets(in.Targets); err != nil {
		return out, err
	}
	if in.Force != nil {
		if err := word(*in.Force, &out.Force); err != nil {
			return out, &ParameterError{"force", err}
		}
	}
	out.Grace, err = toGrace(in.GracePeriodMs)
	return out, err
}

func fromGrace(d *time.Duration) *int64 {
	if d == nil {
		return nil
	}
	ms := fromDuration(*d)
	return &ms
}

func toGrace(ms *int64) (*time.Duration, error) {
	if ms == nil {
		return nil, nil
	}
	if _, err := count(*ms, "it"); err != nil {
		return nil, &ParameterError{"gracePeriodMs", err}
	}
	d := toDuration(*ms)
	return &d, nil
}

// FromExamineRequest writes a look for damage or a repair.
func FromExamineRequest(r service.ExamineRequest) ExamineIn {
	in := ExamineIn{Names: names(r.Names)}
	if r.Settled != 0 {
		ms := fromDuration(r.Settled)
		in.SettledMs = &ms
	}
	if r.Repair {
		in.GracePeriodMs = fromGrace(r.Grace)
	}
	return in
}

// ToExamineRequest reads a look for damage or a repair. Errors: *ParameterError.
func ToExamineRequest(in ExamineIn, repair bool) (service.ExamineRequest, error) {
	out := service.ExamineRequest{Names: value(in.Names), Repair: repair}
	if in.SettledMs != nil {
		if _, err := count(*in.SettledMs, "it"); err != nil {
			return out, &ParameterError{"settledMs", err}
		}
		out.Settled = max(toDuration(*in.SettledMs), 1) // 0 is however young
	}
	var err error
	out.Grace, err = toGrace(in.GracePeriodMs)
	return out, err
}

// FromQuery writes which containers are meant.
func FromQuery(q service.ContainerQuery) ListContainersIn {
	return ListContainersIn{Container: text(q.Container), Image: text(q.Image), Size: optional(q.Size)}
}

// ToQuery reads which containers are meant.
func ToQuery(in ListContainersIn) service.ContainerQuery {
	return service.ContainerQuery{Container: value(in.Container), Image: value(in.Image), Size: value(in.Size)}
}
