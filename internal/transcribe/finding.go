package transcribe

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromFinding writes what is wrong.
func FromFinding(f service.Finding) removal.Finding {
	out := removal.Finding{Damage: string(f.Damage), Container: text(f.Container), Image: text(f.Image), Layer: text(f.Layer),
		Path: text(f.Path), Name: text(f.Name), Owner: text(f.Owner), Group: text(f.Group), State: text(f.State),
		Use: removal.Use(f.Use.String()), Evidence: list(f.Evidence, FromEvidence), Detail: f.Detail, Dead: f.Dead,
		Advice: text(f.Advice), Repaired: f.Repaired}
	if f.Err != nil {
		problem := FromProblem(f.Err)
		out.Problem = &problem
	}
	return out
}

// ToFinding reads what is wrong. It cannot be repaired: whose it is, and where, is not in it.
func ToFinding(f removal.Finding) (service.Finding, error) {
	out := service.Finding{Repaired: f.Repaired, Finding: core.Finding{Damage: core.Damage(f.Damage),
		Container: core.ContainerID(value(f.Container)), Image: core.ImageID(value(f.Image)), Layer: core.LayerID(value(f.Layer)),
		Path: value(f.Path), Name: value(f.Name), Owner: value(f.Owner), Group: value(f.Group), State: core.State(value(f.State)),
		Detail: f.Detail, Dead: f.Dead, Advice: value(f.Advice)}}
	var evidence, problem error
	out.Evidence, evidence = read(f.Evidence, ToEvidence)
	if f.Problem != nil {
		out.Err, problem = ToProblem(*f.Problem)
	}
	if err := errors.Join(evidence, problem, word(f.Use, &out.Use)); err != nil {
		return out, fmt.Errorf("read finding %s: %w", f.Damage, err)
	}
	return out, nil
}

// FromExamination writes what was found.
func FromExamination(e *service.Examination) ExamineOut {
	return ExamineOut{Findings: list(e.Findings, FromFinding), UnknownNames: texts[string, string](e.UnknownNames),
		Silences: list(e.Silences, func(s service.Silence) removal.Silence {
			return removal.Silence{Plugin: s.Plugin, Problem: FromProblem(s.Err)}
		})}
}

// ToExamination reads what was found.
func ToExamination(e ExamineOut) (*service.Examination, error) {
	out := &service.Examination{UnknownNames: e.UnknownNames}
	var findings, silences error
	out.Findings, findings = read(e.Findings, ToFinding)
	out.Silences, silences = read(e.Silences, func(s removal.Silence) (service.Silence, error) {
		problem, err := ToProblem(s.Problem)
		return service.Silence{Plugin: s.Plugin, Err: problem}, err
	})
	if err := errors.Join(findings, silences); err != nil {
		return nil, err
	}
	return out, nil
}
