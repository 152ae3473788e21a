package transcribe_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// failing answers each call with the next error.
type failing struct {
	removal.VarlinkInterface
	errs chan error
}

func (f *failing) Explain(ctx context.Context, c removal.VarlinkCall, reference string) error {
	return transcribe.ReplyError(ctx, c, reference, <-f.errs)
}

// TestErrorReply sends errors over a socket, and reads them.
func TestErrorReply(t *testing.T) {
	handler := &failing{errs: make(chan error, 1)}
	server, err := wire.NewServer(wire.ServerOptions{}, removal.VarlinkNew(handler))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "socket")
	listener, err := wire.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	conn, err := wire.Dial(t.Context(), "unix:"+path, wire.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	wrapped := func(err error) error { return fmt.Errorf("the attempt: %w", err) }
	for _, tt := range []struct{ sent, want error }{
		{wrapped(core.ErrImageUnknown), core.ErrImageUnknown},
		{wrapped(core.ErrContainerUnknown), core.ErrContainerUnknown},
		{wrapped(core.ErrStoreUnavailable), core.ErrStoreUnavailable},
		{wrapped(&core.StaleError{Wanted: "old", Now: "new"}), &core.StaleError{Wanted: "old", Now: "new"}},
		{wrapped(&core.AmbiguousError{Reference: "web", Candidates: []string{"a", "b"}}), &core.AmbiguousError{Reference: "web", Candidates: []string{"a", "b"}}},
		{wrapped(&service.EventsLostError{Oldest: 7}), &service.EventsLostError{Oldest: 7}},
		{wrapped(core.ErrArchiveRefused), core.ErrArchiveRefused},
	} {
		handler.errs <- tt.sent
		reply, ok := errors.AsType[*wire.Error](conn.Call(t.Context(), "io.unmoor.Removal.Explain", transcribe.ExplainIn{Reference: "web"}, nil))
		if !ok {
			t.Fatalf("%v: no error reply", tt.sent)
		}
		got := transcribe.Error(reply, "old")
		if !errors.Is(got, tt.want) && !cmp.Equal(got, tt.want) {
			t.Errorf("%v became %v", tt.sent, got)
		}
	}
	for _, tt := range []struct {
		sent error
		want string
	}{
		{wrapped(errors.New("a reason")), "the attempt: a reason"},
		{wrapped(core.ErrStoreUnavailable), "the attempt: store unavailable"},
		{wrapped(fmt.Errorf("%w: why", core.ErrArchiveRefused)), "the attempt: archive refused: why"},
		{wrapped(&core.FormatError{Source: "a.tar", Trials: []core.FormatTrial{{Format: "oci", Err: core.ErrStillInUse}, {Format: "dir", Err: errors.New("no")}}}),
			"a.tar is no image archive in any of the known formats:\n * oci: still in use\n * dir: no"},
		{&transcribe.IncompleteError{Images: []core.LoadedImage{{ID: "a", Names: []string{"b"}}}, Reason: "the rest: no"}, "the rest: no"},
		{&transcribe.ParameterError{Parameter: "targets", Err: errors.New("x")}, `org.varlink.service.InvalidParameter {"parameter":"targets"}`},
	} {
		handler.errs <- tt.sent
		reply, ok := errors.AsType[*wire.Error](conn.Call(t.Context(), "io.unmoor.Removal.Explain", transcribe.ExplainIn{Reference: "web"}, nil))
		if !ok {
			t.Fatalf("%v: no error reply", tt.sent)
		}
		if got := transcribe.Error(reply, "").Error(); got != tt.want {
			t.Errorf("%v became %q", tt.sent, got)
		}
	}
}
