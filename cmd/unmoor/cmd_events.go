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
		err := c.Monitor(ctx, request, func(e service.Event) error { return a.reportEvent(newEventRow(e), format) })
		if lost, ok := errors.AsType[*service.EventsLostError](err); ok {
			return fmt.Errorf("%w: --since %d begins with it", err, lost.Oldest-1)
		}
		if ctx.Err() != nil || errors.Is(err, errUnread) {
			return nil //nolint:nilerr // That is how it is ended.
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
type eventRow struct {
	Sequence int64
	Time     string
	Type     string
	// Object is what it happened to: a container, an image or a plugin. ID is theirs, or the plugin's name.
	Object string
	ID     string
	// Verb is the action's, Name what is acted on is called, Owner the plugin that acts.
	Verb, Name, Owner string
	// Status is how a plugin stands.
	Status string
	Error  string
	// Operation is the removal, UID and PID are who asked for it; empty where that is not known.
	Operation, UID, PID string

	event service.Event
}

func newEventRow(e service.Event) eventRow {
	r := eventRow{Sequence: e.Sequence, Time: e.Time.Local().String(), Type: plain(string(e.Type)), Object: "-", ID: "-",
		Error: oneLine(e.Error), Operation: plain(e.Operation), UID: number(e.UID), PID: number(e.PID), event: e}
	if a := e.Action; a != nil {
		r.Object, r.ID = "image", plain(target(*a))
		if a.Container != "" {
			r.Object = "container"
		}
		r.Verb, r.Name, r.Owner = plain(string(a.Verb)), plain(a.Name), plain(a.Owner)
	}
	if e.Image != "" {
		r.Object, r.ID, r.Name = "image", plain(string(e.Image)), plain(strings.Join(e.Names, " "))
	}
	if p := e.Plugin; p != nil {
		r.Object, r.ID, r.Status = "plugin", plain(p.Name), plain(p.Status)
		if r.Error == "" {
			r.Error = oneLine(p.LastError)
		}
	}
	return r
}

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
	var attributes []string
	for _, a := range [][2]string{
		{"verb", r.Verb}, {"name", r.Name}, {"owner", r.Owner}, {"status", r.Status}, {"error", r.Error},
		{"operation", r.Operation}, {"uid", r.UID}, {"pid", r.PID},
	} {
		if a[1] != "" {
			attributes = append(attributes, a[0]+"="+a[1])
		}
	}
	return fmt.Sprintf("%s %s %s %s (%s)", r.Time, r.Type, r.Object, r.ID, strings.Join(attributes, ", "))
}
