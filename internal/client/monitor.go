package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
)

// MonitorRequest is which events are meant.
type MonitorRequest struct {
	// After is the sequence of the event after which to begin; 0 is all that is kept, nil nothing of the
	// past.
	After *int64
	// Past is whether to end with the past.
	Past bool
}

var errPast = errors.New("the past is told")

// Monitor tells each event, until ctx ends, whose error it returns then, or that of each. Errors:
// *service.EventsLostError, those two, and a daemon that was lost.
func (c *Client) Monitor(ctx context.Context, r MonitorRequest, each func(service.Event) error) error {
	quiet := fmt.Errorf("the daemon at %s has said nothing for %s", c.address, c.quiet)
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(c.quiet, func() { cancel(quiet) })
	defer watch.Stop()
	var own error
	past := false
	err := stream(watched, c, "Monitor", transcribe.MonitorIn{AfterSequence: r.After}, func(reply transcribe.MonitorOut, _ bool) error {
		watch.Reset(c.quiet)
		if reply.Event != nil {
			e, err := transcribe.ToEvent(*reply.Event)
			if err == nil {
				own = each(e)
				err = own
			}
			return err
		}
		if reply.Ready != nil && *reply.Ready && r.Past {
			past = true
			return errPast
		}
		return nil
	})
	switch {
	case own != nil:
		return own
	case past:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case watched.Err() != nil:
		return quiet
	case err == nil:
		return fmt.Errorf("the daemon at %s has ended the events", c.address)
	}
	return c.failed("Monitor", "", err)
}
