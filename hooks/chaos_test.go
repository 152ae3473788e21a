package hooks_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// chaos is a way to misbehave in one method of the protocol.
type chaos struct {
	name   string
	answer answerer
	// garbage is whether it is nonsense and no silence; said are words of the reason.
	garbage bool
	said    string
}

// timeout is what the plugin has; where it is silent that is how long the test takes.
func (c chaos) timeout() time.Duration {
	if c.said == "did not answer within" {
		return 200 * time.Millisecond
	}
	return 30 * time.Second
}

// parallel runs the case beside others. What reads floods takes long under the race detector.
func (c chaos) parallel(t *testing.T) {
	if testing.Short() && (strings.Contains(c.name, "GiB") || c.name == "the same for ever") {
		t.Skip("it takes long to read a flood")
	}
	t.Parallel()
}

// anyMethod are ways to misbehave in whatever method. key is the list that is due.
func anyMethod(key string) []chaos {
	return []chaos{
		{"it never answers", func(c net.Conn, _ request) bool {
			c.Read(make([]byte, 1)) // until we are gone
			return false
		}, false, "did not answer within"},
		{"it answers late", func(c net.Conn, r request) bool {
			time.Sleep(400 * time.Millisecond)
			return send(c, `{"parameters":{"`+key+`":[]}}`)
		}, false, "did not answer within"},
		{"it closes at once", func(net.Conn, request) bool { return false }, false, "closed the connection"},
		{"it closes half-way", func(c net.Conn, _ request) bool {
			c.Write([]byte(`{"parameters":{"` + key + `":[{"id":"`))
			return false
		}, false, "closed the connection"},
		{"it says half and waits", func(c net.Conn, _ request) bool {
			c.Write([]byte(`{"parameters":{"` + key + `":[{"id":"`))
			c.Read(make([]byte, 1))
			return false
		}, false, "did not answer within"},
		{"null", saying1(`null`), true, ""},
		{"null parameters", saying1(`{"parameters":null}`), true, ""},
		{"null for the list", saying1(`{"parameters":{"` + key + `":null}}`), true, ""},
		{"null in the list", saying1(`{"parameters":{"` + key + `":[null]}}`), true, ""},
		{"nothing at all", saying1(``), true, ""},
		{"no object", saying1(`[]`), true, ""},
		{"an empty object", saying1(`{}`), true, ""},
		{"no JSON", saying1(`{"parameters":`), true, ""},
		{"binary", saying1("\x01\x02\xff\xfe"), true, ""},
		{"another list", saying1(`{"parameters":{"items":[]}}`), true, ""},
		{"the list twice", saying1(`{"parameters":{"` + key + `":[],"` + key + `":[]}}`), true, ""},
		{"the key in another case", saying1(`{"parameters":{"` + strings.ToUpper(key) + `":[]}}`), true, ""},
		{"a list that is none", saying1(`{"parameters":{"` + key + `":{}}}`), true, ""},
		{"a list of numbers", saying1(`{"parameters":{"` + key + `":[1,2,3]}}`), true, ""},
		{"deep", saying1(`{"parameters":{"` + key + `":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}}`), true, ""},
		{"an error and an answer", saying1(`{"error":"io.unmoor.Plugin.EngineUnavailable","continues":true,"parameters":{"reason":"x"}}`), true, ""},
		{"an error that does not exist", saying1(`{"error":"io.unmoor.Plugin.Oops","parameters":{}}`), true, "Oops"},
		{"an error with garbage", saying1(`{"error":"io.unmoor.Plugin.EngineUnavailable","parameters":{"reason":7}}`), true, "EngineUnavailable"},
		{"an error without its reason", saying1(`{"error":"io.unmoor.Plugin.EngineUnavailable"}`), true, "EngineUnavailable"},
		{"an error with null", saying1(`{"error":"io.unmoor.Plugin.UnsupportedProtocolVersion","parameters":{"supported":null}}`), true, "UnsupportedProtocolVersion"},
		{"an error of no interface", saying1(`{"error":"x"}`), true, ""},
		{"the method is missing", saying1(`{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"x"}}`), true, "MethodNotFound"},
		{"1 GiB without an end", func(c net.Conn, _ request) bool {
			c.Write([]byte(`{"parameters":{"` + key + `":[{"id":"`))
			chunk := []byte(strings.Repeat("a", 1<<20))
			for range 1 << 10 {
				if _, err := c.Write(chunk); err != nil {
					return false
				}
			}
			return false
		}, true, "16777216"},
		{"1 GiB of replies", func(c net.Conn, _ request) bool {
			message := `{"continues":true,"parameters":{"` + key + `":[],"x":"` + strings.Repeat("a", 1<<20) + `"}}`
			for range 1 << 10 {
				if !send(c, message) {
					return false
				}
			}
			return false
		}, true, "no end"},
		{"two messages for one", func(c net.Conn, r request) bool {
			return send(c, `{"parameters":{"`+key+`":[]}}`+"\x00"+`{"parameters":{"`+key+`":[]}}`)
		}, true, ""},
		{"it continues for ever", func(c net.Conn, _ request) bool {
			for send(c, `{"continues":true,"parameters":{"`+key+`":[]}}`) {
			}
			return false
		}, false, "did not answer within"},
		{"descriptors come along", func(c net.Conn, r request) bool {
			return sendDescriptors(c, `{"parameters":{"`+key+`":[]}}`)
		}, true, "descriptors"},
	}
}

