package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unmoor/unmoor/core"
)

func TestPlanPrune(t *testing.T) {
	s := serve(t, newFakeService(2), Options{})
	out, failed := s.call("PlanPrune", object{"policy": object{"all": true}})
	p, _ := out["pruning"].(object)
	if failed != "" || len(p["kept"].([]any)) != 1 || p["bytes"] != 100.0 || len(p["outcome"].(object)["results"].([]any)) != 0 {
		t.Fatalf("%v %s", out, failed)
	}
	if removals := p["outcome"].(object)["plan"].(object)["removals"].([]any); len(removals) != 1 || removals[0].(object)["image"] != id(2) {
		t.Errorf("it would remove %v", removals)
	}
	if len(s.records()) != 0 {
		t.Errorf("what only looks is in the audit log: %s", words(s.records()))
	}
	for name, in := range map[string]object{
		"no policy":           {},
		"no filter":           {"policy": object{"filters": []string{"x"}}},
		"to keep some of all": {"policy": object{"keep": 2}},
		"high alone":          {"policy": object{"high": 80}},
	} {
		for _, method := range []string{"PlanPrune", "Prune"} {
			if out, failed := s.call(method, in); failed != "org.varlink.service.InvalidParameter" {
				t.Errorf("%s %s: %v %s", method, name, out, failed)
			}
		}
	}
}

func TestPrune(t *testing.T) {
	f := newFakeService(2)
	s := serve(t, f, Options{})
	if out, failed := s.call("Prune", object{"policy": object{"all": true}, "revision": id(98)}); failed != "PlanStale" || out["revision"] != id(99) {
		t.Errorf("another revision: %v %s", out, failed)
	}
	if out, failed := s.call("Prune", object{"policy": object{"all": true}, "revision": "x"}); failed != "org.varlink.service.InvalidParameter" {
		t.Errorf("no revision: %v %s", out, failed)
	}
	all, failed, _ := s.all("Prune", object{"policy": object{"all": true, "filters": []string{"label!=keep"}}, "revision": id(99)})
	if failed != "" || len(all) != 5 { // one name, one image: begun and done; what it came to
		t.Fatalf("%d answers: %v %s", len(all), all, failed)
	}
	p := all[4]["pruning"].(object)
	if len(p["outcome"].(object)["results"].([]any)) != 1 || p["after"].(object)["available"] != 30.0 || all[0]["progress"] == nil {
		t.Errorf("%v", all)
	}
	f.mu.Lock()
	left := len(f.images)
	f.mu.Unlock()
	if left != 1 {
		t.Errorf("there are %d images", left)
	}
	records := s.records()
	if words(records) != "begun Prune, ended Prune" {
		t.Fatalf("the audit log has %s", words(records))
	}
	begun, ended := records[0], records[1]
	if !*begun.Request.Policy.All || (*begun.Request.Policy.Filters)[0] != "label!=keep" || len(ended.Outcome.Done) != 2 {
		t.Errorf("%+v %+v, %+v", begun, begun.Request, ended.Outcome)
	}
	s = serve(t, &fakeService{err: errors.New("the store is away")}, Options{})
	if out, failed := s.call("Prune", object{"policy": object{}}); failed != "OperationFailed" {
		t.Errorf("%v %s", out, failed)
	}
}

func TestGetUsage(t *testing.T) {
	s := serve(t, newFakeService(3), Options{})
	all, failed, _ := s.all("GetUsage", nil)
	if failed != "" || len(all) != 2+3+2+1 || all[0]["image"].(object)["id"] != id(1) || all[2]["container"].(object)["bytes"] != nil ||
		all[5]["layer"].(object)["bytes"] != 100.0 || all[7]["totals"].(object)["graphRoot"] != "/graph" {
		t.Errorf("%v %s", all, failed)
	}
	if _, failed := s.call("GetUsage", nil); failed != "org.varlink.service.ExpectedMore" {
		t.Errorf("without more: %s", failed)
	}
	s = serve(t, &fakeService{err: core.ErrStoreUnavailable}, Options{})
	if _, failed, _ = s.all("GetUsage", nil); failed != "StoreUnavailable" {
		t.Errorf("a store that is away: %s", failed)
	}
}

// The daemon prunes by itself where that is said, when the disk is full, and writes down what it did.
func TestKeepClean(t *testing.T) {
	f := newFakeService(1)
	var away atomic.Bool
	f.looking = func(context.Context) error {
		if away.Load() {
			return errors.New("the store is away")
		}
		return nil
	}
	s := serve(t, f, Options{})
	synctest.Test(t, func(t *testing.T) {
		d := New(&Setup{Service: f, Access: s.setup.Access, Audit: s.setup.Audit}, Options{Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			d.KeepClean(ctx)
		}()
		prunes := func(want int, when string) {
			t.Helper()
			synctest.Wait()
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.prunes != want {
				t.Errorf("%s: %d prunes", when, f.prunes)
			}
		}
		full := func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.wanted = 50
		}
		full()
		time.Sleep(24 * time.Hour)
		prunes(0, "nobody said so")
		d.Replace(&Setup{Service: f, Access: s.setup.Access, Audit: s.setup.Audit, PruneEvery: 5 * time.Minute})
		time.Sleep(4 * time.Minute)
		prunes(0, "before its time")
		time.Sleep(61 * time.Second)
		prunes(1, "at its time")
		time.Sleep(time.Hour)
		prunes(1, "not full any more")
		full()
		time.Sleep(5 * time.Minute)
		prunes(1, "full, and nothing is left that may go")
		away.Store(true)
		time.Sleep(5 * time.Minute)
		prunes(1, "the store is away")
		cancel()
		<-done
	})
	records := s.records()
	if words(records) != "begun Prune, ended Prune" || records[0].Caller == nil || !*records[0].Request.Policy.WhenFull {
		t.Errorf("the audit log has %s", words(records))
	}
}
