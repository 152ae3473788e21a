package transcribe

import (
	"encoding"
	"fmt"
	"time"
)

// optional leaves a zero value out.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// text leaves an empty text out.
func text[T ~string](v T) *string { return optional(string(v)) }

// value is the zero value where nothing is there.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// list is never nil.
func list[A, B any](all []A, each func(A) B) []B {
	out := make([]B, len(all))
	for i, v := range all {
		out[i] = each(v)
	}
	return out
}

// texts is never nil.
func texts[A, B ~string](all []A) []B { return list(all, func(v A) B { return B(v) }) }

func read[A, B any](all []A, each func(A) (B, error)) ([]B, error) {
	out := make([]B, len(all))
	for i, v := range all {
		var err error
		if out[i], err = each(v); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// word reads a word of an enumeration.
func word[T ~string](from T, into encoding.TextUnmarshaler) error {
	return into.UnmarshalText([]byte(from))
}

func count(n int64, what string) (int64, error) {
	if n < 0 {
		return 0, fmt.Errorf("%s is %d", what, n)
	}
	return n, nil
}

func fromTime(t time.Time) string { return t.Format(time.RFC3339Nano) }

func toTime(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) }

// fromMoment leaves a time that is not known out.
func fromMoment(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := fromTime(t)
	return &s
}

func toMoment(s *string) (time.Time, error) {
	if s == nil {
		return time.Time{}, nil
	}
	return toTime(*s)
}

// mostMilliseconds is 68 years: as good as for ever, and far from an overflow.
const mostMilliseconds = 1 << 31 * 1000

// fromDuration rounds up, so that what is not zero stays so.
func fromDuration(d time.Duration) int64 {
	return int64((min(d, mostMilliseconds*time.Millisecond) + time.Millisecond - 1) / time.Millisecond)
}

func toDuration(ms int64) time.Duration {
	return time.Duration(min(ms, mostMilliseconds)) * time.Millisecond
}
