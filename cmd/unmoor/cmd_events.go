package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/service"
)

// eventFlags are events'.
type eventFlags struct {
	since  uint64
	stream bool
	format string
}

func (a *app) eventsCommand() *cobra.Command {
	var f eventFlags
	cmd := &cobra.Command{
		Use:   "events [flags]",
		Short: "Follow what the daemon removes, and how its plugins stand",
		Long: `Print a line for each thing that happens to the store through the daemon, or to its plugins, as it
happens, until interrupted: the time, what happened, to which container, image or plugin, and by whom.

The daemon keeps the last of them. --since goes back to an event by its sequence, which is in the JSON;
0 is all that is kept.`,
		Example: `  unmoor events
  unmoor events --stream=false
  unmoor events --format '{{.Sequence}} {{.Type}} {{.Name}}'`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.events(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.Uint64Var(&f.since, "since", 0, "begin with what came after the event of this `sequence`")
	flags.BoolVar(&f.stream, "stream", true, "go on with what happens from now on; without it, end after what is kept of the past")
	flags.StringVar(&f.format, "format", "", "print json, or each event by a Go `template`")
	return cmd
}

func (a *app) events(cmd *cobra.Command, f *eventFlags) error {
	format, err := parseFormat(f.format, eventRow{})
	if err != nil {
		return err
	}
	var request client.MonitorRequest
	if request.Past = !f.stream; request.Past || cmd.Flags().Changed("since") {
		after := int64(min(f.since, 1<<62))
		request.After = &after
	}
	return a.askDaemon(cmd, func(ctx context.Context, c *client.Client) error {
		err := c.Monitor(ctx, request, func(e service.Event) error { return a.reportEvent(eventRow{e}, format) })
		if lost, ok := errors.AsType[*service.EventsLostError](err); ok {
			return fmt.Errorf("%w: --since %d begins with it", err, lost.Oldest-1)
		}
		if ctx.Err() != nil || errors.Is(err, errUnread) {
			return nil // that is how it is ended
		}
		return err
	})
}

// errUnread is of an output that cannot be written; why, finish says.
var errUnread = errors.New("nobody reads it")

// reportEvent writes an event at once.
func (a *app) reportEvent(r eventRow, f *format) error {
	switch {
	case f == nil:
		fmt.Fprintln(a.out, r)
	case f.json:
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", b)
	default:
		if err := writeRows(a.out, f, []eventRow{r}, nil); err != nil {
			return err
		}
	}
	if a.out.Flush() != nil {
		return errUnread
	}
	return nil
}

// eventRow is what a template sees of an event.
type eventRow struct{ event service.Event }

func (r eventRow) Sequence() int64   { return r.event.Sequence }
func (r eventRow) Time() string      { return r.event.Time.Local().String() }
func (r eventRow) Type() string      { return plain(string(r.event.Type)) }
func (r eventRow) Operation() string { return plain(r.event.Operation) }
func (r eventRow) Error() string     { return oneLine(r.event.Error) }

// Object is what it happened to: a container, an image or a plugin.
func (r eventRow) Object() string {
	a := r.event.Action
	switch {
	case r.event.Plugin != nil:
		return "plugin"
	case a != nil && a.Container != "":
		return "container"
	case a != nil && a.Image != "":
		return "image"
	}
	return "-"
}

// ID is that of the container or the image, or the plugin's name.
func (r eventRow) ID() string {
	switch {
	case r.event.Plugin != nil:
		return plain(r.event.Plugin.Name)
	case r.event.Action != nil:
		return plain(target(*r.event.Action))
	}
	return "-"
}

func (r eventRow) Name() string {
	if r.event.Action == nil {
		return ""
	}
	return plain(r.event.Action.Name)
}

func (r eventRow) Verb() string {
	if r.event.Action == nil {
		return ""
	}
	return plain(string(r.event.Action.Verb))
}

// Owner is the plugin that acted.
func (r eventRow) Owner() string {
	if r.event.Action == nil {
		return ""
	}
	return plain(r.event.Action.Owner)
}

// Status is how a plugin stands.
func (r eventRow) Status() string {
	if r.event.Plugin == nil {
		return ""
	}
	return plain(r.event.Plugin.Status)
}

// UID and PID are who asked for it; empty where that is not known.
func (r eventRow) UID() string { return number(r.event.UID) }
func (r eventRow) PID() string { return number(r.event.PID) }

func number(n *int) string {
	if n == nil {
		return ""
	}
	return strconv.Itoa(*n)
}

// MarshalJSON writes the event.
func (r eventRow) MarshalJSON() ([]byte, error) { return json.Marshal(r.event) }

// String is a line as podman events has it.
func (r eventRow) String() string {
	failed := r.Error()
	if p := r.event.Plugin; p != nil && failed == "" {
		failed = oneLine(p.LastError)
	}
	var attributes []string
	for _, a := range [][2]string{
		{"verb", r.Verb()}, {"name", r.Name()}, {"owner", r.Owner()}, {"status", r.Status()}, {"error", failed},
		{"operation", r.Operation()}, {"uid", r.UID()}, {"pid", r.PID()},
	} {
		if a[1] != "" {
			attributes = append(attributes, a[0]+"="+a[1])
		}
	}
	return fmt.Sprintf("%s %s %s %s (%s)", r.Time(), r.Type(), r.Object(), r.ID(), strings.Join(attributes, ", "))
}
