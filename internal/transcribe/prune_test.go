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

func TestPruneRequest(t *testing.T) {
	duration := func(d time.Duration) *time.Duration { return &d }
	for _, r := range []service.PruneRequest{
		{},
		{All: true, Stopped: true, BuildLeftovers: true, Keep: 3, UnusedFor: 7 * 24 * time.Hour, Filters: []string{"until=1h", "label!=keep"}, Revision: "12"},
		{WhenFull: true, Thresholds: &core.Thresholds{High: 90, Low: 0}, MinAge: duration(0), AbandonedAge: duration(time.Hour)},
	} {
		back, err := transcribe.ToPruneRequest(transcribe.FromPruneRequest(r))
		if err != nil {
			t.Errorf("%+v: %v", r, err)
		}
		if diff := cmp.Diff(r, back, same); diff != "" {
			t.Error(diff)
		}
	}
	n := func(n int64) *int64 { return &n }
	yes := true
	for name, p := range map[string]removal.PrunePolicy{
		"a filter that is none":          {Filters: &[]string{"x"}},
		"some to keep of none":           {Keep: n(1)},
		"fewer than none to keep":        {Keep: n(-1), All: &yes},
		"more than all to keep":          {Keep: n(1 << 40), All: &yes},
		"a negative time":                {UnusedForMs: n(-1)},
		"a negative age":                 {MinAgeMs: n(-1)},
		"a negative age of what is left": {AbandonedAgeMs: n(-1)},
		"high alone":                     {High: n(80)},
		"low alone":                      {Low: n(80)},
		"high below low":                 {High: n(70), Low: n(80)},
		"more than a hundred":            {High: n(1 << 40), Low: n(80)},
		"less than nothing":              {High: n(80), Low: n(-1 << 40)},
	} {
		_, err := transcribe.ToPruneRequest(transcribe.PruneIn{Policy: p})
		if parameter, ok := errors.AsType[*transcribe.ParameterError](err); !ok || parameter.Parameter != "policy" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A plan alone has no results, what was done has one of each removal, and no daemon is believed that sends
// anything else.
func TestPlannedPrune(t *testing.T) {
	p := &service.Pruned{Outcome: &service.Outcome{Plan: &core.Plan{Removals: []core.Removal{{Image: "a", Reference: "a"}}},
		References: []string{"a"}, Names: []string{"a"}}, Bytes: 5}
	w := transcribe.FromPruned(p)
	if back, err := transcribe.ToPruned(w, true); err != nil || len(back.Plan.Removals) != 1 || back.Results != nil || back.Bytes != 5 {
		t.Errorf("%v %+v", err, back)
	}
	if _, err := transcribe.ToPruned(w, false); err == nil {
		t.Error("what was done has no results")
	}
	w.Outcome.Results = make([]removal.Result, 2)
	if _, err := transcribe.ToPruned(w, true); err == nil {
		t.Error("more results than removals")
	}
	w = transcribe.FromPruned(p)
	w.Bytes = -1
	if _, err := transcribe.ToPruned(w, true); err == nil {
		t.Error("less than nothing would be given free")
	}
}

func TestSenselessUsage(t *testing.T) {
	totals := transcribe.FromUsageTotals(&service.Usage{Account: &core.Account{}, Time: time.Unix(1, 0)})
	for name, change := range map[string]func(*removal.UsageTotals){
		"a negative sum":     func(t *removal.UsageTotals) { t.Total.Never = -1 },
		"a negative number":  func(t *removal.UsageTotals) { t.OfImages.Count = -1 },
		"no time":            func(t *removal.UsageTotals) { t.Time = "soon" },
		"a negative disk":    func(t *removal.UsageTotals) { t.Disk = &removal.Disk{Capacity: -1} },
		"a negative owner":   func(t *removal.UsageTotals) { t.Owners = []removal.OwnerUsage{{Images: -1}} },
		"negative elsewhere": func(t *removal.UsageTotals) { t.ReadOnlyBytes = -1 },
	} {
		w := totals
		change(&w)
		if _, err := transcribe.ToUsageTotals(w); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	if _, err := transcribe.ToImageUsage(removal.ImageUsage{Fate: "soon"}); err == nil {
		t.Error("a fate that is none is read")
	}
	if _, err := transcribe.ToLayerUsage(removal.LayerUsage{Fate: "now", Bytes: new(int64)}); err != nil {
		t.Error(err)
	}
}
