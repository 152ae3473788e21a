package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
)

func TestReading(t *testing.T) {
	s := serve(t, newFakeService(2), Options{})
	if out, failed := s.call("GetStore", nil); failed != "" || out["graphRoot"] != "/graph" || out["graphDriver"] != "overlay" {
		t.Errorf("GetStore: %v %s", out, failed)
	}
	out, failed := s.call("Plan", object{"targets": object{"images": []string{"localhost/web:1", "none"}}, "force": "idle"})
	if failed != "" || out["plan"].(object)["revision"] != id(99) || len(out["refusals"].([]any)) != 1 {
		t.Errorf("Plan: %v %s", out, failed)
	}
	if out, failed = s.call("Explain", object{"reference": "localhost/web:1"}); failed != "" || len(out["holders"].([]any)) != 2 || out["leastForce"] != "idle" {
		t.Errorf("Explain: %v %s", out, failed)
	}
	if out, failed = s.call("Examine", object{"names": []string{"x"}}); failed != "" || out["findings"].([]any)[0].(object)["repaired"] != false ||
		out["unknownNames"].([]any)[0] != "x" {
		t.Errorf("Examine: %v %s", out, failed)
	}
	if len(s.records()) != 0 {
		t.Errorf("what only looks is in the audit log: %s", words(s.records()))
	}
}

func TestLists(t *testing.T) {
	s := serve(t, newFakeService(3), Options{})
	all, failed, _ := s.all("ListContainers", nil)
	if failed != "" || len(all) != 3 || all[2]["container"].(object)["id"] != id(12) {
		t.Errorf("ListContainers: %v %s", all, failed)
	}
	if all, failed, _ = s.all("ListImages", nil); failed != "" || len(all) != 2 || all[0]["image"].(object)["id"] != id(1) {
		t.Errorf("ListImages: %v %s", all, failed)
	}
	if all, failed, _ = s.all("ListContainers", object{"container": "c11"}); failed != "" || len(all) != 1 {
		t.Errorf("one with more: %v %s", all, failed)
	}
	c := s.dial()
	var out struct {
		Container struct {
			ID string `json:"id"`
		} `json:"container"`
	}
	if err := c.Call(t.Context(), methodPrefix+"ListContainers", object{"container": "c11"}, &out); err != nil || out.Container.ID != id(11) {
		t.Errorf("one without more: %v %v", out, err)
	}
	for _, method := range []string{"ListContainers", "ListImages"} {
		if _, failed := s.answer(c.Call(t.Context(), methodPrefix+method, object{}, nil)); failed != "org.varlink.service.ExpectedMore" {
			t.Errorf("%s of all without more: %s", method, failed)
		}
	}
	if _, failed, p := s.all("ListContainers", object{"container": "none"}); failed != "ContainerNotFound" || p["container"] != "none" {
		t.Errorf("an unknown container: %s %v", failed, p)
	}
	if _, failed, p := s.all("ListContainers", object{"image": "none"}); failed != "ImageNotFound" || p["image"] != "none" {
		t.Errorf("an unknown image: %s %v", failed, p)
	}
	if _, failed, p := s.all("ListImages", object{"image": "ambiguous"}); failed != "AmbiguousReference" || len(p["candidates"].([]any)) != 2 {
		t.Errorf("an ambiguous image: %s %v", failed, p)
	}
	empty := serve(t, &fakeService{}, Options{})
	if all, failed, _ := empty.all("ListContainers", nil); failed != "" || len(all) != 1 || all[0]["container"] != nil {
		t.Errorf("an empty list: %v %s", all, failed)
	}
	if all, failed, _ := empty.all("ListImages", nil); failed != "" || len(all) != 1 || all[0]["image"] != nil {
		t.Errorf("an empty list: %v %s", all, failed)
	}
}

