package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// double is a hand-written service of one connection that answers as a test says.
type double struct {
	*net.UnixConn
	in *bufio.Reader
}

// doubled connects a client to a double. answer gets every call.
func doubled(t *testing.T, o DialOptions, answer func(d *double, call string)) *Conn {
	t.Helper()
	ours, theirs := socketPair(t)
	d := &double{theirs, bufio.NewReader(theirs)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			call, err := d.in.ReadString(0)
			if err != nil {
				return
			}
			answer(d, strings.TrimSuffix(call, "\x00"))
		}
	}()
	c := NewConn(ours, o)
	t.Cleanup(func() {
		c.Close()
		theirs.Close()
		<-done
	})
	return c
}

// say answers with messages, each with its NUL.
func (d *double) say(messages ...string) {
	for _, m := range messages {
		io.WriteString(d, m+"\x00") // the client may have gone
	}
}

// givenUp expects that the connection is closed for good.
func givenUp(t *testing.T, c *Conn) {
	t.Helper()
	select {
	case <-c.closed:
	default:
		t.Error("the connection is still open")
	}
	if err := c.Call(t.Context(), "a.b.C", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("the next call: %v", err)
	}
}

func TestCall(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.dial(t)
	var out struct {
		Text string `json:"text"`
	}
	for _, text := range []string{"a", "", strings.Repeat("long", 100000)} {
		if err := c.Call(t.Context(), "org.example.Test.Ping", map[string]string{"text": text}, &out); err != nil || out.Text != text {
			t.Errorf("got %.20q, %v", out.Text, err)
		}
	}
	var failed *Error
	err := c.Call(t.Context(), "org.example.Test.Nils", map[string]bool{"fail": true}, nil)
	if !errors.As(err, &failed) || failed.Name != "org.example.Test.Odd" {
		t.Fatalf("got %v", err)
	}
	var odd struct {
		Tags []string `json:"tags"`
	}
	if err := Decode(failed.Parameters, &odd); err != nil || odd.Tags == nil {
		t.Errorf("got %+v, %v", odd, err)
	}
	if want := `org.example.Test.Odd {"tags":[],"none":null}`; err.Error() != want {
		t.Errorf("got %s", err)
	}
	if err := c.Call(t.Context(), "org.example.Test.Nothing", nil, nil); err != nil {
		t.Errorf("after an error reply: %v", err)
	}
}

