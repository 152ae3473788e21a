package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
)

func outcomeOf(r ...core.Result) *service.Outcome {
	return &service.Outcome{Plan: &core.Plan{}, Results: r}
}

// watcher is a client of Monitor.
type watcher struct {
	*scene
	replies chan object
	err     chan error
	stop    context.CancelFunc
}

func (s *scene) watch(in object) *watcher {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	w := &watcher{s, make(chan object, 10_000), make(chan error, 1), cancel}
	c := s.dial()
	go func() {
		w.err <- c.Stream(ctx, methodPrefix+"Monitor", in, func(p json.RawMessage, _ bool) error {
			var o object
			err := json.Unmarshal(p, &o)
			w.replies <- o
			return err
		})
	}()
	return w
}

func (w *watcher) next() object {
	w.Helper()
	select {
	case o := <-w.replies:
		return o
	case err := <-w.err:
		w.Fatalf("it ended: %v", err)
	case <-time.After(10 * time.Second):
		w.Fatal("nothing came")
	}
	return nil
}

func (w *watcher) event() object {
	w.Helper()
	o := w.next()
	e, ok := o["event"].(object)
	if !ok {
		w.Fatalf("no event: %v", o)
	}
	return e
}

func TestMonitor(t *testing.T) {
	s := serve(t, newFakeService(1), Options{})
	w := s.watch(object{})
	ready := w.next()
	if ready["ready"] != true || ready["event"] != nil || ready["sequence"] == nil {
		t.Fatalf("the first answer is %v", ready)
	}
	all, failed, _ := s.all("RemoveImage", object{"image": "localhost/web:1", "force": "idle"})
	if failed != "" {
		t.Fatal(failed)
	}
	want := []string{
		"action_started delete_container", "action_finished delete_container", "container_removed delete_container",
		"action_started untag", "action_finished untag", "image_untagged untag",
		"action_started delete_image", "action_finished delete_image", "image_removed delete_image",
	}
	sequence := ready["sequence"].(float64)
	for _, want := range want {
		e := w.event()
		sequence++
		if got := fmt.Sprint(e["type"], " ", e["action"].(object)["verb"]); got != want || e["sequence"] != sequence ||
			e["operationId"] != all[0]["operationId"] || e["uid"] == nil || e["pid"] == nil || e["time"] == nil {
			t.Errorf("%v, want %s with number %.0f", e, want, sequence)
		}
	}
	s.daemon.PluginChanged(service.Plugin{Name: "docker", Status: "quarantined"})
	if e := w.event(); e["type"] != "plugin_changed" || e["plugin"].(object)["status"] != "quarantined" || e["operationId"] != nil {
		t.Errorf("%v", e)
	}

	again := s.watch(object{"afterSequence": sequence - 1})
	if e := again.event(); e["type"] != "image_removed" {
		t.Errorf("the first that is replayed is %v", e)
	}
	if e := again.event(); e["type"] != "plugin_changed" {
		t.Errorf("the second one is %v", e)
	}
	if o := again.next(); o["ready"] != true || o["sequence"] != sequence+1 {
		t.Errorf("after the past comes %v", o)
	}
	everything := s.watch(object{"afterSequence": 0})
	for range len(want) + 1 {
		everything.event()
	}
	if o := everything.next(); o["ready"] != true {
		t.Errorf("after all that is kept comes %v", o)
	}
}

// TestReplayAndPresentMeet: whatever happens while a monitor catches up, it sees each event once.
func TestReplayAndPresentMeet(t *testing.T) {
	s := serve(t, newFakeService(0), Options{})
	const events = 2000
	for range events / 2 {
		s.daemon.PluginChanged(service.Plugin{Name: "x"})
	}
	oldest, _ := s.daemon.events.span()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range events / 2 {
			s.daemon.PluginChanged(service.Plugin{Name: "x"})
		}
	})
	w := s.watch(object{"afterSequence": oldest - 1})
	ready := 0
	for next := oldest; next < oldest+events; {
		o := w.next()
		if o["ready"] == true {
			ready++
			continue
		}
		if got := o["event"].(object)["sequence"]; got != float64(next) {
			t.Fatalf("event %v came, %d was to", got, next)
		}
		next++
	}
	wg.Wait()
	if ready > 1 {
		t.Errorf("it was ready %d times", ready)
	}
}

func TestEventsLost(t *testing.T) {
	s := serve(t, newFakeService(0), Options{})
	for range ringEvents + 5 {
		s.daemon.PluginChanged(service.Plugin{Name: "x"})
	}
	oldest, next := s.daemon.events.span()
	for _, after := range []int64{oldest - 2, 1, -1, next, next + 1_000_000} {
		all, failed, p := s.all("Monitor", object{"afterSequence": after})
		if failed != "EventsLost" || len(all) != 0 || p["oldestSequence"] != float64(oldest) {
			t.Errorf("after %d: %v %s %v", after, all, failed, p)
		}
	}
	w := s.watch(object{"afterSequence": oldest - 1})
	if e := w.event(); e["sequence"] != float64(oldest) {
		t.Errorf("the oldest is %v", e)
	}
}