func TestRemove(t *testing.T) {
	s := serve(t, newFakeService(2), Options{})
	in := object{"targets": object{"images": []string{"localhost/web:1", "none"}}, "force": "idle", "gracePeriodMs": 5}
	all, failed, _ := s.all("Remove", in)
	if failed != "" || len(all) != 9 { // two containers, one name, one image: begun and done; the outcome
		t.Fatalf("%d answers: %v %s", len(all), all, failed)
	}
	operation := all[0]["operationId"]
	for i, a := range all {
		if a["operationId"] != operation || (a["progress"] != nil) != (i < 8) || (a["outcome"] != nil) != (i == 8) {
			t.Errorf("answer %d: %v", i, a)
		}
	}
	outcome := all[8]["outcome"].(object)
	result := outcome["results"].([]any)[0].(object)
	if len(result["done"].([]any)) != 4 || result["reclaimedBytes"] != 100.0 || len(outcome["refusals"].([]any)) != 1 {
		t.Errorf("the outcome is %v", outcome)
	}

	out, failed := s.call("Remove", object{"targets": object{"images": []string{"localhost/db:1"}}})
	if failed != "" || out["progress"] != nil || len(out["outcome"].(object)["results"].([]any)) != 1 {
		t.Errorf("without more: %v %s", out, failed)
	}

	records := s.records()
	if words(records[:2]) != "begun Remove, ended Remove" {
		t.Fatalf("the audit log has %s", words(records))
	}
	begun, ended := records[0], records[1]
	if begun.Operation != operation || begun.Request.Images[1] != "none" || begun.Request.Force != "idle" || *begun.Request.GracePeriodMs != 5 ||
		begun.Targets[0] != id(1) || begun.Caller == nil || begun.Time.IsZero() {
		t.Errorf("the beginning: %+v %+v %+v", begun, begun.Request, begun.Caller)
	}
	if ended.Operation != operation || ended.Outcome.Plan != id(99) || len(ended.Outcome.Done) != 4 || ended.Outcome.Bytes != 100 ||
		len(ended.Outcome.Refusals) != 1 || ended.Milliseconds < 1 {
		t.Errorf("the end: %+v %+v", ended, ended.Outcome)
	}
}

func TestRemoveImage(t *testing.T) {
	s := serve(t, newFakeService(2), Options{})
	for name, tt := range map[string]struct {
		in     object
		failed string
	}{
		"unknown":          {object{"image": "none"}, "ImageNotFound"},
		"ambiguous":        {object{"image": "ambiguous"}, "AmbiguousReference"},
		"has containers":   {object{"image": "localhost/web:1"}, "Blocked"},
		"another revision": {object{"image": "localhost/web:1", "revision": id(98)}, "PlanStale"},
		"no revision":      {object{"image": "localhost/web:1", "revision": ""}, "org.varlink.service.InvalidParameter"},
		"no image":         {object{"image": ""}, "org.varlink.service.InvalidParameter"},
		"no grace":         {object{"image": "localhost/web:1", "gracePeriodMs": -1}, "org.varlink.service.InvalidParameter"},
		"no such force":    {object{"image": "localhost/web:1", "force": "brutal"}, "org.varlink.service.InvalidParameter"},
	} {
		if out, failed := s.call("RemoveImage", tt.in); failed != tt.failed {
			t.Errorf("%s: %v %s, want %s", name, out, failed, tt.failed)
		}
	}
	out, _ := s.call("RemoveImage", object{"image": "localhost/web:1"})
	if b := out["blockers"].([]any); len(b) != 2 || b[0].(object)["container"] != id(10) || b[0].(object)["liftedBy"] != "idle" {
		t.Errorf("the blockers are %v", out)
	}
	all, failed, _ := s.all("RemoveImage", object{"image": "localhost/web:1", "force": "idle", "revision": id(99)})
	if failed != "" || len(all) != 5 {
		t.Fatalf("%d answers: %v %s", len(all), all, failed)
	}
	for i, a := range all[:4] {
		if a["action"] == nil || a["untagged"] != nil || a["reclaimedBytes"] != nil {
			t.Errorf("answer %d: %v", i, a)
		}
	}
	last := all[4]
	if last["action"] != nil || last["untagged"].([]any)[0] != "localhost/web:1" || last["deletedImages"].([]any)[0] != id(1) ||
		len(last["deletedContainers"].([]any)) != 2 || last["reclaimedBytes"] != 100.0 {
		t.Errorf("the end: %v", last)
	}
	gone := newFakeService(0)
	gone.err = fmt.Errorf("%w: the disk is gone", core.ErrStoreUnavailable)
	if out, failed := serve(t, gone, Options{}).call("RemoveImage", object{"image": "localhost/db:1"}); failed != "StoreUnavailable" || !strings.Contains(fmt.Sprint(out["reason"]), "the disk is gone") {
		t.Errorf("%v %s", out, failed)
	}
}