func TestStream(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.dial(t)
	var kept []json.RawMessage
	n := 0
	err := c.Stream(t.Context(), "org.example.Test.Count", map[string]int{"to": 100}, func(parameters json.RawMessage, continues bool) error {
		n++
		if continues != (n < 100) {
			t.Errorf("reply %d: continues is %v", n, continues)
		}
		kept = append(kept, parameters)
		return nil
	})
	if err != nil || n != 100 {
		t.Fatalf("%d replies, %v", n, err)
	}
	for i, p := range kept {
		if want := fmt.Sprintf(`{"n":%d}`, i+1); string(p) != want {
			t.Errorf("reply %d became %s", i+1, p)
		}
	}
	enough := errors.New("enough")
	err = c.Stream(t.Context(), "org.example.Test.Count", map[string]int{"to": 100}, func(json.RawMessage, bool) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	givenUp(t, c)
}

func TestHazard13AfterATimeout(t *testing.T) {
	late := make(chan struct{})
	c := doubled(t, DialOptions{}, func(d *double, call string) {
		<-late
		d.say(`{"parameters":{"of":"the first call"}}`)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := c.Call(ctx, "a.b.First", nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	close(late)
	givenUp(t, c)
}

func TestHazard13Surprises(t *testing.T) {
	const good = `{"parameters":{"text":"a"}}`
	for name, messages := range map[string][]string{
		"continues that nobody asked for": {`{"parameters":{"text":"a"},"continues":true}`},
		"two replies":                     {good + "\x00" + good},
		"a reply and a half":              {good + "\x00" + `{"para`},
		"a reply after an error":          {`{"error":"a.b.Failed"}` + "\x00" + good},
		"an error that continues":         {`{"error":"a.b.Failed","continues":true}`},
		"an empty error":                  {`{"error":""}`},
		"an error that is no string":      {`{"error":1}`},
		"no JSON":                         {`x`},
		"nothing":                         {``},
		"null":                            {`null`},
		"an array":                        {`[]`},
		"an unknown member":               {`{"parameters":{"text":"a"},"extra":1}`},
		"another case":                    {`{"Parameters":{"text":"a"}}`},
		"parameters twice":                {`{"parameters":{"text":"a"},"parameters":{"text":"b"}}`},
		"parameters that are no object":   {`{"parameters":[]}`},
		"continues that is no boolean":    {`{"continues":1}`},
		"over the limit":                  {`{"parameters":{"text":"` + strings.Repeat("x", 10000) + `"}}`},
		"no UTF-8":                        {"{\"parameters\":{\"text\":\"\xff\"}}"},
		"a call":                          {`{"method":"a.b.C"}`},
	} {
		t.Run(name, func(t *testing.T) {
			c := doubled(t, DialOptions{MaxMessage: 5000}, func(d *double, _ string) { d.say(messages...) })
			var out struct {
				Text *string `json:"text"`
			}
			if err := c.Call(t.Context(), "a.b.C", nil, &out); err == nil {
				t.Errorf("it passed: %v", out)
			} else if _, reply := errors.AsType[*Error](err); reply {
				t.Errorf("it passed for an error reply: %v", err)
			}
			givenUp(t, c)
		})
	}
}

// In a stream, too, a surprise is the end.
func TestHazard13SurprisesInAStream(t *testing.T) {
	for name, messages := range map[string][]string{
		"an error that continues":       {`{"error":"a.b.Failed","continues":true}`},
		"more after the last":           {`{"continues":true}`, `{}` + "\x00" + `{}`},
		"no JSON":                       {`{"continues":true}`, `}`},
		"parameters that are no object": {`{"continues":true}`, `{"parameters":1}`},
	} {
		c := doubled(t, DialOptions{}, func(d *double, _ string) { d.say(messages...) })
		err := c.Stream(t.Context(), "a.b.C", nil, func(json.RawMessage, bool) error { return nil })
		if _, reply := errors.AsType[*Error](err); err == nil || reply {
			t.Errorf("%s: %v", name, err)
		}
		givenUp(t, c)
	}
}

// What comes after a good reply is noticed before the next call.
func TestHazard13ReplyBetweenCalls(t *testing.T) {
	c := doubled(t, DialOptions{}, func(d *double, _ string) { d.say(`{}`) })
	if err := c.Call(t.Context(), "a.b.C", nil, nil); err != nil {
		t.Fatal(err)
	}
	ours, theirs := socketPair(t)
	c = NewConn(ours, DialOptions{})
	if _, err := theirs.Write([]byte("{}\x00")); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), "a.b.C", nil, nil); !errors.Is(err, errUnasked) {
		t.Errorf("got %v", err)
	}
	givenUp(t, c)
}

// A reply with descriptors costs the connection, and none is kept.
func TestHazard13Descriptors(t *testing.T) {
	c := doubled(t, DialOptions{}, func(d *double, _ string) {
		if _, _, err := d.WriteMsgUnix([]byte("{}\x00"), unix.UnixRights(0, 1, 2), nil); err != nil {
			t.Error(err)
		}
	})
	before := openFiles(t)
	if err := c.Call(t.Context(), "a.b.C", nil, nil); !errors.Is(err, errFiles) {
		t.Errorf("got %v", err)
	}
	if n := openFiles(t); n > before {
		t.Errorf("%d descriptors are open, %d were", n, before)
	}
	givenUp(t, c)
}

// The end of the context is honoured while a reply is awaited, between the replies of a stream, and while
// a peer does not read.
func TestHazard14ContextOfTheReceiver(t *testing.T) {
	c := doubled(t, DialOptions{}, func(d *double, call string) { d.say(`{"continues":true}`) })
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Stream(ctx, "a.b.C", nil, func(json.RawMessage, bool) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("in a stream: %v", err)
	}
	givenUp(t, c)

	ours, _ := socketPair(t) // nobody reads
	c = NewConn(ours, DialOptions{})
	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	err = c.Call(ctx, "a.b.C", map[string]string{"x": strings.Repeat("x", 512<<10)}, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while writing: %v", err)
	}
	givenUp(t, c)

	ours, theirs := socketPair(t)
	c = NewConn(ours, DialOptions{})
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := c.Call(ctx, "a.b.C", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("before it began: %v", err)
	}
	theirs.Close()
}

func TestHazard15NoOutputs(t *testing.T) {
	for _, reply := range []string{`{}`, `{"parameters":{}}`, `{"parameters":null}`} {
		c := doubled(t, DialOptions{}, func(d *double, call string) {
			if call != `{"method":"a.b.C"}` {
				t.Errorf("the call is %s", call)
			}
			d.say(reply)
		})
		if err := c.Call(t.Context(), "a.b.C", nil, nil); err != nil {
			t.Errorf("%s: %v", reply, err)
		}
		if err := c.Call(t.Context(), "a.b.C", nil, &struct{}{}); err != nil {
			t.Errorf("%s, with somewhere to go: %v", reply, err)
		}
		var maybe struct {
			Text *string `json:"text"`
		}
		if err := c.Call(t.Context(), "a.b.C", nil, &maybe); err != nil {
			t.Errorf("%s, where all is optional: %v", reply, err)
		}
	}
}

func TestHazard16MissingFields(t *testing.T) {
	type report struct {
		ID  string  `json:"id"`
		Use string  `json:"use"`
		PID *int64  `json:"pid,omitempty"`
		Why *string `json:"why"`
	}
	type answer struct {
		Reports []report            `json:"reports"`
		Counts  map[string]report   `json:"counts"`
		Raw     json.RawMessage     `json:"raw"`
		Maybe   *map[string][]int64 `json:"maybe"`
		Ready   bool                `json:"ready"`
	}
	const rest = `"counts":{},"raw":{},"ready":false`
	for parameters, want := range map[string]string{
		`{}`:                                  "reports: it is missing",
		`{"reports":[],"counts":{},"raw":{}}`: "ready: it is missing",
		`{"reports":[],"counts":{},"ready":true}`:                                   "raw: it is missing",
		`{"reports":[],"counts":{},"raw":null,"ready":true}`:                        "raw: it is null",
		`{"reports":[],"counts":{},"raw":{},"Ready":true}`:                          "ready: it is missing",
		`{"reports":null,` + rest + `}`:                                             "reports: it is null",
		`{"reports":[{"id":"a"}],` + rest + `}`:                                     "reports[0].use: it is missing",
		`{"reports":[{"id":"a","use":null}],` + rest + `}`:                          "reports[0].use: it is null",
		`{"reports":[{"id":"a","Use":"idle"}],` + rest + `}`:                        "reports[0].use: it is missing",
		`{"reports":[{"id":"a","use":"in_use","use":"idle"}],` + rest + `}`:         "reports[0].use: a key is doubled",
		`{"reports":[{"id":"a","use":"in_use","x":1,"x":2}],` + rest + `}`:          "reports[0].x: a key is doubled",
		`{"reports":[{"id":"a","use":1}],` + rest + `}`:                             "reports[0].use: it is not a string",
		`{"reports":[null],` + rest + `}`:                                           "reports[0]: it is null",
		`{"reports":[{"id":"a","use":"idle","pid":"1"}],` + rest + `}`:              "reports[0].pid: it is not a 64-bit integer",
		`{"reports":{},` + rest + `}`:                                               "reports: it is not an array",
		`{"reports":[],"counts":{"a":{"id":"a"}},"raw":{},"ready":false}`:           "counts.a.use: it is missing",
		`{"reports":[],"counts":{},"raw":{"a":1,"a":2},"ready":false}`:              "raw: a key is doubled",
		`{"reports":[],"counts":{},"raw":{},"ready":false,"maybe":{"a":null}}`:      "maybe.a: it is null",
		`{"reports":[],"counts":{},"raw":{},"ready":false,"maybe":{"a":[1,null]}}`:  "maybe.a[1]: it is null",
		`{"reports":[],"counts":{},"raw":{},"ready":false,"maybe":{"a":[1]},"x":[}`: "it is no JSON",
		`[]`: "it is not an object",
	} {
		c := doubled(t, DialOptions{}, func(d *double, _ string) { d.say(`{"parameters":` + parameters + `}`) })
		var out answer
		err := c.Call(t.Context(), "a.b.C", nil, &out)
		if strings.HasSuffix(parameters, "[}") || parameters == "[]" { // not even a reply
			err = Decode(json.RawMessage(parameters), &out)
		} else {
			givenUp(t, c)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", parameters, err, want)
		}
	}
	var out answer
	const good = `{ "reports" : [{"id":"a","USE":"in_use","use":"idle","Id":"b","pid":null,"new":{"x":[1]}}],` + rest +
		`,"RAW":{},"raw2":null, "Ready" : true}`
	if err := Decode(json.RawMessage(good), &out); err != nil {
		t.Fatal(err)
	}
	if r := out.Reports[0]; r.Use != "idle" || r.ID != "a" || r.PID != nil || out.Ready {
		t.Errorf("a key in another case counts: %+v", out)
	}
}

func TestHazard17CallsSideBySide(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.dial(t)
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			for j := range 20 {
				text := fmt.Sprintf("%d.%d", i, j)
				var out struct {
					Text string `json:"text"`
				}
				if err := c.Call(t.Context(), "org.example.Test.Ping", map[string]string{"text": text}, &out); err != nil || out.Text != text {
					t.Errorf("%s was answered %s, %v", text, out.Text, err)
				}
			}
		})
	}
	all.Wait()
}