// reportChaos are ways to lie in a claim.
func reportChaos() []chaos {
	report := func(report string) answerer { return each("reports", report) }
	reports := func(of func(ids []string) []string) answerer { return about("reports", of) }
	notMine := func(id string) string { return fmt.Sprintf(`{"id":%q,"ownership":"not_mine","evidence":[]}`, id) }
	all := func(ids []string) []string {
		var some []string
		for _, id := range ids {
			some = append(some, notMine(id))
		}
		return some
	}
	return []chaos{
		{"one is left out", reports(func(ids []string) []string { return all(ids[1:]) }), true, "made no claim about"},
		{"all are left out", reports(func([]string) []string { return nil }), true, "made no claim about"},
		{"one stands there twice", reports(func(ids []string) []string { return append(all(ids[1:]), notMine(ids[1])) }), true, "two claims"},
		{"another one's", reports(func(ids []string) []string { return append(all(ids[1:]), notMine(string(id(99)))) }), true, "not asked about"},
		{"one more", reports(func(ids []string) []string { return append(all(ids), notMine(string(id(99)))) }), true, "more answers"},
		{"a flood in one reply", reports(func(ids []string) []string {
			return append(all(ids), strings.Split(strings.Repeat(notMine(string(id(99)))+"\n", 50_000), "\n")[:50_000]...)
		}), true, "more answers"},
		{"a flood in many replies", func(c net.Conn, r request) bool {
			for send(c, fmt.Sprintf(`{"continues":true,"parameters":{"reports":[%s]}}`, strings.Join(all(r.ids()), ","))) {
			}
			return false
		}, true, "more answers"},
		{"an unknown ownership", report(`{"id":%q,"ownership":"maybe","evidence":[]}`), true, "maybe"},
		{"no ownership", report(`{"id":%q,"evidence":[]}`), true, "ownership"},
		{"an ownership that is null", report(`{"id":%q,"ownership":null,"evidence":[]}`), true, "ownership"},
		{"an ownership in another case", report(`{"id":%q,"ownership":"Not_mine","evidence":[]}`), true, "Not_mine"},
		{"no evidence", report(`{"id":%q,"ownership":"not_mine"}`), true, "evidence"},
		{"its own without a state", report(`{"id":%q,"ownership":"mine","use":"idle","evidence":[]}`), true, "state"},
		{"its own without a use", report(`{"id":%q,"ownership":"mine","state":"stopped","evidence":[]}`), true, "use"},
		{"an unknown use", report(`{"id":%q,"ownership":"mine","state":"stopped","use":"busy","evidence":[]}`), true, "busy"},
		{"no container's ID", reports(func(ids []string) []string { return append(all(ids[1:]), notMine("x")) }), true, "no ID"},
		{"an ID in capitals", reports(func(ids []string) []string { return append(all(ids[1:]), notMine(strings.Repeat("A", 64))) }), true, "lower case"},
		{"it takes nonsense along", report(`{"id":%q,"ownership":"mine","state":"stopped","use":"idle","takesAlong":["x"],"evidence":[]}`), true, "goes along"},
		{"a process that cannot be", report(`{"id":%q,"ownership":"mine","state":"running","use":"in_use","evidence":[{"kind":"process","detail":"x","process":{"pid":-1}}]}`), true, "process"},
		{"a pid that is no number", report(`{"id":%q,"ownership":"mine","state":"running","use":"in_use","evidence":[{"kind":"process","detail":"x","process":{"pid":1.5}}]}`), true, ""},
		{"another protocol's version", saying1(`{"error":"io.unmoor.Plugin.UnsupportedProtocolVersion","parameters":{"supported":[2]}}`), false, "revision [2]"},
		{"its engine is down", saying1(`{"error":"io.unmoor.Plugin.EngineUnavailable","parameters":{"reason":"the database is locked","advice":"mend bad's database"}}`), false, "the database is locked"},
		{"permission denied", saying1(`{"error":"org.varlink.service.PermissionDenied"}`), false, "does not let this user"},
	}
}