func TestRemoveContainer(t *testing.T) {
	s := serve(t, newFakeService(2), Options{})
	if out, failed := s.call("RemoveContainer", object{"container": "none"}); failed != "ContainerNotFound" || out["container"] != "none" {
		t.Errorf("%v %s", out, failed)
	}
	all, failed, _ := s.all("RemoveContainer", object{"container": "c10", "force": "stop"})
	if failed != "" || len(all) != 3 || all[2]["deletedContainers"].([]any)[0] != id(10) || all[2]["reclaimedBytes"] != 7.0 {
		t.Errorf("%v %s", all, failed)
	}
}

// TestIncomplete: what fails on the way is an error that says what was done.
func TestIncomplete(t *testing.T) {
	f := newFakeService(1)
	f.remove = func(_ context.Context, r service.Request, _ func(core.Progress)) (*service.Outcome, error) {
		out := f.decide(r)
		actions := out.Plan.Removals[0].Actions
		out.Results = []core.Result{{Removal: out.Plan.Removals[0], Done: actions[:1], Failed: []core.Failure{{Action: actions[1],
			Err: &core.BusyError{Container: core.ContainerID(id(10)), Reason: "a process uses it", Observation: core.Observation{Use: core.UseInUse}}}}}}
		return out, nil
	}
	s := serve(t, f, Options{})
	out, failed := s.call("RemoveContainer", object{"container": "c10", "force": "stop"})
	if failed != "Incomplete" || len(out["done"].([]any)) != 1 || out["operationId"] == "" ||
		out["failures"].([]any)[0].(object)["problem"].(object)["reason"] != "busy" {
		t.Errorf("%v %s", out, failed)
	}
	if r := s.records()[1].Outcome; len(r.Failures) != 1 || !strings.Contains(r.Failures[0].Error, "a process uses it") {
		t.Errorf("the audit log has %+v", r)
	}
}

// TestWhatAnEarlierRemovalLeft: an image that an earlier process had begun to delete is deleted, and what
// else was left by that one is no error of this removal.
func TestWhatAnEarlierRemovalLeft(t *testing.T) {
	f := newFakeService(0)
	f.remove = func(context.Context, service.Request, func(core.Progress)) (*service.Outcome, error) {
		rest := core.Removal{Image: core.ImageID(id(7)), Blockers: []core.Blocker{{Reason: core.ReasonChildImage, Image: core.ImageID(id(7))}}}
		return &service.Outcome{Plan: &core.Plan{Removals: []core.Removal{rest}}, References: []string{id(7)[:12]}, Names: []string{""},
			Results:   []core.Result{{Removal: rest, Blockers: rest.Blockers}},
			Completed: []service.Completion{{Image: core.ImageID(id(1)), Names: []string{"localhost/web:1"}}}}, nil
	}
	s := serve(t, f, Options{})
	out, failed := s.call("RemoveImage", object{"image": "localhost/web:1"})
	if failed != "" || out["deletedImages"].([]any)[0] != id(1) || out["untagged"].([]any)[0] != "localhost/web:1" {
		t.Errorf("%v %s", out, failed)
	}
	f = newFakeService(0)
	f.remove = func(context.Context, service.Request, func(core.Progress)) (*service.Outcome, error) {
		return &service.Outcome{Plan: &core.Plan{}, Problems: []error{errors.New("it got stuck"), &core.StaleError{Wanted: id(1), Now: id(2)}}}, nil
	}
	if out, failed := serve(t, f, Options{}).call("RemoveImage", object{"image": "localhost/web:1"}); failed != "PlanStale" || out["revision"] != id(2) {
		t.Errorf("%v %s", out, failed)
	}
}

func TestRepair(t *testing.T) {
	f := newFakeService(0)
	s := serve(t, f, Options{})
	out, failed := s.call("Repair", object{"names": []string{"/x"}, "settledMs": 0})
	if failed != "" || out["findings"].([]any)[0].(object)["repaired"] != true {
		t.Errorf("%v %s", out, failed)
	}
	r := s.records()
	if words(r) != "begun Repair, ended Repair" || r[0].Request.Names[0] != "/x" || len(r[1].Outcome.Done) != 1 {
		t.Errorf("the audit log has %s", words(r))
	}
}

