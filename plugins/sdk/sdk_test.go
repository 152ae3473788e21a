package sdk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// richClaims are claims with everything in them.
func richClaims(containers []core.Container) []core.Claim {
	at := time.Unix(1700000000, 42).UTC()
	claims := make([]core.Claim, len(containers))
	for i, c := range containers {
		claims[i] = core.Claim{Container: c.ID, Ownership: core.Ownership(i % 3), Use: core.Use(i / 3 % 3), State: core.StatePaused,
			DisplayName: c.Names[0], Group: "pod ns/a", TakesAlong: []core.ContainerID{id(77)},
			ImageVolumes: []core.ImageID{core.ImageID(id(78))}, Labels: map[string]string{"a": c.Metadata, "": "b"},
			Revision: fmt.Sprint(c.Created.UnixNano(), c.Layer.MountCount, c.Directory),
			Evidence: []core.Evidence{
				{Kind: core.EvidenceProcess, Detail: "it runs", Path: "/p", Time: at,
					Process: &core.Process{PID: 7, StartTime: 8, Command: "sleep 1", UID: 0, Cgroup: "/g", Unit: "u.scope", OnHost: true}},
				{Kind: core.EvidencePod, Detail: "in a pod", Time: at},
			}}
	}
	return claims
}

// TestSame: a plugin on a socket is asked the same, and says the same, as one in the process.
func TestSame(t *testing.T) {
	var containers []core.Container
	for n := range 20 {
		containers = append(containers, core.Container{ID: id(n), Names: []string{"n", "m"}, ImageID: core.ImageID(id(100)),
			LayerID: core.LayerID(id(200)), Created: time.Unix(1600000000, int64(n)), Metadata: `{"x":"ö"}`,
			BigDataNames: []string{"userdata"}, Volatile: n%2 == 0, Directory: "/d", RunDirectory: "/r",
			Layer: core.Layer{ID: core.LayerID(id(200)), MountCount: n, Directory: "/l", MountPoint: "/l/merged", UpperDir: "/l/diff", Driver: "overlay"}})
	}
	seen := make(chan []core.Container, 1)
	p := full{fake: fake{claim: func(_ context.Context, asked []core.Container) ([]core.Claim, error) {
		seen <- asked
		return richClaims(asked), nil
	}}, list: func() ([]core.Claim, error) {
		claims := richClaims(containers)
		for i := range claims {
			claims[i].Ownership = core.OwnershipMine
		}
		return claims, nil
	}}
	v := serveFake(t, p, nil)
	in := claimIn()
	for _, c := range containers {
		in.Containers = append(in.Containers, must(c, protocol.FromContainer))
	}
	for _, more := range []bool{false, true} {
		var reports []iounmoorplugin.Report
		if more {
			all, err := replies[protocol.ClaimOut](v, protocol.MethodClaim, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, out := range all {
				reports = append(reports, out.Reports...)
			}
		} else {
			out, err := call1[protocol.ClaimOut](v, protocol.MethodClaim, in)
			if err != nil {
				t.Fatal(err)
			}
			reports = out.Reports
		}
		if d := cmp.Diff(containers, <-seen, cmpopts.EquateEmpty(), cmp.Comparer(time.Time.Equal)); d != "" {
			t.Errorf("the plugin is asked otherwise (-in the process +on the socket):\n%s", d)
		}
		same(t, richClaims(containers), reports)
	}
	out, err := call1[protocol.ListOut](v, protocol.MethodList, protocol.ListIn{ProtocolVersion: 1, Store: in.Store})
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.list()
	if err != nil {
		t.Fatal(err)
	}
	same(t, want, out.Reports)
}

func same(t *testing.T, want []core.Claim, reports []iounmoorplugin.Report) {
	t.Helper()
	var got []core.Claim
	for _, r := range reports {
		c, err := protocol.ToClaim(r, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, c)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(time.Time.Equal)); d != "" {
		t.Errorf("the claims differ (-in the process +on the socket):\n%s", d)
	}
}

// TestLongAnswer: more than a message holds comes in several replies.
func TestLongAnswer(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	v := serveFake(t, fake{claim: func(_ context.Context, asked []core.Container) ([]core.Claim, error) {
		claims := make([]core.Claim, len(asked))
		for i, c := range asked {
			claims[i] = core.Claim{Container: c.ID, Labels: map[string]string{"l": long}}
		}
		return claims, nil
	}}, nil)
	all, err := replies[protocol.ClaimOut](v, protocol.MethodClaim, claimIn(1, 2, 3, 4, 5, 6, 7))
	if err != nil || len(all) < 3 {
		t.Fatalf("%d replies, %v", len(all), err)
	}
	n := 0
	for _, out := range all {
		n += len(out.Reports)
	}
	if n != 7 {
		t.Errorf("%d reports", n)
	}
}

type advised struct{ error }

func (advised) Advice() string { return "turn it on" }

// TestNoAnswer: a plugin's failure is an error with its reason; its mistakes are too, and never claims.
func TestNoAnswer(t *testing.T) {
	not := func(n int) core.Claim { return core.Claim{Container: id(n), Ownership: core.OwnershipNotMine} }
	for _, test := range []struct {
		name   string
		answer func() ([]core.Claim, error)
		reason string
		advice string
		absent bool
	}{
		{"it is down", func() ([]core.Claim, error) { return nil, errors.New("connection refused") }, "connection refused", "", false},
		{"it is absent", func() ([]core.Claim, error) { return nil, fmt.Errorf("dial: %w", core.ErrEngineAbsent) }, "dial", "", true},
		{"it knows better", func() ([]core.Claim, error) { return nil, advised{errors.New("off")} }, "off", "turn it on", false},
		{"it panics", func() ([]core.Claim, error) { panic("oh") }, "panicked: oh", "fault of the plugin", false},
		{"one is left out", func() ([]core.Claim, error) { return []core.Claim{not(1)}, nil }, "no claim", "fault of the plugin", false},
		{"one twice", func() ([]core.Claim, error) { return []core.Claim{not(1), not(2), not(2)}, nil }, "twice", "fault of the plugin", false},
		{"another one", func() ([]core.Claim, error) { return []core.Claim{not(1), not(2), not(3)}, nil }, "not asked", "fault of the plugin", false},
		{"mine without a state", func() ([]core.Claim, error) {
			return []core.Claim{not(1), {Container: id(2), Ownership: core.OwnershipMine}}, nil
		}, "state is missing", "fault of the plugin", false},
		{"an ownership that does not exist", func() ([]core.Claim, error) {
			return []core.Claim{not(1), {Container: id(2), Ownership: 9}}, nil
		}, "does not exist", "fault of the plugin", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := serveFake(t, fake{claim: func(context.Context, []core.Container) ([]core.Claim, error) { return test.answer() }}, nil)
			_, err := call1[protocol.ClaimOut](v, protocol.MethodClaim, claimIn(1, 2))
			var reply *wire.Error
			if !errors.As(err, &reply) || reply.Name != protocol.ErrorEngineUnavailable {
				t.Fatalf("%v", err)
			}
			var w iounmoorplugin.EngineUnavailable
			if err := wire.Decode(reply.Parameters, &w); err != nil {
				t.Fatal(err)
			}
			advice := ""
			if w.Advice != nil {
				advice = *w.Advice
			}
			if !strings.Contains(w.Reason, test.reason) || !strings.Contains(advice, test.advice) || (advice == "") != (test.advice == "") {
				t.Errorf("%q, %q", w.Reason, advice)
			}
			if (w.Absent != nil && *w.Absent) != test.absent {
				t.Errorf("absent: %v", w.Absent)
			}
		})
	}
}

