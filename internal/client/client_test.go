package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/service"
)

func TestDial(t *testing.T) {
	dead := filepath.Join(t.TempDir(), "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := os.Stat(dead); err != nil {
		t.Fatal(err)
	}
	for name, address := range map[string]string{"no socket": "unix:" + filepath.Join(t.TempDir(), "none"), "nobody listens": "unix:" + dead} {
		if _, err := client.Dial(t.Context(), address, client.Options{}); !errors.Is(err, client.ErrAbsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tt := range map[string]struct{ answer, want string }{
		"another service":     {strings.ReplaceAll(info, "io.unmoor.Removal", "io.example"), "Unmoor answers there, and does not serve io.unmoor.Removal"},
		"no interfaces":       {`{"parameters":{"vendor":"v","product":"p","version":"1","url":"u"}}`, "interfaces"},
		"nonsense":            {"HTTP/1.1 400 Bad Request", "connect to the daemon at unix:"},
		"an error":            {`{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"GetInfo"}}`, "MethodNotFound"},
		"the end":             {hangUp, "connect to the daemon at unix:"},
		"more than one reply": {`{"continues":true,"parameters":{}}`, "connect to the daemon at unix:"},
	} {
		d := serve(t, answers{"GetInfo": {tt.answer}})
		_, err := client.Dial(t.Context(), d.address, client.Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, client.ErrAbsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c := serve(t, nil).dial(t)
	if c.Version() != "1.2" {
		t.Errorf("version %q", c.Version())
	}
}

// A daemon that hangs is found out: one that does not answer, and one that does not even accept.
func TestDialSilentDaemon(t *testing.T) {
	d := serve(t, answers{"GetInfo": nil})
	full := fullSocket(t)
	for name, address := range map[string]string{"no answer": d.address, "not accepted": "unix:" + full} {
		_, err := client.Dial(t.Context(), address, client.Options{Patience: 100 * time.Millisecond})
		if silent, ok := errors.AsType[*client.SilentError](err); !ok || silent.After != 100*time.Millisecond {
			t.Errorf("%s: %v", name, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := client.Dial(ctx, address, client.Options{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s, and its caller has gone: %v", name, err)
		}
		cancel()
	}
}

// fullSocket is one that has as many connections as the kernel keeps for who does not accept them.
func fullSocket(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "full")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		waiting, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(waiting) })
		if err := unix.Connect(waiting, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			return path
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the socket took ten connections")
	return ""
}

const (
	plan     = `"plan":{"revision":"r","force":"none","removals":[],"reclaimableBytes":0}`
	started  = `{"continues":true,"parameters":{"operationId":"1","progress":{"phase":"started","action":{"verb":"stop","container":"c1","name":"web"}}}}`
	finished = `{"continues":true,"parameters":{"operationId":"1","progress":{"phase":"finished","action":{"verb":"stop","container":"c1","name":"web"}}}}`
	removes  = `{"continues":true,"parameters":{"operationId":"1","progress":{"phase":"started","action":{"verb":"remove","container":"c1","name":"web"}}}}`
	outcome  = `{"parameters":{"operationId":"1","outcome":{` + plan + `,"results":[],"refusals":[],"completed":[],"problems":[]}}}`
)

var request = service.Request{Targets: service.Targets{Containers: []string{"web"}}}

func TestRemove(t *testing.T) {
	c := serve(t, answers{"Remove": {started, finished, outcome}}).dial(t)
	var phases []core.Phase
	out, err := c.Remove(t.Context(), request, func(p core.Progress) { phases = append(phases, p.Phase) })
	if err != nil || out.Plan.Revision != "r" || !slices.Equal(phases, []core.Phase{core.PhaseStarted, core.PhaseFinished}) {
		t.Errorf("%+v, %v, %v", out, phases, err)
	}
}

// What is known of a removal whose end is not told.
func TestRemoveWithoutEnd(t *testing.T) {
	for name, answer := range map[string][]string{
		"the daemon dies":     {started, finished, removes, hangUp},
		"it talks nonsense":   {started, finished, removes, `{"parameters":{"operationId":"1","outcome":{}}}`},
		"it sends no outcome": {started, finished, removes, `{"parameters":{"operationId":"1"}}`},
		"a step is nonsense":  {started, finished, removes, `{"continues":true,"parameters":{"operationId":"1","progress":{"phase":"started"}}}`},
		"it ends in a null":   {started, finished, removes, "null"},
	} {
		c := serve(t, answers{"Remove": answer}).dial(t)
		out, err := c.Remove(t.Context(), request, nil)
		lost, ok := errors.AsType[*client.LostError](err)
		if !ok || out != nil {
			t.Errorf("%s: %+v, %v", name, out, err)
			continue
		}
		if len(lost.Done) != 1 || lost.Done[0].Verb != core.VerbStop || len(lost.Open) != 1 || lost.Open[0].Verb != core.VerbRemove {
			t.Errorf("%s: done %+v, open %+v", name, lost.Done, lost.Open)
		}
		if _, err := c.Store(t.Context()); err == nil {
			t.Errorf("%s: the connection is used again", name)
		}
	}
}

// The daemon sees that its caller has gone, and the caller knows that it goes on to the end of an action.
func TestRemoveInterrupted(t *testing.T) {
	d := serve(t, answers{"Remove": {started}})
	c := d.dial(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Remove(ctx, request, func(core.Progress) { cancel() })
	lost, ok := errors.AsType[*client.LostError](err)
	if !ok || !errors.Is(err, context.Canceled) || len(lost.Open) != 1 {
		t.Errorf("%v", err)
	}
	<-d.gone
}

func TestRepairWithoutEnd(t *testing.T) {
	c := serve(t, answers{"Repair": {hangUp}, "Examine": {hangUp}}).dial(t)
	if _, err := c.Examine(t.Context(), service.ExamineRequest{Repair: true}); !isLost(err) {
		t.Errorf("%v", err)
	}
	c = serve(t, answers{"Examine": {hangUp}}).dial(t)
	if _, err := c.Examine(t.Context(), service.ExamineRequest{}); err == nil || isLost(err) {
		t.Errorf("a mere look: %v", err)
	}
}

func isLost(err error) bool { _, ok := errors.AsType[*client.LostError](err); return ok }

// An error reply is no loss: it says that nothing was changed.
func TestErrorReply(t *testing.T) {
	for _, tt := range []struct {
		reply string
		want  func(error) bool
	}{
		{`"org.varlink.service.PermissionDenied"`, func(err error) bool {
			denied, ok := errors.AsType[*client.DeniedError](err)
			return ok && denied.Method == "Remove"
		}},
		{`"org.varlink.service.InvalidParameter","parameters":{"parameter":"targets"}`, func(err error) bool {
			return strings.Contains(err.Error(), "of version 1.2") && strings.Contains(err.Error(), "InvalidParameter")
		}},
		{`"io.unmoor.Removal.NewError"`, func(err error) bool { return strings.Contains(err.Error(), "NewError") }},
		{`"io.unmoor.Removal.OperationFailed","parameters":{"reason":"no"}`, func(err error) bool { return err.Error() == "no" }},
		{`"io.unmoor.Removal.OperationFailed","parameters":{"reason":3}`, func(err error) bool { return strings.Contains(err.Error(), "read error reply") }},
		{`"io.unmoor.Removal.PlanStale","parameters":{"revision":"new"}`, func(err error) bool {
			stale, ok := errors.AsType[*core.StaleError](err)
			return ok && *stale == core.StaleError{Wanted: "old", Now: "new"}
		}},
	} {
		c := serve(t, answers{"Remove": {started, `{"error":` + tt.reply + `}`}}).dial(t)
		r := request
		r.Revision = "old"
		_, err := c.Remove(t.Context(), r, nil)
		if err == nil || isLost(err) || !tt.want(err) {
			t.Errorf("%s: %v", tt.reply, err)
		}
	}
}

func TestPlanByRevision(t *testing.T) {
	d := serve(t, answers{"Plan": {`{"parameters":{` + plan + `,"refusals":[]}}`}})
	r := request
	r.Revision = "other"
	if _, err := d.dial(t).Plan(t.Context(), r); !errors.Is(err, core.ErrPlanStale) {
		t.Errorf("%v", err)
	}
	r.Revision = "r"
	if out, err := d.dial(t).Plan(t.Context(), r); err != nil || out.Results != nil {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestList(t *testing.T) {
	image := func(id string) string {
		return `"parameters":{"image":{"id":"` + id + `","names":[],"digests":[],"created":"2026-01-02T03:04:05Z","readOnly":false,"dangling":true,"manifestList":false,"children":[],"containers":[]}}`
	}
	boom := errors.New("boom")
	for _, tt := range []struct {
		name   string
		answer []string
		each   error
		want   []string
		err    string
	}{
		{"an empty list", []string{`{"parameters":{}}`}, nil, nil, ""},
		{"an empty list without parameters", []string{`{}`}, nil, nil, ""},
		{"two", []string{`{"continues":true,` + image("a") + `}`, `{` + image("b") + `}`}, nil, []string{"a", "b"}, ""},
		{"a hole", []string{`{"continues":true,"parameters":{}}`, `{` + image("b") + `}`}, nil, nil, "in the middle of a list"},
		{"one that makes no sense", []string{`{"continues":true,` + image("a") + `}`, `{"parameters":{"image":{"id":"b"}}}`}, nil, []string{"a"}, "ask the daemon at"},
		{"no more of it", []string{`{"continues":true,` + image("a") + `}`, `{` + image("b") + `}`}, boom, []string{"a"}, "boom"},
	} {
		var got []string
		err := serve(t, answers{"ListImages": tt.answer}).dial(t).Images(t.Context(), "", func(i service.Image) error {
			got = append(got, string(i.ID))
			return tt.each
		})
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
		if tt.each != nil && !errors.Is(err, tt.each) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestMonitor(t *testing.T) {
	event := func(sequence string) string {
		return `{"continues":true,"parameters":{"event":{"sequence":` + sequence + `,"time":"2026-01-02T03:04:05Z","type":"image_removed"}}}`
	}
	const ready, heartbeat = `{"continues":true,"parameters":{"ready":true,"sequence":2}}`, `{"continues":true,"parameters":{"heartbeat":true}}`
	boom := errors.New("boom")
	zero := int64(0)
	for _, tt := range []struct {
		name   string
		answer []string
		past   bool
		each   error
		want   []int64
		err    string
	}{
		{"the past alone", []string{event("1"), event("2"), ready, event("3")}, true, nil, []int64{1, 2}, ""},
		{"no past", []string{ready, event("3")}, true, nil, nil, ""},
		{"until it is quiet", []string{event("1"), ready, heartbeat, event("2")}, false, nil, []int64{1, 2}, "has said nothing for 100ms"},
		{"until it hangs up", []string{ready, event("1"), hangUp}, false, nil, []int64{1}, "ask the daemon at"},
		{"until it ends", []string{ready, `{"parameters":{}}`}, false, nil, nil, "has ended the events"},
		{"until it is enough", []string{event("1"), event("2")}, false, boom, []int64{1}, "boom"},
		{"what is not kept", []string{`{"error":"io.unmoor.Removal.EventsLost","parameters":{"oldestSequence":7}}`}, false, nil, nil, "the oldest event is 7"},
	} {
		var got []int64
		d := serve(t, answers{"Monitor": tt.answer})
		if tt.name == "until it is quiet" {
			d.quiet = 100 * time.Millisecond
		}
		err := d.dial(t).Monitor(t.Context(), client.MonitorRequest{After: &zero, Past: tt.past}, func(e service.Event) error {
			got = append(got, e.Sequence)
			return tt.each
		})
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v", tt.name, got, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := serve(t, answers{"Monitor": {ready, event("1")}}).dial(t).Monitor(ctx, client.MonitorRequest{}, func(service.Event) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
