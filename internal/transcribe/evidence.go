package transcribe

import (
	"fmt"

	"github.com/unmoor/unmoor/core"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromProcess writes a process.
func FromProcess(p core.Process) removal.Process {
	return removal.Process{Pid: int64(p.PID), StartTime: optional(int64(p.StartTime)), Command: text(p.Command),
		Uid: int64(p.UID), Cgroup: text(p.Cgroup), Unit: text(p.Unit), OnHost: optional(p.OnHost)}
}

// ToProcess reads a process.
func ToProcess(p removal.Process) (core.Process, error) {
	start, err := count(value(p.StartTime), "the start time of a process")
	return core.Process{PID: int(p.Pid), StartTime: uint64(start), Command: value(p.Command), UID: int(p.Uid),
		Cgroup: value(p.Cgroup), Unit: value(p.Unit), OnHost: value(p.OnHost)}, err
}

// FromEvidence writes an observation.
func FromEvidence(e core.Evidence) removal.Evidence {
	out := removal.Evidence{Source: e.Source, Kind: string(e.Kind), Detail: e.Detail, Path: text(e.Path), Time: fromMoment(e.Time)}
	if e.Process != nil {
		p := FromProcess(*e.Process)
		out.Process = &p
	}
	return out
}

// ToEvidence reads an observation.
func ToEvidence(e removal.Evidence) (core.Evidence, error) {
	out := core.Evidence{Source: e.Source, Kind: core.EvidenceKind(e.Kind), Detail: e.Detail, Path: value(e.Path)}
	var err error
	if out.Time, err = toMoment(e.Time); err != nil {
		return out, fmt.Errorf("read an observation of %s: %w", e.Source, err)
	}
	if e.Process != nil {
		p, err := ToProcess(*e.Process)
		if err != nil {
			return out, fmt.Errorf("read an observation of %s: %w", e.Source, err)
		}
		out.Process = &p
	}
	return out, nil
}
