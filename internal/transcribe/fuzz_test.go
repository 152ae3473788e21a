package transcribe_test

import (
	"encoding/json"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// Whatever a daemon says is an error, or an outcome that can be said again.
func FuzzOutcome(f *testing.F) {
	for _, o := range []service.Outcome{
		{Plan: &core.Plan{}},
		{Plan: &core.Plan{Removals: []core.Removal{{Image: "a", Actions: []core.Action{{Verb: core.VerbKill, Processes: []core.Process{{PID: 1}}}}}}},
			References: []string{"a"}, Names: []string{"b"}, Results: []core.Result{{Failed: []core.Failure{{Err: &core.BusyError{}}}}},
			Refusals: []service.Refusal{{Reference: "x", Err: &core.AmbiguousError{}}}, Problems: []error{core.ErrPlanStale}},
	} {
		text, err := json.Marshal(transcribe.FromOutcome(&o))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"plan":{"revision":"","force":"none","removals":[],"reclaimableBytes":0},"results":[{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var said removal.Outcome
		if wire.Decode(text, &said) != nil {
			return
		}
		outcome, err := transcribe.ToOutcome(said)
		if err != nil {
			return
		}
		if _, err := transcribe.ToOutcome(transcribe.FromOutcome(outcome)); err != nil {
			t.Errorf("said again: %v", err)
		}
	})
}
