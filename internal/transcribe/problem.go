package transcribe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// problem is an error that came over the wire: in its words, and with what can be branched on.
type problem struct {
	message string
	cause   error
}

func (p *problem) Error() string { return p.message }
func (p *problem) Unwrap() error { return p.cause }

// The reasons that stand for more than a sentinel.
const (
	reasonAmbiguous = "ambiguous"
	reasonBusy      = "busy"
	reasonFailed    = "failed"
)

// reasons are the words for sentinels. Of several that fit the first counts.
var reasons = []struct {
	word string
	is   error
}{
	{"image_not_found", core.ErrImageUnknown},
	{"container_not_found", core.ErrContainerUnknown},
	{"still_in_use", core.ErrStillInUse},
	{"image_in_use", core.ErrImageInUse},
	{"canceled", context.Canceled},
	{"stale", core.ErrPlanStale},
	{"read_only", core.ErrReadOnly},
	{"store_unavailable", core.ErrStoreUnavailable},
	{"permission", fs.ErrPermission},
}

// FromProblem writes an error.
func FromProblem(err error) removal.Problem {
	out := removal.Problem{Reason: reasonFailed, Message: err.Error()}
	var busy *core.BusyError
	var ambiguous *core.AmbiguousError
	switch {
	case errors.As(err, &busy):
		o := busy.Observation
		out.Reason, out.Busy = reasonBusy, &removal.Busy{Container: text(busy.Container), Image: text(busy.Image),
			Use: removal.Use(o.Use.String()), Reason: busy.Reason, Evidence: list(o.Evidence, FromEvidence), Advice: text(o.Advice)}
	case errors.As(err, &ambiguous):
		candidates := texts[string, string](ambiguous.Candidates)
		out.Reason, out.Candidates = reasonAmbiguous, &candidates
	default:
		for _, r := range reasons {
			if errors.Is(err, r.is) {
				out.Reason = r.word
				break
			}
		}
	}
	return out
}

// ToProblem reads an error. A reason that it does not know leaves nothing to branch on.
func ToProblem(p removal.Problem) (read, err error) {
	out := &problem{message: p.Message}
	switch p.Reason {
	case reasonBusy:
		busy, err := toBusy(p.Busy)
		if err != nil {
			return nil, fmt.Errorf("read what is busy: %w", err)
		}
		out.cause = busy
	case reasonAmbiguous:
		out.cause = &core.AmbiguousError{Candidates: value(p.Candidates)}
	default:
		for _, r := range reasons {
			if r.word == p.Reason {
				out.cause = r.is
			}
		}
	}
	return out, nil
}

func toBusy(b *removal.Busy) (*core.BusyError, error) {
	if b == nil {
		return nil, errors.New("it is missing")
	}
	out := &core.BusyError{Container: core.ContainerID(value(b.Container)), Image: core.ImageID(value(b.Image)), Reason: b.Reason}
	out.Observation.Advice = value(b.Advice)
	var evidence error
	out.Observation.Evidence, evidence = read(b.Evidence, ToEvidence)
	return out, errors.Join(evidence, word(b.Use, &out.Observation.Use))
}

// FromRefusal writes a refusal.
func FromRefusal(r service.Refusal) removal.Refusal {
	return removal.Refusal{Reference: r.Reference, Problem: FromProblem(r.Err)}
}

// ToRefusal reads a refusal.
func ToRefusal(r removal.Refusal) (service.Refusal, error) {
	read, err := ToProblem(r.Problem)
	if err != nil {
		return service.Refusal{}, fmt.Errorf("read why %s was refused: %w", r.Reference, err)
	}
	var ambiguous *core.AmbiguousError
	if errors.As(read, &ambiguous) {
		ambiguous.Reference = r.Reference
	}
	return service.Refusal{Reference: r.Reference, Err: read}, nil
}
