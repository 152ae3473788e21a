package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
)

// ExamineRequest is a look for damage, or a repair.
type ExamineRequest struct {
	// Names choose among what is found: the ID of a container, a layer or an image, whole or at least 8
	// digits, the name of a container, its pod, the pid of a process in it, a path.
	Names []string
	// Settled is how old what belongs to nothing has to be to count as damage; zero is
	// core.DefaultSettled.
	Settled time.Duration
	// Repair is whether to mend what is proven dead or, where there are names, what they mean.
	Repair bool
	// Grace is between the polite signal and the forcible one; nil is as configured.
	Grace *time.Duration
}

// Examination is what was found.
type Examination struct {
	Findings []Finding
	// Silences are the engines that did not say what they have: of their records nothing is said.
	Silences []Silence
	// UnknownNames are those that mean nothing that was found.
	UnknownNames []string
}

// Finding is one thing that is wrong.
type Finding struct {
	core.Finding
	// Repaired is whether it was mended; Err says why not, or why that is not certain.
	Repaired bool
	Err      error
}

// Silence is why an engine did not say what it has.
type Silence struct {
	Plugin string
	Err    error
}

// Examine looks for damage in the store and around it, and mends it where it is asked to. An error is that
// it could not be looked for; then nothing was changed.
func (l *Local) Examine(ctx context.Context, r ExamineRequest) (*Examination, error) {
	doctor := *l.Doctor
	doctor.Settled = r.Settled
	found, inventories, err := doctor.Examine(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for damage: %w", err)
	}
	e := &Examination{Findings: []Finding{}}
	for _, i := range inventories {
		if i.Err != nil {
			e.Silences = append(e.Silences, Silence{i.Engine, i.Err})
		}
	}
	e.choose(found, r.Names)
	if r.Repair {
		e.mend(ctx, &doctor, len(r.Names) > 0, l.grace(r.Grace))
	}
	return e, nil
}

// choose takes the findings that the names mean; all, where there are none.
func (e *Examination) choose(found []core.Finding, names []string) {
	chosen := make([]bool, len(found))
	for _, name := range names {
		hit := false
		for i, f := range found {
			if means(name, f) {
				chosen[i], hit = true, true
			}
		}
		if !hit {
			e.UnknownNames = append(e.UnknownNames, name)
		}
	}
	for i, f := range found {
		if chosen[i] || len(names) == 0 {
			e.Findings = append(e.Findings, Finding{Finding: f})
		}
	}
}

// means is whether a name means a finding. An ID may be cut, but not so short that it is taken for a pid.
func means(name string, f core.Finding) bool {
	if name == "" {
		return false
	}
	for _, id := range []string{string(f.Container), string(f.Layer), string(f.Image)} {
		if len(name) >= 8 && strings.HasPrefix(id, name) {
			return true
		}
	}
	for _, p := range core.Processes(f.Evidence) {
		if f.Use == core.UseInUse && name == strconv.Itoa(p.PID) {
			return true
		}
	}
	return slices.Contains([]string{f.Name, f.Group, strings.TrimPrefix(f.Group, "pod "), f.Path}, name)
}

// mend repairs what was named, or what is dead. A repair may lay bare what was its engine's to clean
// before, so it looks again.
func (e *Examination) mend(ctx context.Context, doctor *core.Doctor, named bool, grace time.Duration) {
	const rounds = 3
	for range rounds {
		var open []int
		var todo []core.Finding
		for i, f := range e.Findings {
			if (named || f.Dead) && !f.Repaired && f.Err == nil {
				open, todo = append(open, i), append(todo, f.Finding)
			}
		}
		if len(todo) == 0 {
			return
		}
		for n, err := range doctor.Repair(ctx, todo, grace) {
			f := &e.Findings[open[n]]
			f.Repaired, f.Err = err == nil, err
		}
		found, _, err := doctor.Examine(ctx)
		if err != nil {
			for _, i := range open {
				if f := &e.Findings[i]; f.Repaired {
					f.Err = fmt.Errorf("look for damage after the repair: %w", err)
				}
			}
			return
		}
		for _, f := range found {
			known := slices.IndexFunc(e.Findings, func(k Finding) bool { return k.Damage == f.Damage && k.ID() == f.ID() })
			switch {
			case known >= 0 && e.Findings[known].Repaired:
				e.Findings[known].Repaired, e.Findings[known].Err = false, errors.New("it is there again after the repair")
			case known < 0 && f.Dead && (!named || e.mended(f.Container)):
				e.Findings = append(e.Findings, Finding{Finding: f})
			}
		}
	}
}

// mended is whether something about the container was.
func (e *Examination) mended(id core.ContainerID) bool {
	return id != "" && slices.ContainsFunc(e.Findings, func(f Finding) bool { return f.Repaired && f.Container == id })
}