func TestPlugins(t *testing.T) {
	s := serve(t, newFakeService(0), Options{})
	if out, failed := s.call("RegisterPlugin", object{"address": "tcp:1.2.3.4"}); failed != "PluginRefused" || out["address"] != "tcp:1.2.3.4" {
		t.Errorf("%v %s", out, failed)
	}
	if out, failed := s.call("RegisterPlugin", object{"address": "unix:/run/docker"}); failed != "" || out["plugin"].(object)["name"] != "docker" {
		t.Errorf("%v %s", out, failed)
	}
	if out, failed := s.call("ListPlugins", nil); failed != "" || len(out["plugins"].([]any)) != 1 {
		t.Errorf("%v %s", out, failed)
	}
	if out, failed := s.call("UnregisterPlugin", object{"name": "none"}); failed != "PluginNotFound" || out["name"] != "none" {
		t.Errorf("%v %s", out, failed)
	}
	if out, failed := s.call("UnregisterPlugin", object{"name": "docker"}); failed != "" {
		t.Errorf("%v %s", out, failed)
	}
	if r := s.records(); len(r) != 8 || r[0].Request.Plugin != "tcp:1.2.3.4" || r[1].Error == "" || r[3].Error != "" {
		t.Errorf("the audit log has %s", words(r))
	}
}

// TestTwoCallersOneOperation: both get all of it, and the store is asked once.
func TestTwoCallersOneOperation(t *testing.T) {
	f := newFakeService(1)
	var removals atomic.Int32
	begun, proceed := make(chan struct{}), make(chan struct{})
	f.remove = func(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error) {
		removals.Add(1)
		return f.carryOut(ctx, r, progress, func(a core.Action) {
			if a.Verb == core.VerbUntag {
				close(begun)
				<-proceed
			}
		})
	}
	s := serve(t, f, Options{})
	in := object{"image": "localhost/web:1", "force": "idle"}
	var answers [2][]object
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			if i == 1 {
				<-begun
			}
			answers[i], _, _ = s.all("RemoveImage", in)
		})
	}
	s.eventually("the second caller has joined", func() bool { return strings.Contains(words(s.records()), "joined RemoveImage") })
	close(proceed)
	wg.Wait()
	// (By then a container is gone: the second caller's request means less, and is the same.)
	if removals.Load() != 1 || len(answers[0]) != 4 || len(answers[1]) != 4 ||
		answers[0][0]["operationId"] != answers[1][0]["operationId"] || answers[1][3]["deletedImages"].([]any)[0] != id(1) {
		t.Errorf("%d removals, %v", removals.Load(), answers)
	}
	if w := words(s.records()); w != "begun RemoveImage, joined RemoveImage, ended RemoveImage" {
		t.Errorf("the audit log has %s", w)
	}
}

// TestCallerGoesAway: the action that is being done is completed, nothing more is begun, and the audit log
// tells it.
func TestCallerGoesAway(t *testing.T) {
	f := newFakeService(2)
	begun, proceed := make(chan struct{}, 1), make(chan struct{})
	f.remove = func(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error) {
		return f.carryOut(ctx, r, progress, func(a core.Action) {
			if a.Container == core.ContainerID(id(11)) {
				begun <- struct{}{}
				<-ctx.Done()
				<-proceed
			}
		})
	}
	s := serve(t, f, Options{})
	c := s.rawDial()
	fmt.Fprintf(c, `{"method":"io.unmoor.Removal.RemoveImage","parameters":{"image":"localhost/web:1","force":"idle"},"more":true}`+"\x00")
	<-begun
	c.Close()
	s.eventually("the caller has left", func() bool { return strings.Contains(words(s.records()), "left RemoveImage") })
	close(proceed)
	s.eventually("the removal has ended", func() bool { return strings.Contains(words(s.records()), "ended RemoveImage") })
	end := s.records()[2]
	if len(end.Outcome.Done) != 1 || end.Outcome.Done[0].Container != id(10) || len(end.Outcome.Failures) != 1 || !strings.Contains(end.Error, "nobody waited") {
		t.Errorf("the audit log has %+v %+v", end, end.Outcome)
	}
	if len(f.images) != 2 || len(f.containers) != 1 {
		t.Errorf("%d images and %d containers are left", len(f.images), len(f.containers))
	}
}

