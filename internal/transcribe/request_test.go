package transcribe_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

func TestRequest(t *testing.T) {
	duration := func(d time.Duration) *time.Duration { return &d }
	for _, r := range []service.Request{
		{Targets: service.Targets{Images: []string{"a", ""}, Containers: []string{"b"}}},
		{Targets: service.Targets{Either: []string{"a"}}, Force: core.ForceKill, Grace: duration(0), NoPrune: true, Revision: "12"},
		{Targets: service.Targets{AllImages: true, AllContainers: true}, Force: core.ForceIdle, Grace: duration(90 * time.Second)},
		{Targets: service.Targets{AllImages: true}, Grace: duration(1 << 31 * time.Second)},
	} {
		back, err := transcribe.ToRequest(transcribe.FromRequest(r))
		if err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		if diff := cmp.Diff(r, back, same); diff != "" {
			t.Error(diff)
		}
	}
	for _, r := range []service.ExamineRequest{
		{}, {Settled: time.Hour, Names: []string{"x"}}, {Repair: true, Grace: duration(time.Second), Settled: time.Millisecond},
	} {
		back, err := transcribe.ToExamineRequest(transcribe.FromExamineRequest(r), r.Repair)
		if err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		if diff := cmp.Diff(r, back, same); diff != "" {
			t.Error(diff)
		}
	}
	// However young is never the default.
	if back, err := transcribe.ToExamineRequest(transcribe.FromExamineRequest(service.ExamineRequest{Settled: 1}), false); err != nil || back.Settled != time.Millisecond {
		t.Errorf("%v, %v", back.Settled, err)
	}
	for _, b := range []core.BuildRequest{
		{Context: "/"},
		{Engine: "e", Context: "/ctx", Containerfiles: []string{"/f"}, Names: []string{"n"}, Args: []string{"A=b", "C"}, Labels: []string{"l="}, Target: "t",
			Pull: "newer", NoCache: true, Layers: true, Squash: true, Format: "oci", Network: "host", Isolation: "chroot", Quiet: true},
	} {
		back, err := transcribe.ToBuild(transcribe.FromBuild(b))
		if diff := cmp.Diff(b, back, same); err != nil || diff != "" {
			t.Errorf("%v %s", err, diff)
		}
	}
	var parameter *transcribe.ParameterError
	if _, err := transcribe.ToBuild(removal.BuildRequest{Context: "here"}); !errors.As(err, &parameter) || parameter.Parameter != "build" {
		t.Error(err)
	}
	for _, q := range []service.ContainerQuery{{}, {Container: "a", Image: "b", Size: true}} {
		if back := transcribe.ToQuery(transcribe.FromQuery(q)); back != q {
			t.Errorf("%+v became %+v", q, back)
		}
	}
}

func TestSenselessRequest(t *testing.T) {
	target := removal.Targets{Images: &[]string{"a"}}
	force, negative, zero := removal.Force("hard"), int64(-1), int64(0)
	all := true
	for _, tt := range []struct {
		in   transcribe.RemoveIn
		want string
	}{
		{transcribe.RemoveIn{}, "targets"},
		{transcribe.RemoveIn{Targets: removal.Targets{Images: &[]string{"a"}, AllImages: &all}}, "targets"},
		{transcribe.RemoveIn{Targets: removal.Targets{Either: &[]string{"a"}, AllContainers: &all}}, "targets"},
		{transcribe.RemoveIn{Targets: target, Force: &force}, "force"},
		{transcribe.RemoveIn{Targets: target, GracePeriodMs: &negative}, "gracePeriodMs"},
	} {
		_, err := transcribe.ToRequest(tt.in)
		if parameter, ok := errors.AsType[*transcribe.ParameterError](err); !ok || parameter.Parameter != tt.want {
			t.Errorf("%+v: %v", tt.in, err)
		}
	}
	_, err := transcribe.ToExamineRequest(transcribe.ExamineIn{SettledMs: &negative}, false)
	if parameter, ok := errors.AsType[*transcribe.ParameterError](err); !ok || parameter.Parameter != "settledMs" {
		t.Errorf("%v", err)
	}
	if r, err := transcribe.ToExamineRequest(transcribe.ExamineIn{SettledMs: &zero}, false); err != nil || r.Settled != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// What a peer sends and makes no sense is an error, and no zero value.
func TestSenselessAnswer(t *testing.T) {
	negative, bad := int64(-1), "yesterday"
	good := func() removal.Container {
		return transcribe.FromContainer(service.Container{ID: "c1", Size: nil, Evidence: []core.Evidence{{Process: &core.Process{PID: 1}}}})
	}
	if _, err := transcribe.ToContainer(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*removal.Container){
		"a use of another kind":   func(c *removal.Container) { c.Use = "perhaps" },
		"no use":                  func(c *removal.Container) { c.Use = "" },
		"an owner of no kind":     func(c *removal.Container) { c.Ownership = "mine" },
		"no time":                 func(c *removal.Container) { c.Created = "" },
		"a negative size":         func(c *removal.Container) { c.Size = &negative },
		"a senseless moment":      func(c *removal.Container) { c.Evidence[0].Time = &bad },
		"a start before the boot": func(c *removal.Container) { c.Evidence[0].Process.StartTime = &negative },
	} {
		c := good()
		spoil(&c)
		if read, err := transcribe.ToContainer(c); err == nil {
			t.Errorf("%s: %+v", name, read)
		}
	}
	outcome := func() removal.Outcome {
		return transcribe.FromOutcome(&service.Outcome{Plan: &core.Plan{Removals: []core.Removal{{Image: "a", Blockers: []core.Blocker{{}}}}},
			References: []string{"a"}, Names: []string{""}, Results: []core.Result{{Failed: []core.Failure{{Err: &core.BusyError{}}}}}})
	}
	if _, err := transcribe.ToOutcome(outcome()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*removal.Outcome){
		"a force of no level":    func(o *removal.Outcome) { o.Plan.Force = "hard" },
		"a result too few":       func(o *removal.Outcome) { o.Results = nil },
		"busy without what":      func(o *removal.Outcome) { o.Results[0].Failures[0].Problem.Busy = nil },
		"freed less than none":   func(o *removal.Outcome) { o.Results[0].ReclaimedBytes = -1 },
		"lifted by no level":     func(o *removal.Outcome) { o.Plan.Removals[0].Blockers[0].LiftedBy = "" },
		"a plan that takes more": func(o *removal.Outcome) { o.Plan.ReclaimableBytes = -1 },
	} {
		o := outcome()
		spoil(&o)
		if read, err := transcribe.ToOutcome(o); err == nil {
			t.Errorf("%s: %+v", name, read)
		}
	}
}
