package service

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Cleaning is what a prune goes by, as it is configured.
type Cleaning struct {
	Thresholds core.Thresholds
	// MinAge and AbandonedAge are core.Policy's.
	MinAge, AbandonedAge time.Duration
	// Builders are the plugins whose idle containers were left by builds.
	Builders []string
}

// Journal knows when images were used.
type Journal interface {
	// Past looks at the store once more. keep is whether to write down what was seen. problem is what went
	// wrong with the journal; the past is then what can be told without. err is that the store cannot be read.
	Past(ctx context.Context, snapshot func(context.Context) (*core.Snapshot, error), keep bool) (past map[core.ImageID]core.Past, problem, err error)
}

// PruneRequest says what is to be pruned. The zero value is images without a name, and idle containers that
// nobody owns.
type PruneRequest struct {
	// All takes images with names, too.
	All bool
	// Stopped takes the idle containers of engines, BuildLeftovers those that builds left.
	Stopped, BuildLeftovers bool
	// WhenFull takes images alone, and only where the file system is fuller than the threshold, in the
	// order of their last use.
	WhenFull bool
	// Filters are KEY=VALUE, or label!=VALUE: until, label, reference, owner, dangling. All must fit; of
	// several references or owners one.
	Filters []string
	// Keep is how many images of each repository stay, the newest.
	Keep int
	// UnusedFor is how long images must not have been used.
	UnusedFor time.Duration
	// Thresholds, MinAge and AbandonedAge are other ones than those configured; nil is as configured.
	Thresholds           *core.Thresholds
	MinAge, AbandonedAge *time.Duration
	// Revision, where set, is that of the plan that is meant: any other is refused with *core.StaleError.
	Revision string
}

// Check finds what makes no sense in any store.
func (r PruneRequest) Check() error {
	_, err := r.policy(Cleaning{}, time.Now())
	return err
}

// policy is what the request means at a time.
func (r PruneRequest) policy(c Cleaning, now time.Time) (core.Policy, error) {
	p := core.Policy{Images: core.ScopeDangling, Unowned: true, Stopped: r.Stopped, Leftovers: r.BuildLeftovers, Builders: c.Builders,
		MinAge: c.MinAge, AbandonedAge: c.AbandonedAge, Keep: r.Keep, UnusedFor: r.UnusedFor}
	if r.All || r.WhenFull {
		p.Images = core.ScopeAll
	}
	if r.MinAge != nil {
		p.MinAge = *r.MinAge
	}
	if r.AbandonedAge != nil {
		p.AbandonedAge = *r.AbandonedAge
	}
	if r.WhenFull {
		p.Unowned = false
	}
	switch {
	case r.WhenFull && (r.Stopped || r.BuildLeftovers):
		return p, errors.New("a prune of what is full takes images alone, no containers")
	case r.Keep < 0 || p.MinAge < 0 || p.AbandonedAge < 0 || r.UnusedFor < 0:
		return p, errors.New("a number or a length of time is negative")
	case r.Keep > 0 && !r.All && !r.WhenFull:
		return p, errors.New("images of a repository have names: to keep some of them makes sense where all images are meant")
	case r.Thresholds != nil && (r.Thresholds.Low < 0 || r.Thresholds.High > 100 || r.Thresholds.Low >= r.Thresholds.High):
		return p, errors.New("a prune begins above high and ends at low: 100 >= high > low >= 0")
	}
	given := make(map[string]bool)
	for _, filter := range r.Filters {
		if err := r.filter(&p, filter, given, now); err != nil {
			return p, fmt.Errorf("filter %s: %w", filter, err)
		}
	}
	return p, nil
}

