package daemon

import (
	"context"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// record is a line of the audit log.
type record struct {
	Time time.Time `json:"time"`
	// Event is begun, joined, left, ended or denied.
	Event string `json:"event"`
	// Method is what was called; Operation ties the records of one removal together.
	Method    string        `json:"method"`
	Operation string        `json:"operationId,omitempty"`
	Caller    *callerRecord `json:"caller,omitempty"`
	// Request is what was asked for, Targets are the full IDs that it meant then.
	Request *requestRecord `json:"request,omitempty"`
	Targets []string       `json:"targets,omitempty"`
	Outcome *outcomeRecord `json:"outcome,omitempty"`
	// Error is why nothing was done, or what broke.
	Error string `json:"error,omitempty"`
	// Milliseconds are from begun to ended.
	Milliseconds int64 `json:"milliseconds,omitempty"`
	// Unwritten is how many denials before this one were not written down.
	Unwritten int `json:"unwritten,omitempty"`
}

// callerRecord is who called. Of the process only its pid is certain: by now the pid may be another's.
type callerRecord struct {
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	PID     int    `json:"pid"`
	User    string `json:"user,omitempty"`
	Command string `json:"command,omitempty"`
	Cgroup  string `json:"cgroup,omitempty"`
	Unit    string `json:"unit,omitempty"`
}

type requestRecord struct {
	Images        []string `json:"images,omitempty"`
	Containers    []string `json:"containers,omitempty"`
	Either        []string `json:"either,omitempty"`
	AllImages     bool     `json:"allImages,omitempty"`
	AllContainers bool     `json:"allContainers,omitempty"`
	Force         string   `json:"force,omitempty"`
	GracePeriodMs *int64   `json:"gracePeriodMs,omitempty"`
	NoPrune       bool     `json:"noPrune,omitempty"`
	Revision      string   `json:"revision,omitempty"`
	// Policy is a prune's.
	Policy *removal.PrunePolicy `json:"policy,omitempty"`
	// Names and SettledMs are a repair's, Plugin is a registration's.
	Names     []string `json:"names,omitempty"`
	SettledMs int64    `json:"settledMs,omitempty"`
	Plugin    string   `json:"plugin,omitempty"`
	// Context, with Names, is a build's. Its arguments may be secrets.
	Context string `json:"context,omitempty"`
	// Archive is what a load or an import reads, Name and Changes are what is made of it.
	Archive string   `json:"archive,omitempty"`
	Name    string   `json:"name,omitempty"`
	Changes []string `json:"changes,omitempty"`
}

type outcomeRecord struct {
	// Plan is the revision of what was decided on.
	Plan      string          `json:"plan,omitempty"`
	Done      []actionRecord  `json:"done"`
	Failures  []actionRecord  `json:"failures,omitempty"`
	Blockers  []blockerRecord `json:"blockers,omitempty"`
	Refusals  []string        `json:"refusals,omitempty"`
	Completed []string        `json:"completed,omitempty"`
	Problems  []string        `json:"problems,omitempty"`
	Bytes     int64           `json:"bytes"`
	// Omitted is how many entries are not in these lists.
	Omitted int `json:"omitted,omitempty"`
}

type actionRecord struct {
	Verb      string `json:"verb"`
	Container string `json:"container,omitempty"`
	Image     string `json:"image,omitempty"`
	Name      string `json:"name,omitempty"`
	Owner     string `json:"owner,omitempty"`
	Detail    string `json:"detail,omitempty"`
	PIDs      []int  `json:"pids,omitempty"`
	Bytes     int64  `json:"bytes,omitempty"`
	Error     string `json:"error,omitempty"`
}

type blockerRecord struct {
	Reason    string `json:"reason"`
	Container string `json:"container,omitempty"`
	Image     string `json:"image,omitempty"`
	Name      string `json:"name,omitempty"`
	LiftedBy  string `json:"liftedBy"`
}

// What a record holds is bounded: a caller decides how much it asks for.
const (
	recordEntries = 2000
	recordText    = 512
)

func clip(s string) string {
	if len(s) <= recordText {
		return s
	}
	return strings.ToValidUTF8(s[:recordText], "") + "…"
}

func clips(all []string) []string {
	var out []string
	for i, s := range all {
		if i == recordEntries {
			return append(out, fmt.Sprintf("… %d more", len(all)-i))
		}
		out = append(out, clip(s))
	}
	return out
}

func recordRequest(r service.Request) *requestRecord {
	t := r.Targets
	out := &requestRecord{Images: clips(t.Images), Containers: clips(t.Containers), Either: clips(t.Either),
		AllImages: t.AllImages, AllContainers: t.AllContainers, Force: r.Force.String(), NoPrune: r.NoPrune, Revision: clip(r.Revision)}
	if r.Grace != nil {
		ms := r.Grace.Milliseconds()
		out.GracePeriodMs = &ms
	}
	return out
}

func recordPrune(r service.PruneRequest) *requestRecord {
	in := transcribe.FromPruneRequest(r)
	if in.Policy.Filters != nil {
		filters := clips(*in.Policy.Filters)
		in.Policy.Filters = &filters
	}
	return &requestRecord{Policy: &in.Policy, Revision: clip(r.Revision)}
}

func recordExamination(r service.ExamineRequest) *requestRecord {
	out := &requestRecord{Names: clips(r.Names), SettledMs: r.Settled.Milliseconds()}
	if r.Grace != nil {
		ms := r.Grace.Milliseconds()
		out.GracePeriodMs = &ms
	}
	return out
}

// recordResult is what an operation came to.
func recordResult(r result) *outcomeRecord {
	out := &outcomeRecord{Done: []actionRecord{}}
	left := recordEntries
	room := func() bool {
		if left--; left < 0 {
			out.Omitted++
		}
		return left >= 0
	}
	if o := r.outcome; o != nil {
		out.Plan = o.Plan.Revision
		for _, c := range o.Completed {
			out.Completed = append(out.Completed, string(c.Image))
		}
		for _, r := range o.Refusals {
			if room() {
				out.Refusals = append(out.Refusals, clip(r.Reference+": "+r.Err.Error()))
			}
		}
		for _, err := range o.Problems {
			out.Problems = append(out.Problems, clip(err.Error()))
		}
		for _, r := range o.Results {
			out.Bytes += r.Bytes
			for _, a := range r.Done {
				if room() {
					out.Done = append(out.Done, recordAction(a, nil))
				}
			}
			for _, f := range r.Failed {
				if room() {
					out.Failures = append(out.Failures, recordAction(f.Action, f.Err))
				}
			}
			for _, b := range r.Blockers {
				if room() {
					out.Blockers = append(out.Blockers, blockerRecord{string(b.Reason), string(b.Container), string(b.Image),
						clip(b.Name), b.LiftedBy.String()})
				}
			}
		}
	}
	if e := r.examination; e != nil {
		for _, f := range e.Findings {
			if (f.Repaired || f.Err != nil) && room() {
				a := actionRecord{Verb: "repair " + string(f.Damage), Container: string(f.Container), Image: string(f.Image),
					Name: clip(f.Name), Owner: f.Owner, Detail: clip(f.Finding.ID())}
				if f.Repaired {
					out.Done = append(out.Done, a)
				} else {
					a.Error = clip(f.Err.Error())
					out.Failures = append(out.Failures, a)
				}
			}
		}
	}
	return out
}

func recordAction(a core.Action, err error) actionRecord {
	out := actionRecord{Verb: string(a.Verb), Container: string(a.Container), Image: string(a.Image), Name: clip(a.Name),
		Owner: a.Owner, Detail: clip(a.Detail), Bytes: a.Bytes}
	for i, p := range a.Processes {
		if i == 100 {
			break
		}
		out.PIDs = append(out.PIDs, p.PID)
	}
	if err != nil {
		out.Error = clip(err.Error())
	}
	return out
}

// recordCaller says of a caller what can be told.
func (s *Setup) recordCaller(ctx context.Context, c caller) *callerRecord {
	out := &callerRecord{UID: c.UID, GID: c.GID, PID: c.PID, User: userName(ctx, c.UID)}
	if s.Process == nil {
		return out
	}
	if p, ok := s.Process(c.PID); ok && p.UID == c.UID {
		out.Command, out.Cgroup, out.Unit = clip(p.Command), clip(p.Cgroup), clip(p.Unit)
	}
	return out
}

// userName is what a uid is called, empty where that is not known soon.
func userName(ctx context.Context, uid int) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	names := make(chan string, 1)
	go func() {
		name := ""
		if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			name = u.Username
		}
		names <- name
	}()
	select {
	case name := <-names:
		return name
	case <-ctx.Done():
		return ""
	}
}