// TestChaosOfClaim: however a plugin on a socket misbehaves in Claim, its container is kept, the message
// names it and what to do, another one's containers are that one's, and the call returns within the
// deadline.
func TestChaosOfClaim(t *testing.T) {
	for _, c := range append(anyMethod("reports"), reportChaos()...) {
		t.Run(c.name, func(t *testing.T) {
			c.parallel(t)
			directory := t.TempDir()
			bad := serveRaw(t, directory, "bad", with("Claim", c.answer))
			good := serveRaw(t, directory, "good", with("Claim", about("reports", func(ids []string) []string {
				var reports []string
				for _, i := range ids {
					report := `{"id":%q,"ownership":"not_mine","evidence":[]}`
					if i == string(id(2)) {
						report = `{"id":%q,"ownership":"mine","state":"stopped","use":"idle","evidence":[]}`
					}
					reports = append(reports, fmt.Sprintf(report, i))
				}
				return reports
			})))
			e := socketEntry("bad", bad.address())
			e.ClaimTimeout = c.timeout()
			r := registry(t, e, socketEntry("good", good.address()))
			began := time.Now()
			holdings := r.Claim(t.Context(), theStore, store(t))
			if took := time.Since(began); took > c.timeout()+2*time.Second {
				t.Errorf("took %s", took)
			}
			kept(t, holdings[id(1)], c)
			if o := holdings[id(2)].Owner(); o != "good" {
				t.Errorf("container 2: %+v", holdings[id(2)])
			}
			if k := holdings[id(3)].Kind; k != core.Unowned {
				t.Errorf("container 3: %+v", holdings[id(3)])
			}
			outcomes := r.Remove(t.Context(), "good", theStore, handles(2))
			if len(outcomes) != 1 || outcomes[0].Err != nil || !outcomes[0].StorageRemoved {
				t.Errorf("the other one's container cannot be removed: %+v", outcomes)
			}
		})
	}
}