// TestCalls: what makes no sense does not reach the plugin.
func TestCalls(t *testing.T) {
	reached := func() { t.Error("the plugin was asked") }
	p := full{fake: fake{
		claim: func(context.Context, []core.Container) ([]core.Claim, error) { reached(); return nil, nil },
		stop:  func(context.Context, []core.Handle, time.Duration) []core.Outcome { reached(); return nil },
	}, pins: func([]core.Image) ([]core.Pin, error) { reached(); return nil, nil }}
	v := serveFake(t, p, nil)
	many := make([]int, protocol.MaxBatch+1)
	for i := range many {
		many[i] = i
	}
	claim := func(change func(*protocol.ClaimIn)) protocol.ClaimIn {
		in := claimIn(1, 2)
		change(&in)
		return in
	}
	stop := func(change func(*protocol.StopIn)) protocol.StopIn {
		in := stopIn(1, 2)
		change(&in)
		return in
	}
	image := iounmoorplugin.Image{Id: string(id(1)), Names: []string{}, Digests: []string{}}
	for _, test := range []struct {
		name, method string
		in           any
		// the error, and for InvalidParameter the parameter
		want, parameter string
	}{
		{"a revision to come", protocol.MethodClaim, claim(func(in *protocol.ClaimIn) { in.ProtocolVersion = 2 }), protocol.ErrorUnsupportedVersion, ""},
		{"no revision", protocol.MethodStop, stop(func(in *protocol.StopIn) { in.ProtocolVersion = 0 }), protocol.ErrorUnsupportedVersion, ""},
		{"no store", protocol.MethodClaim, claim(func(in *protocol.ClaimIn) { in.Store.GraphRoot = "" }), "org.varlink.service.InvalidParameter", "store"},
		{"no ID", protocol.MethodClaim, claim(func(in *protocol.ClaimIn) { in.Containers[1].Id = "web" }), "org.varlink.service.InvalidParameter", "containers"},
		{"one twice", protocol.MethodClaim, claimIn(1, 2, 1), "org.varlink.service.InvalidParameter", "containers"},
		{"too many", protocol.MethodClaim, claimIn(many...), "org.varlink.service.InvalidParameter", "containers"},
		{"too many handles", protocol.MethodStop, stopIn(many...), "org.varlink.service.InvalidParameter", "handles"},
		{"a handle of two", protocol.MethodStop, stop(func(in *protocol.StopIn) { in.Handles[0].Report.Id = string(id(5)) }), "org.varlink.service.InvalidParameter", "handles"},
		{"a grace period below nothing", protocol.MethodStop, stop(func(in *protocol.StopIn) { in.GracePeriodMs = -1 }), "org.varlink.service.InvalidParameter", "gracePeriodMs"},
		{"one image twice", protocol.MethodPins, protocol.PinsIn{ProtocolVersion: 1, Store: claimIn().Store, Images: []iounmoorplugin.Image{image, image}}, "org.varlink.service.InvalidParameter", "images"},
		{"no such method", protocol.Interface + ".Explode", nil, "org.varlink.service.MethodNotFound", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := v.dial().Call(t.Context(), test.method, test.in, nil)
			var reply *wire.Error
			if !errors.As(err, &reply) || reply.Name != test.want {
				t.Fatalf("%v", err)
			}
			if test.parameter != "" && !strings.Contains(string(reply.Parameters), `"`+test.parameter+`"`) {
				t.Errorf("%s", reply.Parameters)
			}
			if reply.Name == protocol.ErrorUnsupportedVersion && !strings.Contains(string(reply.Parameters), `"supported":[1]`) {
				t.Errorf("%s", reply.Parameters)
			}
		})
	}
}