func TestHeartbeat(t *testing.T) {
	s := serve(t, newFakeService(0), Options{heartbeat: 5 * time.Millisecond})
	w := s.watch(object{})
	ready := w.next()
	for range 3 {
		if o := w.next(); o["heartbeat"] != true || o["ready"] != nil || o["event"] != nil || o["sequence"] != ready["sequence"] {
			t.Errorf("%v", o)
		}
	}
	s.daemon.PluginChanged(service.Plugin{Name: "x"})
	for o := w.next(); ; o = w.next() {
		if e, ok := o["event"].(object); ok {
			if e["sequence"] != ready["sequence"].(float64)+1 {
				t.Errorf("%v", e)
			}
			break
		}
	}
}

func TestMonitorWantsMore(t *testing.T) {
	s := serve(t, newFakeService(0), Options{})
	if _, failed := s.call("Monitor", nil); failed != "org.varlink.service.ExpectedMore" {
		t.Error(failed)
	}
}

// TestMonitorsAreBounded: those who only look cannot take all the handlers.
func TestMonitorsAreBounded(t *testing.T) {
	g := newGate()
	var leave []func()
	for uid := range monitorsAtOnce / monitorsOfUser {
		for range monitorsOfUser {
			l, err := g.monitor(ordinary(uid + 1))
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
		if _, err := g.monitor(ordinary(uid + 1)); err == nil {
			t.Errorf("user %d may have more than %d", uid+1, monitorsOfUser)
		}
	}
	if _, err := g.monitor(ordinary(1000)); err == nil {
		t.Errorf("there may be more than %d", monitorsAtOnce)
	}
	for range monitorsAtOnce {
		l, err := g.monitor(root)
		if err != nil {
			t.Fatalf("root: %v", err)
		}
		leave = append(leave, l)
	}
	if _, err := g.monitor(root); err == nil {
		t.Error("there is no bound for root")
	}
	for _, l := range leave {
		l()
	}
	if len(g.users) != 0 || g.monitors[true] != 0 || g.monitors[false] != 0 {
		t.Errorf("left are %v, %v", g.users, g.monitors)
	}
}

// TestAnswersAreShared: one user's calls wait for each other before they keep others waiting.
func TestAnswersAreShared(t *testing.T) {
	g := newGate()
	var leave []func()
	for range answersOfUser {
		l, err := g.answer(t.Context(), ordinary(1))
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := g.answer(ctx, ordinary(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more of the same user: %v", err)
	}
	for _, c := range []caller{ordinary(2), root} {
		l, err := g.answer(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	for _, l := range leave {
		l()
	}
	if len(g.users) != 0 {
		t.Errorf("left are %v", g.users)
	}
}

// TestMonitorThatDoesNotRead holds up neither a removal nor another monitor, and ends with its connection.
func TestMonitorThatDoesNotRead(t *testing.T) {
	f := newFakeService(1000)
	s := serve(t, f, Options{})
	var deaf []net.Conn
	for range 4 {
		c := s.rawDial()
		fmt.Fprint(c, `{"method":"io.unmoor.Removal.Monitor","parameters":{},"more":true}`+"\x00")
		deaf = append(deaf, c)
	}
	watching := func(n int) func() bool {
		return func() bool {
			s.daemon.gate.mu.Lock()
			defer s.daemon.gate.mu.Unlock()
			return s.daemon.gate.monitors[true] == n
		}
	}
	s.eventually("all watch", watching(4))
	began := time.Now()
	out, failed := s.call("RemoveImage", object{"image": "localhost/web:1", "force": "idle"})
	if failed != "" || len(out["deletedContainers"].([]any)) != 1000 {
		t.Fatalf("%s", failed)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the removal took %s", took)
	}
	w := s.watch(object{"afterSequence": 0})
	if e := w.event(); e["type"] == nil {
		t.Errorf("%v", e)
	}
	w.stop()
	for _, c := range deaf {
		c.Close()
	}
	s.eventually("nobody watches", watching(0))
}

// TestMonitorThatIsTooSlow learns that it lost events.
func TestMonitorThatIsTooSlow(t *testing.T) {
	s := serve(t, newFakeService(0), Options{})
	c := s.rawDial()
	fmt.Fprint(c, `{"method":"io.unmoor.Removal.Monitor","parameters":{},"more":true}`+"\x00")
	ready := make([]byte, 1)
	if _, err := c.Read(ready); err != nil {
		t.Fatal(err)
	}
	// More than the socket takes, and more than is kept.
	for range 4 * ringEvents {
		s.daemon.PluginChanged(service.Plugin{Name: strings.Repeat("x", 300)})
	}
	all := make([]byte, 1<<20)
	tail := ""
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(tail, "EventsLost") {
		n, err := c.Read(all)
		if err != nil {
			t.Fatalf("no word of what was lost: %v", err)
		}
		tail = tail[max(0, len(tail)-100):] + string(all[:n])
	}
}
