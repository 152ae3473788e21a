package hooks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// fault is why a plugin's answer cannot be used. A plugin on a socket returns one as its error.
type fault struct {
	kind faultKind
	err  error
}

type faultKind int

const (
	faultError        faultKind = iota // it said that it cannot answer
	faultSilent                        // it did not answer before its deadline
	faultBroken                        // it broke
	faultGarbage                       // it answered nonsense
	faultCanceled                      // the caller gave up first
	faultUnreachable                   // it is not there
	faultIncompatible                  // it is another plugin, or speaks another protocol
	faultQuarantined                   // it was not asked, since it failed too often
)

func (f *fault) Error() string {
	if f.kind == faultError || f.kind == faultCanceled {
		return f.err.Error()
	}
	return "it " + f.clause()
}

func (f *fault) Unwrap() error { return f.err }

// clause says what the plugin did, to stand behind its name.
func (f *fault) clause() string {
	said := oneLine(f.err.Error())
	switch f.kind {
	case faultSilent, faultQuarantined:
		return strings.TrimPrefix(said, "it ")
	case faultGarbage:
		return "answered nonsense: " + said
	case faultBroken:
		return "broke: " + said
	case faultCanceled:
		return "was not waited for: " + said
	case faultUnreachable:
		return "cannot be reached: " + said
	case faultIncompatible:
		return "cannot be used: " + said
	case faultError:
	}
	return "cannot answer: " + said
}

// call runs f in a goroutine of its own, at most for timeout. Where f does not return by then it is
// abandoned: whatever it was handed must belong to it alone.
func call[T any](ctx context.Context, timeout time.Duration, f func(context.Context) (T, error)) (T, *fault) {
	type answer struct {
		value T
		fault *fault
	}
	var none T
	inner, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answers := make(chan answer, 1) // so that an abandoned goroutine ends when f does
	go func() {
		var a answer
		defer func() {
			if p := recover(); p != nil {
				a = answer{fault: &fault{faultBroken, fmt.Errorf("it panicked: %.200v", p)}}
			}
			answers <- a
		}()
		value, err := f(inner)
		if err != nil {
			if !errors.As(err, &a.fault) {
				a.fault = &fault{faultError, err}
			}
			return
		}
		a.value = value
	}()
	select {
	case a := <-answers:
		if a.fault != nil && inner.Err() != nil && errors.Is(a.fault.err, inner.Err()) {
			return none, late(ctx, timeout)
		}
		return a.value, a.fault
	case <-inner.Done():
		return none, late(ctx, timeout)
	}
}

// late tells a deadline of ours from a caller that gave up.
func late(ctx context.Context, timeout time.Duration) *fault {
	if err := ctx.Err(); err != nil {
		return &fault{faultCanceled, err}
	}
	return &fault{faultSilent, fmt.Errorf("it did not answer within %s", timeout)}
}