// TestCapabilities: what a plugin cannot do is neither offered nor called.
func TestCapabilities(t *testing.T) {
	store := claimIn().Store
	image := iounmoorplugin.Image{Id: string(id(1)), Names: []string{}, Digests: []string{}}
	pins := protocol.PinsIn{ProtocolVersion: 1, Store: store, Images: []iounmoorplugin.Image{image}}

	plain := serveFake(t, fake{}, nil)
	d, err := call1[protocol.DescribeOut](plain, protocol.MethodDescribe, nil)
	if err != nil || fmt.Sprint(d.Capabilities) != "[stop remove]" {
		t.Errorf("%v, %v", d.Capabilities, err)
	}
	for method, in := range map[string]any{protocol.MethodPins: pins, protocol.MethodList: protocol.ListIn{ProtocolVersion: 1, Store: store}} {
		var reply *wire.Error
		if err := plain.dial().Call(t.Context(), method, in, nil); !errors.As(err, &reply) || reply.Name != "org.varlink.service.MethodNotImplemented" {
			t.Errorf("%s: %v", method, err)
		}
	}

	var mu sync.Mutex
	answer := []core.Pin{{Image: core.ImageID(id(1)), Pinned: core.PinnedYes, Reason: "kept", Advice: "let go"}}
	claims := []core.Claim{{Container: id(1), Ownership: core.OwnershipMine, State: core.StateStopped}}
	all := serveFake(t, full{pins: func([]core.Image) ([]core.Pin, error) { mu.Lock(); defer mu.Unlock(); return answer, nil },
		list: func() ([]core.Claim, error) { mu.Lock(); defer mu.Unlock(); return claims, nil }}, nil)
	if d, err = call1[protocol.DescribeOut](all, protocol.MethodDescribe, nil); err != nil || fmt.Sprint(d.Capabilities) != "[stop remove pin list]" {
		t.Errorf("%v, %v", d.Capabilities, err)
	}
	ask := func() error {
		_, err := call1[protocol.PinsOut](all, protocol.MethodPins, pins)
		return err
	}
	out, err := call1[protocol.PinsOut](all, protocol.MethodPins, pins)
	if err != nil || len(out.Pins) != 1 || out.Pins[0].Pinned != "yes" || *out.Pins[0].Reason != "kept" || *out.Pins[0].Advice != "let go" {
		t.Errorf("%+v, %v", out, err)
	}
	list := func() error {
		_, err := call1[protocol.ListOut](all, protocol.MethodList, protocol.ListIn{ProtocolVersion: 1, Store: store})
		return err
	}
	if err := list(); err != nil {
		t.Error(err)
	}
	for _, flaw := range []struct {
		says string
		make func()
		ask  func() error
	}{
		{"twice", func() { answer = append(answer, answer[0]) }, ask},
		{"no pin", func() { answer = nil }, ask},
		{"not asked", func() { answer = []core.Pin{{Image: core.ImageID(id(2))}} }, ask},
		{"does not exist", func() { answer = []core.Pin{{Image: core.ImageID(id(1)), Pinned: 9}} }, ask},
		{"twice", func() { claims = append(claims, claims[0]) }, list},
		{"not_mine", func() { claims = []core.Claim{{Container: id(1), Ownership: core.OwnershipNotMine}} }, list},
	} {
		mu.Lock()
		flaw.make()
		mu.Unlock()
		if err := flaw.ask(); err == nil || !strings.Contains(err.Error(), protocol.ErrorEngineUnavailable) || !strings.Contains(err.Error(), flaw.says) {
			t.Errorf("%v does not say %q", err, flaw.says)
		}
	}
}