// TestOneway: who wants no answer may go, and the removal goes on.
func TestOneway(t *testing.T) {
	f := newFakeService(0)
	proceed := make(chan struct{})
	f.remove = func(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error) {
		<-proceed
		return f.carryOut(ctx, r, progress, nil)
	}
	s := serve(t, f, Options{})
	c := s.rawDial()
	fmt.Fprintf(c, `{"method":"io.unmoor.Removal.RemoveImage","parameters":{"image":"localhost/web:1"},"oneway":true}`+"\x00")
	s.eventually("it has begun", func() bool { return words(s.records()) == "begun RemoveImage" })
	c.Close()
	s.eventually("the handler is done", func() bool {
		s.daemon.mu.Lock()
		defer s.daemon.mu.Unlock()
		return s.daemon.calls == 0
	})
	close(proceed)
	s.eventually("it has ended", func() bool { return words(s.records()) == "begun RemoveImage, ended RemoveImage" })
	if r := s.records()[1]; r.Error != "" || len(r.Outcome.Done) != 2 {
		t.Errorf("%+v %+v", r, r.Outcome)
	}
}

// TestStopGivesAnswers: what runs ends between two actions, and its caller learns what was done.
func TestStopGivesAnswers(t *testing.T) {
	f := newFakeService(2)
	begun := make(chan struct{})
	f.remove = func(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error) {
		return f.carryOut(ctx, r, progress, func(a core.Action) {
			if a.Container == core.ContainerID(id(11)) {
				close(begun)
				<-ctx.Done()
			}
		})
	}
	looking := make(chan struct{})
	f.looking = func(ctx context.Context) error {
		close(looking)
		<-ctx.Done()
		return ctx.Err()
	}
	s := serve(t, f, Options{})
	idle := s.dial()
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, failed, p := s.all("RemoveImage", object{"image": "localhost/web:1", "force": "idle"}); failed != "Incomplete" || len(p["done"].([]any)) != 1 ||
			p["failures"].([]any)[0].(object)["problem"].(object)["reason"] != "canceled" {
			t.Errorf("the removal: %s %v", failed, p)
		}
	})
	wg.Go(func() {
		if p, failed := s.call("Explain", object{"reference": "localhost/web:1"}); failed != "OperationFailed" || !strings.Contains(fmt.Sprint(p["reason"]), "stopping") {
			t.Errorf("what looks: %s %v", failed, p)
		}
	})
	<-begun
	<-looking
	if err := s.daemon.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if p, failed := callOn(s, idle, "RemoveImage", object{"image": "localhost/db:1"}); failed != "OperationFailed" || !strings.Contains(fmt.Sprint(p["reason"]), "stopping") {
		t.Errorf("what comes after: %s %v", failed, p)
	}
	if w := words(s.records()); w != "begun RemoveImage, ended RemoveImage" {
		t.Errorf("the audit log has %s", w)
	}
}

// TestReplace: what runs ends with the setup that it began with, which is closed after that.
func TestReplace(t *testing.T) {
	f := newFakeService(1)
	begun, proceed := make(chan struct{}), make(chan struct{})
	f.remove = func(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error) {
		close(begun)
		<-proceed
		return f.carryOut(ctx, r, progress, nil)
	}
	s := serve(t, f, Options{})
	var closed atomic.Bool
	s.daemon.mu.Lock()
	s.setup.Close = func() { closed.Store(true) }
	s.daemon.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		if out, failed, _ := s.all("RemoveImage", object{"image": "localhost/web:1", "force": "idle"}); failed != "" {
			t.Errorf("%v %s", out, failed)
		}
	})
	<-begun
	other := newFakeService(0)
	next := &Setup{Service: other, Plugins: &fakePlugins{}, Access: s.setup.Access}
	s.daemon.Replace(next)
	if all, _, _ := s.all("ListContainers", nil); all[0]["container"] != nil {
		t.Errorf("the old setup still answers: %v", all)
	}
	if closed.Load() {
		t.Error("the old setup is closed while a removal uses it")
	}
	close(proceed)
	wg.Wait()
	s.eventually("the old setup is closed", closed.Load)
	if len(f.images) != 1 || len(other.images) != 2 {
		t.Errorf("%d images are left of the old store, %d of the new one", len(f.images), len(other.images))
	}
}