// audit writes a record where there is a log. What is about to begin is not to be done where that fails.
func (d *Daemon) audit(s *Setup, r record) error {
	if s.Audit == nil {
		return nil
	}
	r.Time = time.Now()
	if err := s.Audit.Append(r); err != nil {
		d.logger.Error("what happened is not written down", "event", r.Event, "method", r.Method, "operation", r.Operation, "error", err)
		if r.Event == "begun" {
			return fmt.Errorf("what cannot be written down is not done; nothing was changed: %w", err)
		}
		return err
	}
	return nil
}

// Those that are refused decide how often: one denial of a user and method is written in an hour, and so
// many of all. Otherwise anybody could have the log rotate until nothing else is in it.
const (
	denialWindow = time.Hour
	denialsMost  = 100
)

// denials chooses which are written down.
type denials struct {
	mu        sync.Mutex
	began     time.Time
	seen      map[denial]bool
	unwritten int
}

type denial struct {
	uid    int
	method string
}

// note is whether a denial is to be written, and how many before it were not.
func (n *denials) note(d denial, now time.Time) (unwritten int, write bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen == nil || now.Sub(n.began) >= denialWindow {
		n.began, n.seen = now, make(map[denial]bool)
	}
	if n.seen[d] || len(n.seen) >= denialsMost {
		n.unwritten++
		return 0, false
	}
	n.seen[d] = true
	unwritten, n.unwritten = n.unwritten, 0
	return unwritten, true
}