// TestChaosOfDescribe: likewise, where the plugin cannot even say who it is.
func TestChaosOfDescribe(t *testing.T) {
	replaced := func(old, new string) answerer {
		description := describing("bad")
		if !strings.Contains(description, old) {
			t.Fatalf("%s is not in %s", old, description)
		}
		return described(strings.Replace(description, old, new, 1))
	}
	cases := append(anyMethod("name"),
		chaos{"another name", replaced(`"name":"bad"`, `"name":"good"`), false, `its name is "good"`},
		chaos{"no name", replaced(`"name":"bad"`, `"name":""`), true, ""},
		chaos{"a name that cannot be", replaced(`"name":"bad"`, `"name":"../bad"`), true, "no name of a plugin"},
		chaos{"no engine", replaced(`"engine":"bad",`, ``), true, "engine"},
		chaos{"another protocol", replaced(`[1]`, `[2]`), false, "revision [2]"},
		chaos{"no protocol", replaced(`[1]`, `[]`), true, "0 revisions"},
		chaos{"a protocol that cannot be", replaced(`[1]`, `["1"]`), true, ""},
		chaos{"no capabilities", replaced(`"capabilities":["stop","remove","pin","list","build"],`, ``), true, "capabilities"},
		chaos{"no hints", replaced(`"claimHints":[`+testHint+`],`, ``), true, "claimHints"},
		chaos{"a hint that fits nothing", replaced(testHint, `{}`), true, "fits nothing"},
		chaos{"a hint with a path", replaced(testHint, `{"file":"../x"}`), true, "no name of a file"},
		chaos{"not even whether it is ready", replaced(`,"ready":true`, ``), true, "ready"},
	)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.parallel(t)
			bad := serveRaw(t, t.TempDir(), "bad", with("Describe", c.answer))
			e := socketEntry("bad", bad.address())
			e.ClaimTimeout, e.Hints = c.timeout(), testHints
			r := registry(t, e, entry("good", saying(mine)))
			holdings := r.Claim(t.Context(), theStore, store(t))
			if strings.Contains(c.name, "continues") || strings.Contains(c.name, "replies") {
				c.garbage, c.said = true, "nobody asked for" // Describe was called without more
			}
			kept(t, holdings[id(1)], c)
			if o := holdings[id(2)].Owner(); o != "good" {
				t.Errorf("container 2: %+v", holdings[id(2)])
			}
			if n := bad.called("Claim"); n > 0 {
				t.Errorf("it was asked %d times", n)
			}
			s := r.Status()[0]
			if s.State == hooks.StateReady || s.LastError == "" || s.Advice == "" {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// kept checks the holding of a container of a plugin that misbehaved.
func kept(t *testing.T, h core.Holding, c chaos) {
	t.Helper()
	if h.Kind != core.Undetermined || h.Garbage != c.garbage || len(h.Owners) != 1 || h.Owners[0] != "bad" {
		t.Errorf("%+v", h)
	}
	if !strings.HasPrefix(h.Reason, "bad, which may own it, ") || !strings.Contains(h.Reason, c.said) {
		t.Errorf("reason %q lacks %q", h.Reason, c.said)
	}
	if !strings.Contains(h.Advice, "bad") || len(h.Reason)+len(h.Advice) > 1500 {
		t.Errorf("advice %q", h.Advice)
	}
}

// TestChaosOfStop: however it misbehaves in Stop or Remove, every handle has one outcome, which names
// the plugin and what to do, within the deadline.
func TestChaosOfStop(t *testing.T) {
	hooks.SetSilence(t, 300*time.Millisecond)
	outcomes := func(of func(ids []string) []string) answerer { return about("outcomes", of) }
	outcome := func(id string) string { return fmt.Sprintf(`{"id":%q}`, id) }
	cases := anyMethod("outcomes")
	for i := range cases {
		switch {
		case cases[i].name == "it continues for ever":
		case strings.Contains(cases[i].name, "GiB"):
			cases[i].said = "" // it may take longer than that silence to read
		case cases[i].said == "did not answer within":
			cases[i].said = "no sign of life for 300ms"
		}
	}
	cases = append(cases,
		chaos{"one is left out", outcomes(func(ids []string) []string { return []string{outcome(ids[0])} }), true, "no outcome"},
		chaos{"one stands there twice", outcomes(func(ids []string) []string { return []string{outcome(ids[0]), outcome(ids[0])} }), true, "not due"},
		chaos{"another one's", outcomes(func(ids []string) []string { return []string{outcome(ids[0]), outcome(string(id(99)))} }), true, "not due"},
		chaos{"one more", outcomes(func(ids []string) []string {
			return []string{outcome(ids[0]), outcome(ids[1]), outcome(string(id(99)))}
		}), true, "more answers"},
		chaos{"an unknown problem", each("outcomes", `{"id":%q,"problem":"boredom","message":"x"}`), true, "boredom"},
		chaos{"a problem without words", each("outcomes", `{"id":%q,"problem":"failed"}`), true, "message"},
		chaos{"gone, and yet a problem", each("outcomes", `{"id":%q,"problem":"failed","message":"x","storageRemoved":true}`), true, "storage"},
		chaos{"it dies after the first", func(c net.Conn, r request) bool {
			send(c, fmt.Sprintf(`{"continues":true,"parameters":{"outcomes":[%s]}}`, outcome(r.ids()[0])))
			return false
		}, false, "closed the connection"},
		chaos{"it falls silent after the first", func(c net.Conn, r request) bool {
			send(c, fmt.Sprintf(`{"continues":true,"parameters":{"outcomes":[%s]}}`, outcome(r.ids()[0])))
			c.Read(make([]byte, 1))
			return false
		}, false, "no sign of life"},
		chaos{"its engine is down", saying1(`{"error":"io.unmoor.Plugin.EngineUnavailable","parameters":{"reason":"the engine sleeps"}}`), false, "the engine sleeps"},
	)
	for _, verb := range []string{"Stop", "Remove"} {
		for _, c := range cases {
			t.Run(verb+" "+c.name, func(t *testing.T) {
				c.parallel(t)
				bad := serveRaw(t, t.TempDir(), "bad", with(verb, c.answer))
				e := socketEntry("bad", bad.address())
				e.StopMargin, e.RemoveTimeout = c.timeout(), c.timeout()
				r := registry(t, e)
				began := time.Now()
				got := r.Remove
				if verb == "Stop" {
					got = func(ctx context.Context, owner string, store core.StoreInfo, handles []core.Handle) []core.Outcome {
						return r.Stop(ctx, owner, store, handles, 0)
					}
				}
				all := got(t.Context(), "bad", theStore, handles(1, 2))
				if took := time.Since(began); took > c.timeout()+2*time.Second {
					t.Errorf("took %s", took)
				}
				if len(all) != 2 || all[0].Container != id(1) || all[1].Container != id(2) {
					t.Fatalf("%+v", all)
				}
				partial := strings.HasSuffix(c.name, "after the first") || c.name == "one is left out"
				if (all[0].Err == nil) != partial {
					t.Errorf("the first: %v", all[0].Err)
				}
				err := all[1].Err
				if err == nil || all[1].StorageRemoved {
					t.Fatalf("the second: %+v", all[1])
				}
				if s := err.Error(); !strings.HasPrefix(s, "bad: "+strings.ToLower(verb)+" container ") || !strings.Contains(s, c.said) {
					t.Errorf("%q lacks %q", s, c.said)
				}
				if advised := strings.Contains(err.Error(), "the plugin bad") || strings.Contains(err.Error(), "see why bad hangs"); !advised && c.name != "its engine is down" {
					t.Errorf("%q does not say what to do", err)
				}
			})
		}
	}
}

// TestChaosOfPins: an image may be pinned as long as the plugin gives no right answer.
func TestChaosOfPins(t *testing.T) {
	pins := func(of func(ids []string) []string) answerer { return about("pins", of) }
	no := func(id string) string { return fmt.Sprintf(`{"id":%q,"pinned":"no"}`, id) }
	cases := append(anyMethod("pins"),
		chaos{"one is left out", pins(func(ids []string) []string { return []string{no(ids[0])} }), true, "no pin"},
		chaos{"one stands there twice", pins(func(ids []string) []string { return []string{no(ids[0]), no(ids[0])} }), true, "two pins"},
		chaos{"another one's", pins(func(ids []string) []string { return []string{no(ids[0]), no(string(id(99)))} }), true, "not asked about"},
		chaos{"an unknown word", each("pins", `{"id":%q,"pinned":"perhaps"}`), true, "perhaps"},
	)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.parallel(t)
			bad := serveRaw(t, t.TempDir(), "bad", with("Pins", c.answer))
			e := socketEntry("bad", bad.address())
			e.ClaimTimeout = c.timeout()
			for image, p := range registry(t, e).Pins(t.Context(), theStore, twoImages(), nil) {
				if p.Pinned != core.PinnedUnknown || p.Garbage != c.garbage || !strings.HasPrefix(p.Reason, "bad, which may pin it, ") ||
					!strings.Contains(p.Reason, c.said) || !strings.Contains(p.Advice, "bad") {
					t.Errorf("image %s: %+v", image.Short(), p)
				}
			}
		})
	}
}

