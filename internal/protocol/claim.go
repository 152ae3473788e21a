package protocol

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// FromClaim makes a report of a claim. A text for people that is not UTF-8 is changed on the way; the
// revision has to be.
func FromClaim(c core.Claim) (iounmoorplugin.Report, error) {
	w := iounmoorplugin.Report{
		Id: string(c.Container), Ownership: iounmoorplugin.Ownership(c.Ownership.String()),
		State:       optional(iounmoorplugin.State(c.State)),
		DisplayName: optional(c.DisplayName), Group: optional(c.Group),
		TakesAlong: optionalTexts(c.TakesAlong), ImageVolumes: optionalTexts(c.ImageVolumes),
		Revision: optional(c.Revision), Evidence: make([]iounmoorplugin.Evidence, len(c.Evidence)),
	}
	if c.Ownership == core.OwnershipMine || c.Use != core.UseUnknown {
		use := iounmoorplugin.Use(c.Use.String())
		w.Use = &use
	}
	if len(c.Labels) > 0 {
		labels := maps.Clone(c.Labels)
		w.Labels = &labels
	}
	for i, e := range c.Evidence {
		w.Evidence[i] = fromEvidence(e)
	}
	var words error
	switch {
	case c.Ownership < core.OwnershipUnknown || c.Ownership > core.OwnershipMine:
		words = errors.New("it has an ownership that does not exist")
	case c.Use < core.UseUnknown || c.Use > core.UseInUse:
		words = errors.New("it has a use that does not exist")
	}
	if err := cmp.Or(words, checkReport(w)); err != nil {
		return w, fmt.Errorf("claim about container %.12q: %w", c.Container, err)
	}
	return w, nil
}

// ToClaim reads a report. Evidence that does not say when it was seen was seen at. The state is as it
// stands there: one that is not known here counts as running (core.State.Live).
func ToClaim(w iounmoorplugin.Report, at time.Time) (core.Claim, error) {
	c := core.Claim{
		Container: core.ContainerID(w.Id), State: core.State(value(w.State)), DisplayName: value(w.DisplayName),
		Group: value(w.Group), TakesAlong: typed[core.ContainerID](value(w.TakesAlong)),
		ImageVolumes: typed[core.ImageID](value(w.ImageVolumes)), Revision: value(w.Revision),
	}
	err := cmp.Or(checkReport(w), c.Ownership.UnmarshalText([]byte(w.Ownership)))
	if w.Use != nil {
		err = cmp.Or(err, c.Use.UnmarshalText([]byte(*w.Use)))
	}
	if w.Labels != nil && len(*w.Labels) > 0 {
		c.Labels = maps.Clone(*w.Labels)
	}
	for _, e := range w.Evidence {
		seen, failed := toEvidence(e, at)
		err = cmp.Or(err, failed)
		c.Evidence = append(c.Evidence, seen)
	}
	if err != nil {
		return core.Claim{}, fmt.Errorf("report about container %.12q: %w", w.Id, err)
	}
	return c, nil
}

func checkReport(w iounmoorplugin.Report) error {
	err := cmp.Or(checkID("container", w.Id), checkIDs("container that goes along", value(w.TakesAlong)),
		checkIDs("image volume", value(w.ImageVolumes)), checkText("revision", value(w.Revision)))
	if err != nil || w.Ownership != iounmoorplugin.Ownership(core.OwnershipMine.String()) {
		return err
	}
	switch {
	case value(w.State) == "":
		return errors.New("its state is missing")
	case w.Use == nil:
		return errors.New("its use is missing")
	}
	return nil
}

func fromEvidence(e core.Evidence) iounmoorplugin.Evidence {
	w := iounmoorplugin.Evidence{Kind: string(e.Kind), Detail: e.Detail, Path: optional(e.Path)}
	if !e.Time.IsZero() {
		w.Time = optional(fromTime(e.Time))
	}
	if p := e.Process; p != nil {
		w.Process = &iounmoorplugin.Process{
			Pid: int64(p.PID), StartTime: optional(int64(p.StartTime)), Command: optional(p.Command),
			Cgroup: optional(p.Cgroup), Unit: optional(p.Unit), OnHost: optional(p.OnHost),
		}
		if p.UID >= 0 {
			uid := int64(p.UID)
			w.Process.Uid = &uid
		}
	}
	return w
}

func toEvidence(w iounmoorplugin.Evidence, at time.Time) (core.Evidence, error) {
	e := core.Evidence{Kind: core.EvidenceKind(w.Kind), Detail: w.Detail, Path: value(w.Path), Time: at}
	var err error
	if w.Time != nil {
		e.Time, err = toTime("time of evidence", *w.Time)
	}
	if p := w.Process; p != nil {
		if p.Pid <= 0 || p.Pid > 1<<22 || value(p.StartTime) < 0 {
			err = cmp.Or(err, fmt.Errorf("there is no process %d that began at %d", p.Pid, value(p.StartTime)))
		}
		e.Process = &core.Process{
			PID: int(p.Pid), StartTime: uint64(value(p.StartTime)), Command: value(p.Command), UID: -1,
			Cgroup: value(p.Cgroup), Unit: value(p.Unit), OnHost: value(p.OnHost),
		}
		if p.Uid != nil {
			if *p.Uid < 0 || *p.Uid > 1<<32-1 {
				err = cmp.Or(err, fmt.Errorf("there is no user %d", *p.Uid))
			}
			e.Process.UID = int(*p.Uid)
		}
	}
	return e, err
}

// FromHandle makes a handle for the wire.
func FromHandle(h core.Handle) (iounmoorplugin.Handle, error) {
	container, err := FromContainer(h.Container)
	report, failed := FromClaim(h.Claim)
	w := iounmoorplugin.Handle{Container: container, Report: report}
	return w, cmp.Or(err, failed, checkHandle(w))
}

// ToHandle reads a handle.
func ToHandle(w iounmoorplugin.Handle) (core.Handle, error) {
	container, err := ToContainer(w.Container)
	claim, failed := ToClaim(w.Report, time.Time{})
	if err := cmp.Or(err, failed, checkHandle(w)); err != nil {
		return core.Handle{}, err
	}
	return core.Handle{Container: container, Claim: claim}, nil
}

func checkHandle(w iounmoorplugin.Handle) error {
	if w.Container.Id != w.Report.Id {
		return fmt.Errorf("handle of container %.12q: its report is about %.12q", w.Container.Id, w.Report.Id)
	}
	return nil
}
