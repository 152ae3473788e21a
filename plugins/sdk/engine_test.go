package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
)

// switched is an engine that can be turned off and on.
type switched struct {
	fake
	mu      sync.Mutex
	version string
	down    error
	asked   atomic.Int32
}

func (s *switched) Describe(context.Context) (core.Description, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	d := core.Description{Name: "toy", Hints: []core.ClaimHint{{File: "toy.json"}}}
	if s.down == nil {
		d.EngineVersion = s.version
	}
	return d, s.down
}

func (s *switched) Claim(ctx context.Context, store core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down != nil {
		return nil, down
	}
	return s.fake.Claim(ctx, store, containers)
}

func (s *switched) turn(version string, down error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.down = version, down
}

// watched is an open Describe.
type watched struct {
	t    *testing.T
	seen chan protocol.DescribeOut
	over chan error
}

func watch(v *served) *watched {
	w := &watched{t: v.t, seen: make(chan protocol.DescribeOut, 16), over: make(chan error, 1)}
	c := v.dial()
	go func() {
		w.over <- c.Stream(context.Background(), protocol.MethodDescribe, nil, func(parameters json.RawMessage, continues bool) error {
			var d protocol.DescribeOut
			if err := wire.Decode(parameters, &d); err != nil {
				return err
			}
			if !continues {
				return errors.New("the last reply")
			}
			w.seen <- d
			return nil
		})
	}()
	return w
}

func (w *watched) next(ready bool, version string) {
	w.t.Helper()
	select {
	case d := <-w.seen:
		got := ""
		if d.EngineVersion != nil {
			got = *d.EngineVersion
		}
		if d.Ready != ready || got != version || d.Name != "toy" || len(d.ClaimHints) != 1 {
			w.t.Errorf("%+v (%q)", d, got)
		}
	case err := <-w.over:
		w.t.Fatalf("Describe ended: %v", err)
	case <-time.After(20 * time.Second):
		w.t.Fatal("nothing changes")
	}
}

// TestReadiness: an open Describe says at once what it knows, and then what changes, whether that shows
// in a call or not.
func TestReadiness(t *testing.T) {
	p := &switched{version: "1"}
	v := serveFake(t, p, func(s *service) { s.engine.again = 10 * time.Millisecond })
	w := watch(v)
	w.next(true, "1")
	if _, err := call1[protocol.ClaimOut](v, protocol.MethodClaim, claimIn(1)); err != nil {
		t.Fatal(err)
	}
	if n := p.asked.Load(); n != 1 {
		t.Errorf("an engine that answers was described %d times", n)
	}
	p.turn("1", errors.New("down"))
	if _, err := call1[protocol.ClaimOut](v, protocol.MethodClaim, claimIn(1)); err == nil {
		t.Fatal("an answer of an engine that is down")
	}
	w.next(false, "1") // what it was, until it says otherwise
	p.turn("2", nil)
	w.next(true, "2") // seen without any call
	p.turn("2", errors.New("down"))
	if _, err := call1[protocol.ClaimOut](v, protocol.MethodClaim, claimIn(1)); err == nil {
		t.Fatal("an answer of an engine that is down")
	}
	w.next(false, "2")
	v.end()
	select {
	case err := <-w.over:
		if err == nil || strings.Contains(err.Error(), "last reply") {
			t.Errorf("the stream ended with %v, and not by closing", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the stream does not end with the plugin")
	}
}

// TestDescribeOfWhatCameBack: without a watcher, too, the answer is up to date.
func TestDescribeOfWhatCameBack(t *testing.T) {
	p := &switched{version: "1", down: errors.New("not yet")}
	v := serveFake(t, p, nil)
	d, err := call1[protocol.DescribeOut](v, protocol.MethodDescribe, nil)
	if err != nil || d.Ready || len(d.ClaimHints) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	p.turn("1", nil)
	if d, err = call1[protocol.DescribeOut](v, protocol.MethodDescribe, nil); err != nil || !d.Ready {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestHungDescribe: the answer comes at once while the engine hangs.
func TestHungDescribe(t *testing.T) {
	var hang atomic.Bool
	release := make(chan struct{})
	p := fake{describe: func(ctx context.Context) (core.Description, error) {
		d := core.Description{Name: "toy", Hints: []core.ClaimHint{{File: "x"}}}
		if hang.Load() {
			<-release
			return d, nil
		}
		return d, errors.New("down")
	}}
	v := serveFake(t, p, nil)
	t.Cleanup(func() { close(release) })
	hang.Store(true)
	begun := time.Now()
	d, err := call1[protocol.DescribeOut](v, protocol.MethodDescribe, nil)
	if took := time.Since(begun); err != nil || d.Ready || took > 10*soon {
		t.Errorf("%+v, %v, after %s", d, err, took)
	}
}

// TestNoName: without a name there is no plugin; with one, a plugin whose engine cannot answer.
func TestNoName(t *testing.T) {
	for name, describe := range map[string]func(context.Context) (core.Description, error){
		"nothing":  func(context.Context) (core.Description, error) { return core.Description{}, nil },
		"an error": func(context.Context) (core.Description, error) { return core.Description{}, errors.New("down") },
		"a panic":  func(context.Context) (core.Description, error) { panic("oh") },
		"capitals": func(context.Context) (core.Description, error) { return core.Description{Name: "Toy"}, nil },
		"a useless hint": func(context.Context) (core.Description, error) {
			return core.Description{Name: "toy", Hints: []core.ClaimHint{{}}}, nil
		},
	} {
		if err := Serve(t.Context(), fake{describe: describe}, Options{}); err == nil || !strings.Contains(err.Error(), "who it is") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOtherName: a plugin does not become another one.
func TestOtherName(t *testing.T) {
	var n atomic.Int32
	p := fake{describe: func(context.Context) (core.Description, error) {
		if n.Add(1) == 1 {
			return core.Description{Name: "toy"}, errors.New("down")
		}
		return core.Description{Name: "crio"}, nil
	}}
	v := serveFake(t, p, nil)
	if d, err := call1[protocol.DescribeOut](v, protocol.MethodDescribe, nil); err != nil || d.Name != "toy" || d.Ready {
		t.Errorf("%+v, %v", d, err)
	}
}