// TestChaosOfList: nothing is said of an engine whose list is nonsense.
func TestChaosOfList(t *testing.T) {
	mine := `{"id":"` + string(id(1)) + `","ownership":"mine","state":"stopped","use":"idle","evidence":[]}`
	cases := append(anyMethod("reports"),
		chaos{"one stands there twice", saying1(`{"parameters":{"reports":[` + mine + `,` + mine + `]}}`), true, "twice"},
		chaos{"one is not its own", saying1(`{"parameters":{"reports":[` + strings.Replace(mine, `"mine"`, `"unknown"`, 1) + `]}}`), true, "nothing of its own"},
		chaos{"the same for ever", func(c net.Conn, _ request) bool {
			for send(c, `{"continues":true,"parameters":{"reports":[`+mine+`]}}`) {
			}
			return false
		}, true, "twice"},
	)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.parallel(t)
			bad := serveRaw(t, t.TempDir(), "bad", with("List", c.answer))
			e := socketEntry("bad", bad.address())
			e.ClaimTimeout = c.timeout()
			all := registry(t, e).Inventories(t.Context(), theStore, store(t))
			if len(all) != 1 || all[0].Engine != "bad" || all[0].Err == nil || len(all[0].Records) > 0 {
				t.Fatalf("%+v", all)
			}
			if s := all[0].Err.Error(); !strings.Contains(s, c.said) || strings.Contains(s, "nonsense") != c.garbage {
				t.Errorf("%q lacks %q", s, c.said)
			}
		})
	}
}

