package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/unmoor/unmoor/core"
)

// ErrAbsent: nobody listens at an address.
var ErrAbsent = errors.New("no daemon listens")

// SilentError is a daemon that does not accept, or does not answer.
type SilentError struct {
	Address string
	// After is how long it had.
	After time.Duration
}

func (e *SilentError) Error() string {
	return fmt.Sprintf("the daemon at %s did not answer within %s", e.Address, e.After)
}

// DeniedError is a method that the daemon does not let this user call.
type DeniedError struct{ Address, Method string }

func (e *DeniedError) Error() string {
	return fmt.Sprintf("the daemon at %s does not let this user call %s", e.Address, e.Method)
}

// LostError is a removal or a repair whose end is not known: the connection broke, or was given up. The
// daemon, where it is still there, ends it after the action that is being done.
type LostError struct {
	Address string
	// Done are the actions that succeeded, in the order in which they ended; Open are those that had begun
	// when the daemon was last heard.
	Done, Open []core.Action
	// Err is why. Where it wraps context.Canceled, the connection was given up.
	Err error
}

func (e *LostError) Error() string {
	return fmt.Sprintf("the daemon at %s was lost before it said what came of it: %v", e.Address, e.Err)
}

func (e *LostError) Unwrap() error { return e.Err }
