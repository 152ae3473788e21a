package sdk

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// fake is a plugin that does as its functions say; without one it says that nothing is its own, and that
// all went well.
type fake struct {
	describe func(context.Context) (core.Description, error)
	claim    func(context.Context, []core.Container) ([]core.Claim, error)
	stop     func(context.Context, []core.Handle, time.Duration) []core.Outcome
	remove   func(context.Context, []core.Handle) []core.Outcome
}

func (f fake) Describe(ctx context.Context) (core.Description, error) {
	if f.describe != nil {
		return f.describe(ctx)
	}
	return core.Description{Name: "toy", Engine: "The Toy", EngineVersion: "1.2", Hints: []core.ClaimHint{{File: "toy.json"}}}, nil
}

func (f fake) Claim(ctx context.Context, _ core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	if f.claim != nil {
		return f.claim(ctx, containers)
	}
	claims := make([]core.Claim, len(containers))
	for i, c := range containers {
		claims[i] = core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine}
	}
	return claims, nil
}

func (f fake) Stop(ctx context.Context, _ core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome {
	if f.stop != nil {
		return f.stop(ctx, handles, grace)
	}
	return well(handles)
}

func (f fake) Remove(ctx context.Context, _ core.StoreInfo, handles []core.Handle) []core.Outcome {
	if f.remove != nil {
		return f.remove(ctx, handles)
	}
	return well(handles)
}

func well(handles []core.Handle) []core.Outcome {
	outcomes := make([]core.Outcome, len(handles))
	for i, h := range handles {
		outcomes[i].Container = h.Container.ID
	}
	return outcomes
}

// full can pin and list too.
type full struct {
	fake
	pins func([]core.Image) ([]core.Pin, error)
	list func() ([]core.Claim, error)
}

func (f full) Pins(_ context.Context, _ core.StoreInfo, images []core.Image) ([]core.Pin, error) {
	return f.pins(images)
}

func (f full) List(context.Context, core.StoreInfo) ([]core.Claim, error) { return f.list() }

// builder builds too.
type builder struct {
	fake
	build func(ctx context.Context, r core.BuildRequest, output func(string)) (core.ImageID, error)
}

func (b builder) Build(ctx context.Context, _ core.StoreInfo, r core.BuildRequest, output func(string)) (core.ImageID, error) {
	return b.build(ctx, r, output)
}

// served is a plugin on a socket of its own.
type served struct {
	t       *testing.T
	service *service
	socket  string
	// end has it end, ended says how.
	end    context.CancelFunc
	ended  chan error
	closed bool
}

// serveFake serves p until the test ends. change may set the service's times before.
func serveFake(t *testing.T, p Plugin, change func(*service)) *served {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := newService(ctx, p, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	path := filepath.Join(t.TempDir(), s.engine.name()+".sock")
	l, err := s.listen(path)
	if err != nil {
		t.Fatal(err)
	}
	v := &served{t: t, service: s, socket: path, end: cancel, ended: make(chan error, 1)}
	go func() { v.ended <- s.serve(ctx, []net.Listener{l}, nil) }()
	t.Cleanup(v.close)
	return v
}

// close ends it, if it has not ended.
func (v *served) close() {
	v.t.Helper()
	v.end()
	if v.closed {
		return
	}
	v.closed = true
	select {
	case err := <-v.ended:
		if err != nil {
			v.t.Error(err)
		}
	case <-time.After(20 * time.Second):
		v.t.Error("it does not end")
	}
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(testWriter{t}, nil)) }

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p)
	return len(p), nil
}

func (v *served) dial() *wire.Conn {
	v.t.Helper()
	c, err := wire.Dial(v.t.Context(), "unix:"+v.socket, wire.DialOptions{})
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { c.Close() })
	return c
}

// call makes one call on a connection of its own.
func call1[Out any](v *served, method string, in any) (out Out, err error) {
	v.t.Helper()
	err = v.dial().Call(v.t.Context(), method, in, &out)
	return out, err
}

// replies collects the replies of a stream.
func replies[Out any](v *served, method string, in any) (all []Out, err error) {
	v.t.Helper()
	err = v.dial().Stream(v.t.Context(), method, in, func(parameters json.RawMessage, _ bool) error {
		var out Out
		if err := wire.Decode(parameters, &out); err != nil {
			return err
		}
		all = append(all, out)
		return nil
	})
	return all, err
}

func id(n int) core.ContainerID { return core.ContainerID(fmt.Sprintf("%064x", n)) }

var store = core.StoreInfo{GraphRoot: "/var/lib/containers/storage", RunRoot: "/run/containers/storage", GraphDriver: "overlay"}

func must[M, W any](v M, from func(M) (W, error)) W {
	w, err := from(v)
	if err != nil {
		panic(err)
	}
	return w
}

func claimIn(ns ...int) protocol.ClaimIn {
	in := protocol.ClaimIn{ProtocolVersion: 1, Store: must(store, protocol.FromStore), Containers: []iounmoorplugin.Container{}}
	for _, n := range ns {
		in.Containers = append(in.Containers, must(core.Container{ID: id(n)}, protocol.FromContainer))
	}
	return in
}

func handle(n int) core.Handle {
	return core.Handle{Container: core.Container{ID: id(n)},
		Claim: core.Claim{Container: id(n), Ownership: core.OwnershipMine, State: core.StateRunning, Use: core.UseInUse, Revision: "r"}}
}

func stopIn(ns ...int) protocol.StopIn {
	in := protocol.StopIn{ProtocolVersion: 1, Store: must(store, protocol.FromStore), GracePeriodMs: 10, Handles: []iounmoorplugin.Handle{}}
	for _, n := range ns {
		in.Handles = append(in.Handles, must(handle(n), protocol.FromHandle))
	}
	return in
}
