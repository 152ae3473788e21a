package core

// Failure is an action that did not succeed.
type Failure struct {
	Action Action
	Err    error
}

// Result is what became of one removal.
type Result struct {
	Removal Removal
	// Done are the actions that succeeded, in the order in which they ended.
	Done []Action
	// Failed are those that did not; what depended on them was not tried.
	Failed []Failure
	// Blockers stood in the way, in the plan or after it was made. Nothing was changed where Done
	// is empty.
	Blockers []Blocker
	// Bytes given free; AtLeast is whether some of it was not measured.
	Bytes   int64
	AtLeast bool
}

// OK is whether the removal happened whole.
func (r Result) OK() bool { return len(r.Failed) == 0 && len(r.Blockers) == 0 }

// Progress is told while a plan is carried out.
type Progress struct {
	// Phase is started or finished or failed.
	Phase  Phase
	Action Action
	Err    error
}

// Phase is where an action stands.
type Phase string

// The phases of an action.
const (
	PhaseStarted  Phase = "started"
	PhaseFinished Phase = "finished"
	PhaseFailed   Phase = "failed"
)

// Holder is one container with all that is known of its use.
type Holder struct {
	Container   Container   `json:"container"`
	Holding     Holding     `json:"holding"`
	Observation Observation `json:"observation"`
	// Use is the verdict of both together.
	Use Use `json:"use"`
	// Reason is one clause: why the use is what it is.
	Reason string `json:"reason"`
}