// TestBigBatch: the most that one call may have.
func TestBigBatch(t *testing.T) {
	v := serveFake(t, fake{}, nil)
	most := make([]int, protocol.MaxBatch)
	for i := range most {
		most[i] = i
	}
	out, err := call1[protocol.ClaimOut](v, protocol.MethodClaim, claimIn(most...))
	if err != nil || len(out.Reports) != protocol.MaxBatch {
		t.Errorf("%d reports, %v", len(out.Reports), err)
	}
	if out, err = call1[protocol.ClaimOut](v, protocol.MethodClaim, claimIn()); err != nil || len(out.Reports) != 0 {
		t.Errorf("%d reports about nothing, %v", len(out.Reports), err)
	}
}

// TestSocketName: a socket that Unmoor would not take for the plugin's is refused.
func TestSocketName(t *testing.T) {
	for _, name := range []string{"other.sock", "toy", "toy.socket"} {
		err := Serve(t.Context(), fake{}, Options{Socket: filepath.Join(t.TempDir(), name)})
		if err == nil || !strings.Contains(err.Error(), "toy.sock") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTwice: a second instance does not take the socket of the first.
func TestTwice(t *testing.T) {
	v := serveFake(t, fake{}, nil)
	if err := Serve(t.Context(), fake{}, Options{Socket: v.socket}); !errors.Is(err, wire.ErrInUse) {
		t.Errorf("%v", err)
	}
	if _, err := call1[protocol.DescribeOut](v, protocol.MethodDescribe, nil); err != nil {
		t.Error(err)
	}
}

// TestInfo: the plugin can be told from others by the standard interface.
func TestInfo(t *testing.T) {
	v := serveFake(t, fake{}, nil)
	out, err := call1[struct {
		Vendor     string   `json:"vendor"`
		Product    string   `json:"product"`
		Interfaces []string `json:"interfaces"`
	}](v, "org.varlink.service.GetInfo", nil)
	if err != nil || out.Product != "toy" || len(out.Interfaces) != 2 {
		t.Errorf("%+v, %v", out, err)
	}
	description, err := call1[struct {
		Description string `json:"description"`
	}](v, "org.varlink.service.GetInterfaceDescription", map[string]string{"interface": protocol.Interface})
	if err != nil || !strings.Contains(description.Description, "method Claim(") {
		t.Errorf("%.80s, %v", description.Description, err)
	}
}