// One that waits for its turn does not wait longer than its context, or than the connection lives.
func TestHazard17WaitingForOnesTurn(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.dial(t)
	first := make(chan error, 1)
	go func() { first <- c.Call(t.Context(), "org.example.Test.Wait", nil, nil) }()
	await(t, "the first call is made", r.service.started)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "org.example.Test.Nothing", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	second := make(chan error, 1)
	go func() { second <- c.Call(t.Context(), "org.example.Test.Nothing", nil, nil) }()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for _, calls := range []chan error{first, second} {
		if err := await(t, "the call ends", calls); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// The end of the peer is an error, and not an empty answer.
func TestPeerOfTheClientGoes(t *testing.T) {
	for _, last := range []string{"", `{"parameters"`} {
		c := doubled(t, DialOptions{}, func(d *double, _ string) {
			io.WriteString(d, last)
			d.Close()
		})
		if err := c.Call(t.Context(), "a.b.C", nil, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
		givenUp(t, c)
	}
	ours, theirs := socketPair(t)
	theirs.Close()
	c := NewConn(ours, DialOptions{})
	if err := c.Call(t.Context(), "a.b.C", nil, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

// What cannot be sent costs no connection.
func TestCallThatCannotBeSent(t *testing.T) {
	c := doubled(t, DialOptions{MaxMessage: 1000}, func(d *double, _ string) { d.say(`{}`) })
	type embedding struct {
		testItem
		A *string
	}
	for name, in := range map[string]any{
		"no JSON":             func() {},
		"no object":           []string{"a"},
		"too large":           map[string]string{"a": strings.Repeat("x", 1000)},
		"an embedded and nil": embedding{},
	} {
		if err := c.Call(t.Context(), "a.b.C", in, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := c.Call(t.Context(), "a.b.C", map[string]any{"x": nil}, nil); err != nil {
		t.Error(err)
	}
}

// Nil slices and maps go out empty from a client, too.
func TestNilsOfACall(t *testing.T) {
	calls := make(chan string, 1)
	c := doubled(t, DialOptions{}, func(d *double, call string) {
		calls <- call
		d.say(`{}`)
	})
	in := struct {
		Item *testItem   `json:"item"`
		None *[]string   `json:"none"`
		More []*testItem `json:"more"`
	}{Item: &testItem{Name: "null"}, More: []*testItem{nil, {}}}
	if err := c.Call(t.Context(), "a.b.C", &in, nil); err != nil {
		t.Fatal(err)
	}
	want := `{"method":"a.b.C","parameters":{"item":{"name":"null","tags":[],"notes":{},"kind":""},"none":null,` +
		`"more":[null,{"name":"","tags":[],"notes":{},"kind":""}]}}`
	if got := <-calls; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A panic of each leaves no connection that is out of step.
func TestStreamThatPanics(t *testing.T) {
	r := serveTest(t, ServerOptions{})
	c := r.dial(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("it did not panic")
			}
		}()
		c.Stream(t.Context(), "org.example.Test.Count", map[string]int{"to": 100}, func(json.RawMessage, bool) error { panic("x") })
	}()
	givenUp(t, c)
}

func TestDecodeIntoWhatDoesNotDo(t *testing.T) {
	var nothing any
	for _, into := range []any{nil, struct{}{}, map[string]string{}, &struct{ C chan int }{}, &struct{ M map[int]int }{}, nothing} {
		if err := Decode(json.RawMessage("{}"), into); err == nil {
			t.Errorf("%T: no error", into)
		}
	}
	var all struct {
		Any   any              `json:"any"`
		Time  time.Time        `json:"time"`
		Bytes []byte           `json:"bytes"`
		F     float32          `json:"f"`
		U     uint8            `json:"u"`
		Array [2]int           `json:"array"`
		Deep  map[string][]any `json:"deep"`
		Skip  func()           `json:"-"`
		inner int
		Named string
	}
	all.inner = 1
	err := Decode(json.RawMessage(`{"any":[1],"time":"2026-01-02T03:04:05Z","bytes":"AQI=","f":1.5,"u":200,"array":[1,2],"deep":{"a":[null]},"Named":"n"}`), &all)
	if err == nil || !strings.Contains(err.Error(), "deep.a[0]: it is null") {
		t.Errorf("got %v", err)
	}
	err = Decode(json.RawMessage(`{"any":[1],"time":"2026-01-02T03:04:05Z","bytes":"AQI=","f":1.5,"u":200,"array":[1,2],"deep":{"a":[1]},"Named":"n"}`), &all)
	if err != nil || all.U != 200 || len(all.Bytes) != 2 || all.Named != "n" || all.Time.IsZero() {
		t.Errorf("%+v, %v", all, err)
	}
	if err := Decode(json.RawMessage(`{"u":300}`), &struct {
		U uint8 `json:"u"`
	}{}); err == nil {
		t.Error("a number that does not fit")
	}
}

func TestDialThatFails(t *testing.T) {
	dir := t.TempDir()
	for address, want := range map[string]string{
		"":                            "not an address",
		"/run/socket":                 "not an address",
		"unix:":                       "not an address",
		"unix:;mode=1":                "not an address",
		"tcp:localhost:1":             "no transport tcp",
		"exec:relative":               "must be absolute",
		"exec:" + dir + "/none":       "no such file",
		"unix:" + dir + "/none":       "no such file",
		"ssh-unix:/only/a/path":       "no host",
		"ssh-unix:-oProxyCommand=x:/": "no host",
		"ssh-unix:host:relative":      "absolute",
		"ssh-unix:host:/a/../b":       "clean",
	} {
		c, err := Dial(t.Context(), address, DialOptions{})
		if err == nil {
			c.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
	if _, err := DialCommand(t.Context(), nil, DialOptions{}); err == nil {
		t.Error("an empty command")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, address := range []string{"unix:" + dir + "/none", "exec:/bin/true", "ssh-unix:host:/path"} {
		if _, err := Dial(ctx, address, DialOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, after the end of its context: %v", address, err)
		}
	}
}

func TestDialAbstract(t *testing.T) {
	name := fmt.Sprintf("@unmoor-test-%d", os.Getpid())
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ServerOptions{}, newTestService())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	c, err := Dial(t.Context(), "unix:"+name+";some=parameter", DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), "org.example.Test.Nothing", nil, nil); err != nil {
		t.Error(err)
	}
	c.Close()
	cancel()
	if err := await(t, "Serve ends", done); err != nil {
		t.Error(err)
	}
}