// TestReplaceOfIdle: a setup that nobody uses is closed at once.
func TestReplaceOfIdle(t *testing.T) {
	closed := 0
	d := New(&Setup{Close: func() { closed++ }}, Options{})
	d.Replace(&Setup{Close: func() { closed++ }})
	d.Replace(&Setup{})
	if closed != 2 {
		t.Errorf("%d of 2 were closed", closed)
	}
}

// TestAuditThatCannotBeWritten: a removal that cannot be written down is not begun.
func TestAuditThatCannotBeWritten(t *testing.T) {
	f := newFakeService(0)
	s := serve(t, f, Options{})
	if err := s.setup.Audit.Close(); err != nil {
		t.Fatal(err)
	}
	for method, in := range map[string]object{"RemoveImage": {"image": "localhost/web:1"}, "Repair": {}, "UnregisterPlugin": {"name": "x"}} {
		p, failed := s.call(method, in)
		if failed != "OperationFailed" || !strings.Contains(fmt.Sprint(p["reason"]), s.audit) || !strings.Contains(fmt.Sprint(p["reason"]), "nothing was changed") {
			t.Errorf("%s: %s %v", method, failed, p)
		}
	}
	if p, failed := s.call("RegisterPlugin", object{"address": "unix:/run/x"}); failed != "PluginRefused" {
		t.Errorf("%s %v", failed, p)
	}
	if len(f.images) != 2 {
		t.Errorf("%d images are left of 2", len(f.images))
	}
	if _, failed := s.call("Explain", object{"reference": "localhost/web:1"}); failed != "" {
		t.Errorf("what looks fails too: %s", failed)
	}
}

// TestAuditThatBreaksOnTheWay: the removal is not lost, and its caller is told.
func TestAuditThatBreaksOnTheWay(t *testing.T) {
	f := newFakeService(0)
	begun, broken := make(chan struct{}), make(chan struct{})
	f.remove = func(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error) {
		close(begun)
		<-broken
		return f.carryOut(ctx, r, progress, nil)
	}
	s := serve(t, f, Options{})
	var wg sync.WaitGroup
	wg.Go(func() {
		<-begun
		if err := s.setup.Audit.Close(); err != nil {
			t.Error(err)
		}
		close(broken)
	})
	all, failed, _ := s.all("Remove", object{"targets": object{"images": []string{"localhost/web:1"}}})
	wg.Wait()
	if failed != "" {
		t.Fatal(failed)
	}
	outcome := all[len(all)-1]["outcome"].(object)
	if len(outcome["results"].([]any)[0].(object)["done"].([]any)) != 2 || !strings.Contains(fmt.Sprint(outcome["problems"]), "not in the audit log") {
		t.Errorf("%v", outcome)
	}
}

// TestLooksDoNotStarveRemovals: no more look at once than may, and a removal does not wait for them.
func TestLooksDoNotStarveRemovals(t *testing.T) {
	f := newFakeService(0)
	var now, most atomic.Int32
	release := make(chan struct{})
	f.looking = func(ctx context.Context) error {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		now.Add(-1)
		return nil
	}
	s := serve(t, f, Options{})
	var wg sync.WaitGroup
	const lookers = 40
	for range lookers {
		wg.Go(func() {
			if all, failed, _ := s.all("ListImages", nil); failed != "" || len(all) == 0 {
				t.Errorf("%v %s", all, failed)
			}
		})
	}
	s.eventually("all who may look do", func() bool { return now.Load() == looksAtOnce })
	if _, failed, _ := s.all("RemoveImage", object{"image": "localhost/web:1"}); failed != "" {
		t.Errorf("the removal: %s", failed)
	}
	close(release)
	wg.Wait()
	if most.Load() != looksAtOnce {
		t.Errorf("%d looked at once", most.Load())
	}
}

func TestSpeedOfAThousandContainers(t *testing.T) {
	s := serve(t, newFakeService(1000), Options{})
	best := time.Hour
	for range 3 {
		began := time.Now()
		all, failed, _ := s.all("ListContainers", nil)
		best = min(best, time.Since(began))
		if failed != "" || len(all) != 1000 {
			t.Fatalf("%d answers %s", len(all), failed)
		}
	}
	t.Logf("1,000 containers in %s", best)
	if best > 2*time.Second { // many times what it takes on an idle machine
		t.Errorf("1,000 containers took %s", best)
	}
}
