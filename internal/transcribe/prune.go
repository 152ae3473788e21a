package transcribe

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromPruneRequest writes what is to be pruned.
func FromPruneRequest(r service.PruneRequest) PruneIn {
	p := removal.PrunePolicy{All: optional(r.All), Stopped: optional(r.Stopped), BuildLeftovers: optional(r.BuildLeftovers),
		WhenFull: optional(r.WhenFull), Filters: names(r.Filters), Keep: optional(int64(r.Keep)),
		MinAgeMs: fromGrace(r.MinAge), AbandonedAgeMs: fromGrace(r.AbandonedAge)}
	if r.UnusedFor != 0 {
		ms := fromDuration(r.UnusedFor)
		p.UnusedForMs = &ms
	}
	if t := r.Thresholds; t != nil {
		high, low := int64(t.High), int64(t.Low)
		p.High, p.Low = &high, &low
	}
	return PruneIn{Policy: p, Revision: text(r.Revision)}
}

// ToPruneRequest reads what is to be pruned, and checks it. Errors: *ParameterError.
func ToPruneRequest(in PruneIn) (service.PruneRequest, error) {
	p := in.Policy
	out := service.PruneRequest{All: value(p.All), Stopped: value(p.Stopped), BuildLeftovers: value(p.BuildLeftovers),
		WhenFull: value(p.WhenFull), Filters: value(p.Filters), Revision: value(in.Revision)}
	wrong := func(err error) (service.PruneRequest, error) { return out, &ParameterError{"policy", err} }
	if n := value(p.Keep); n < 0 || n > math.MaxInt32 {
		return wrong(fmt.Errorf("keep is %d", n))
	}
	out.Keep = int(value(p.Keep))
	var unused, least, abandoned error
	if ms := value(p.UnusedForMs); ms != 0 {
		_, unused = count(ms, "unusedForMs")
		out.UnusedFor = toDuration(ms)
	}
	out.MinAge, least = toAge(p.MinAgeMs, "minAgeMs")
	out.AbandonedAge, abandoned = toAge(p.AbandonedAgeMs, "abandonedAgeMs")
	if err := errors.Join(unused, least, abandoned); err != nil {
		return wrong(err)
	}
	if (p.High == nil) != (p.Low == nil) {
		return wrong(errors.New("high and low belong together"))
	}
	if p.High != nil {
		if *p.High > 100 || *p.Low < 0 {
			return wrong(fmt.Errorf("high is %d, and low %d", *p.High, *p.Low))
		}
		out.Thresholds = &core.Thresholds{High: int(*p.High), Low: int(*p.Low)}
	}
	if err := out.Check(); err != nil {
		return wrong(err)
	}
	return out, nil
}

func toAge(ms *int64, what string) (*time.Duration, error) {
	if ms == nil {
		return nil, nil
	}
	n, err := count(*ms, what)
	d := toDuration(n)
	return &d, err
}

// FromPruned writes what a prune came to.
func FromPruned(p *service.Pruned) removal.Pruning {
	out := removal.Pruning{Outcome: FromOutcome(p.Outcome), Kept: list(p.Kept, FromBlocker), Bytes: p.Bytes, AtLeast: p.AtLeast,
		Disk: fromDisk(p.Disk), After: fromDisk(p.After), Wanted: optional(p.Wanted)}
	if p.Thresholds != (core.Thresholds{}) {
		high, low := int64(p.Thresholds.High), int64(p.Thresholds.Low)
		out.High, out.Low = &high, &low
	}
	return out
}

// ToPruned reads what a prune came to. planned is whether it is a plan alone.
func ToPruned(p removal.Pruning, planned bool) (*service.Pruned, error) {
	out := &service.Pruned{AtLeast: p.AtLeast, Thresholds: core.Thresholds{High: int(value(p.High)), Low: int(value(p.Low))}}
	var outcome, kept, bytes, before, after, wanted error
	if planned && len(p.Outcome.Results) == 0 {
		out.Outcome, outcome = toOutcome(p.Outcome)
	} else {
		out.Outcome, outcome = ToOutcome(p.Outcome)
	}
	out.Kept, kept = read(p.Kept, ToBlocker)
	out.Bytes, bytes = count(p.Bytes, "what it gives free")
	out.Disk, before = toDisk(p.Disk)
	out.After, after = toDisk(p.After)
	out.Wanted, wanted = count(value(p.Wanted), "what was wanted")
	if err := errors.Join(outcome, kept, bytes, before, after, wanted); err != nil {
		return nil, fmt.Errorf("read what was pruned: %w", err)
	}
	return out, nil
}

func fromDisk(d *core.Disk) *removal.Disk {
	if d == nil {
		return nil
	}
	return &removal.Disk{Capacity: d.Capacity, Available: d.Available}
}

func toDisk(d *removal.Disk) (*core.Disk, error) {
	if d == nil {
		return nil, nil
	}
	_, err := count(d.Capacity, "the file system")
	return &core.Disk{Capacity: d.Capacity, Available: d.Available}, err // less than none is there for root
}