// TestMemoryOfAFlood: what a plugin sends without an end is not kept.
func TestMemoryOfAFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long to read a flood")
	}
	noLeaks(t)
	for _, c := range anyMethod("reports") {
		if !strings.Contains(c.name, "GiB") {
			continue
		}
		bad := serveRaw(t, t.TempDir(), "bad", with("Claim", c.answer))
		r := registry(t, socketEntry("bad", bad.address()))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r.Claim(t.Context(), theStore, store(t))
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 120 {
			t.Errorf("%s: %d MiB were allocated in all", c.name, n)
		}
		bad.close()
	}
}

// TestChaosLeavesNothing: neither goroutines nor descriptors are left of calls that went wrong.
func TestChaosLeavesNothing(t *testing.T) {
	noLeaks(t)
	for _, c := range append(anyMethod("reports"), reportChaos()...) {
		if c.said == "did not answer within" || strings.Contains(c.name, "GiB") || strings.Contains(c.name, "for ever") {
			continue
		}
		bad := serveRaw(t, t.TempDir(), "bad", with("Claim", c.answer))
		registry(t, socketEntry("bad", bad.address())).Claim(t.Context(), theStore, store(t))
		bad.close()
	}
	silent := serveRaw(t, t.TempDir(), "bad", with("Claim", anyMethod("reports")[0].answer))
	e := socketEntry("bad", silent.address())
	e.ClaimTimeout = 50 * time.Millisecond
	registry(t, e).Claim(t.Context(), theStore, store(t))
	silent.close()
}

