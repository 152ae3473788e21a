package core

import "time"

// EvidenceKind says what sort of thing was observed.
type EvidenceKind string

// The kinds of evidence. A kind that a reader does not know is shown, never ignored.
const (
	// EvidenceProcess: a process has its root, working directory, executable, an open file or a
	// mapped file in the container, or runs in a mount namespace built on it.
	EvidenceProcess EvidenceKind = "process"
	// EvidenceMount: a mount of the container's layer. By itself it is no use.
	EvidenceMount EvidenceKind = "mount"
	// EvidenceForeignMount: another file system is mounted at or below the layer directory.
	EvidenceForeignMount EvidenceKind = "foreign_mount"
	// EvidenceProbe: the kernel's answer to the probe for a live overlay superblock.
	EvidenceProbe EvidenceKind = "probe"
	// EvidenceRecord: an engine's record.
	EvidenceRecord EvidenceKind = "record"
	// EvidencePod: the pod that the container belongs to.
	EvidencePod EvidenceKind = "pod"
	// EvidenceLock, EvidenceLease: as an engine reports them.
	EvidenceLock  EvidenceKind = "lock"
	EvidenceLease EvidenceKind = "lease"
)

// SourceKernel is the Evidence.Source of what was seen in the kernel; any other source is the name
// of the plugin that reported it.
const SourceKernel = "kernel"

// Evidence is one observation behind a claim or a verdict.
type Evidence struct {
	Source string       `json:"source"`
	Kind   EvidenceKind `json:"kind"`
	// Detail is one clause for people: "working directory in the container", say.
	Detail string `json:"detail"`
	// Path is the file or the mount point that was seen; empty where there is none.
	Path string `json:"path,omitempty"`
	// Process is set where a process was seen.
	Process *Process  `json:"process,omitempty"`
	Time    time.Time `json:"time"`
}

// Process names one process so that a recycled pid cannot be taken for it.
type Process struct {
	PID int `json:"pid"`
	// StartTime is in clock ticks after boot, field 22 of /proc/PID/stat; 0 where it is not known.
	StartTime uint64 `json:"startTime,omitempty"`
	// Command is the command line, arguments joined by spaces and cut at 200 bytes, or the comm in
	// brackets.
	Command string `json:"command,omitempty"`
	// UID is -1 where a plugin did not say.
	UID int `json:"uid"`
	// Cgroup is the path in the unified hierarchy (or in the systemd one of cgroup v1), Unit the
	// systemd unit or scope that it names; both empty where they cannot be told.
	Cgroup string `json:"cgroup,omitempty"`
	Unit   string `json:"unit,omitempty"`
	// OnHost is whether the process is in the mount namespace of pid 1: then it is nobody's
	// container process, and stopping the container would not end it.
	OnHost bool `json:"onHost,omitempty"`
}

// Observation is the kernel's word about the use of one container's layer. The zero value is
// unknown.
type Observation struct {
	Use Use `json:"use"`
	// Evidence says why: who uses it where Use is UseInUse, what stood in the way where it is
	// UseUnknown, the mounts that nobody uses where it is UseIdle.
	Evidence []Evidence `json:"evidence,omitempty"`
	// Advice is what an operator can do where Use is UseUnknown; empty where nothing special is
	// known.
	Advice string `json:"advice,omitempty"`
}

// Processes lists the distinct processes of the evidence in order.
func Processes(evidence []Evidence) []Process {
	var all []Process
	seen := make(map[[2]uint64]bool)
	for _, e := range evidence {
		if e.Process == nil {
			continue
		}
		key := [2]uint64{uint64(e.Process.PID), e.Process.StartTime}
		if !seen[key] {
			seen[key] = true
			all = append(all, *e.Process)
		}
	}
	return all
}