// filter adds a filter to a policy.
func (r PruneRequest) filter(p *core.Policy, filter string, given map[string]bool, now time.Time) error {
	key, value, ok := strings.Cut(filter, "=")
	if !ok || value == "" && key != "label" {
		return errors.New("wants KEY=VALUE with one of the keys until, label, label!, reference, owner, dangling")
	}
	if (key == "until" || key == "dangling") && given[key] {
		return errors.New("there can be one only")
	}
	given[key] = true
	containers := r.Stopped || r.BuildLeftovers
	switch key {
	case "until":
		until, err := parseMoment(value, now)
		p.Until = until
		return err
	case "label", "label!":
		if label, _, _ := strings.Cut(value, "="); label == "" {
			return errors.New("wants KEY or KEY=VALUE")
		}
		if key == "label" {
			p.Labels = append(p.Labels, value)
		} else {
			p.NotLabels = append(p.NotLabels, value)
		}
	case "reference":
		if _, err := path.Match(value, ""); err != nil {
			return errors.New("is a pattern with *, ? and [a-z]")
		}
		if containers {
			return errors.New("it chooses images, and containers were asked for")
		}
		p.References = append(p.References, value)
		p.Unowned = false
	case "dangling":
		dangling, err := strconv.ParseBool(value)
		switch {
		case err != nil:
			return errors.New("is true or false")
		case containers:
			return errors.New("it chooses images, and containers were asked for")
		case dangling:
			p.Images = core.ScopeDangling
		case p.Images != core.ScopeAll:
			return errors.New("images with names are taken where all images are meant")
		default:
			p.Images = core.ScopeNamed
		}
		p.Unowned = false
	case "owner":
		if r.All || r.WhenFull {
			return errors.New("it chooses containers, and all images were asked for")
		}
		p.Owners = append(p.Owners, value)
		p.Images = core.ScopeNone
	default:
		return errors.New("wants one of the keys until, label, label!, reference, owner, dangling")
	}
	if len(p.Owners) > 0 && !p.Unowned {
		return errors.New("of the filters one chooses images, another one containers")
	}
	return nil
}

// layouts are the times that Podman reads (containers/common, pkg/timetype/timestamp.go); one without a zone
// is local.
var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
	"2006-01-02Z07:00", "2006-01-02"}

// parseMoment reads a time: so long ago, a date with or without a time, or seconds since 1970.
func parseMoment(s string, now time.Time) (time.Time, error) {
	if d, err := ParseAge(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if seconds, fraction, _ := strings.Cut(s, "."); len(fraction) <= 9 {
		n, err := strconv.ParseInt(seconds, 10, 40)
		nanoseconds, err2 := strconv.ParseUint("0"+fraction+strings.Repeat("0", 9-len(fraction)), 10, 64)
		if err == nil && err2 == nil && n >= 0 {
			return time.Unix(n, int64(nanoseconds)), nil
		}
	}
	return time.Time{}, errors.New(`wants so long ago ("36h", "7d"), a date ("2026-05-04", "2026-05-04T12:00:00Z") or seconds since 1970`)
}

// ParseAge reads a length of time: as Go's, with d for days and w for weeks besides.
func ParseAge(s string) (time.Duration, error) {
	var sum time.Duration
	rest := s
	for _, unit := range []struct {
		letter string
		is     time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, after, ok := strings.Cut(rest, unit.letter)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n > uint64(100*365*24*time.Hour/unit.is) {
			return 0, fmt.Errorf(`wants a length of time such as "36h", "7d" or "1w2d", not %q`, s)
		}
		sum += time.Duration(n) * unit.is
		rest = after
	}
	if rest == "" && sum > 0 || rest == "" && s != "" {
		return sum, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`wants a length of time such as "36h", "7d" or "1w2d", not %q`, s)
	}
	return sum + d, nil
}

// asksForLabels is whether the policy needs to know labels of images.
func asksForLabels(p core.Policy) bool {
	return p.Images != core.ScopeNone && len(p.Labels)+len(p.NotLabels) > 0
}

// labelsKnown is whether the store reads labels of images at all.
func labelsKnown(s *core.Snapshot) bool {
	return len(s.Images) == 0 || slices.ContainsFunc(s.Images, func(i core.Image) bool { return i.LabelsKnown })
}