// handles are of containers by number, as their owner claimed them.
func handles(numbers ...int) []core.Handle {
	var all []core.Handle
	for _, n := range numbers {
		c := mine
		c.Container = id(n)
		all = append(all, core.Handle{Container: core.Container{ID: id(n)}, Claim: c})
	}
	return all
}

// FuzzReplies: whatever a plugin writes in place of each of its answers, nothing panics or hangs, and a
// container that it may own is unowned only where it said so by the rules.
func FuzzReplies(f *testing.F) {
	methods := []string{"Describe", "Claim", "Stop", "Remove", "Pins", "List"}
	for i := range methods {
		f.Add(byte(i), []byte(`{"parameters":{"reports":[{"id":"`+string(id(1))+`","ownership":"not_mine","evidence":[]}]}}`+"\x00"))
		f.Add(byte(i), []byte(`{"parameters":{"outcomes":[{"id":"`+string(id(1))+`","along":[]}]}}`+"\x00"))
		f.Add(byte(i), []byte(`{"parameters":{"pins":[{"id":"`+string(id(1))+`","pinned":"yes"}]}}`+"\x00"))
		f.Add(byte(i), []byte(`{"parameters":`+describing("bad")+`}`+"\x00"))
		f.Add(byte(i), []byte(`{"error":"io.unmoor.Plugin.EngineUnavailable","parameters":{"reason":"x","absent":true}}`+"\x00"))
	}
	f.Fuzz(func(t *testing.T, which byte, bytes []byte) {
		method := methods[int(which)%len(methods)]
		bad := serveRaw(t, t.TempDir(), "bad", with(method, func(c net.Conn, _ request) bool {
			c.Write(bytes)
			return false
		}))
		defer bad.close()
		e := socketEntry("bad", bad.address())
		e.Hints = testHints
		r := registry(t, e)
		containers := store(t)[:1]
		h := r.Claim(t.Context(), theStore, containers)[id(1)]
		if h.Kind == core.Unowned && method == "Claim" && !saysNotMine(bytes) {
			t.Errorf("unowned by %q", bytes)
		}
		if method != "Claim" && method != "Describe" && h.Kind != core.Unowned {
			t.Errorf("%+v", h)
		}
		for _, o := range append(r.Stop(t.Context(), "bad", theStore, handles(1), 0), r.Remove(t.Context(), "bad", theStore, handles(1))...) {
			if o.Container != id(1) || o.Err != nil && o.StorageRemoved {
				t.Errorf("%+v", o)
			}
		}
		r.Pins(t.Context(), theStore, twoImages(), containers)
		r.Inventories(t.Context(), theStore, containers)
	})
}

// saysNotMine is whether a text has such a report of container 1 in it, by a reading of its own.
func saysNotMine(text []byte) bool {
	var reports []string
	for _, message := range strings.SplitAfter(string(text), "\x00") {
		var m struct {
			Parameters struct {
				Reports []struct{ ID, Ownership string }
			}
			Error *string
		}
		if !strings.HasSuffix(message, "\x00") || json.Unmarshal([]byte(strings.TrimSuffix(message, "\x00")), &m) != nil || m.Error != nil {
			continue
		}
		for _, r := range m.Parameters.Reports {
			reports = append(reports, r.ID+" "+r.Ownership)
		}
	}
	return len(reports) == 1 && reports[0] == string(id(1))+" not_mine"
}
