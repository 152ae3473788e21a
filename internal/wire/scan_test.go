package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// FuzzScan holds the scanner against encoding/json: what it reads is JSON, and what it refuses is none, or
// is refused for a reason that encoding/json does not have.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{
		`{}`, `[]`, `null`, `true`, `-0.5e+10`, `"a\u00e9\ud83d\ude00\n"`, `{"a":[1,{"b":null}],"c":""}`, ` [ 1 , 2 ] `,
		`{"a":1,"a":2}`, `"\ud800"`, `"\udc00\ud800"`, `"\ud800\u0041"`, `01`, `-`, `1.`, `.5`, `1e`, `"`, `"\`, `"\u12`, `{"a"}`, `[1,]`, `{,}`,
		`tru`, `nulll`, "\x00", "[\x00]", "\"\xff\"", "\ufeff1", strings.Repeat("[", 130), `{"\u0061":1,"a":2}`, "\"\x1f\"", "\"\x7f\u2028\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := newScanner(in)
		if err != nil {
			return
		}
		raw, err := s.skip(false)
		if err == nil {
			err = s.end()
		}
		valid := json.Valid(in)
		switch {
		case err == nil && !valid:
			t.Fatalf("%q passed", in)
		case err == nil:
			if want := bytes.Trim(in, " \t\r\n"); !bytes.Equal(raw, want) {
				t.Fatalf("%q became %q", in, raw)
			}
			if s.depth != 0 {
				t.Fatalf("%q: depth %d at the end", in, s.depth)
			}
		case err == errDepth, err == errDoubled, err == errValues: //nolint:errorlint // never wrapped
		case valid && !bytes.Contains(in, []byte(`\u`)): // half a surrogate pair
			t.Fatalf("%q: %v", in, err)
		}
	})
}

// FuzzHeader holds headers against encoding/json, which takes more, but means the same.
func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		`{"method":"a.b.C"}`, `{"method":"a.b.C","parameters":{"a":1},"more":true}`, `{"method":"a.b.C","oneway":true,"upgrade":null}`,
		`{"parameters":{},"continues":true}`, `{"error":"a.b.C","parameters":null}`, `{"\u006dethod":"a\"b","x.y":{}}`,
		`{"method":"a","Method":"b"}`, `{"continues":false,"error":null}`, `{}`, ` {"error" : "x" } `, `{"method":"a","more":true,"oneway":true}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var all map[string]json.RawMessage
		if c, err := readCall(in); err == nil {
			var want struct {
				Method                string
				Parameters            json.RawMessage
				More, Oneway, Upgrade bool
			}
			if err := errors.Join(json.Unmarshal(in, &want), json.Unmarshal(in, &all)); err != nil {
				t.Fatalf("%q passed: %v", in, err)
			}
			if string(c.method) != want.Method || c.more != want.More || c.oneway != want.Oneway || c.upgrade != want.Upgrade {
				t.Fatalf("%q became %+v", in, c)
			}
			sameObject(t, in, c.parameters, all["parameters"])
		}
		if r, err := readReply(in); err == nil {
			var want struct {
				Parameters json.RawMessage
				Continues  bool
				Error      string
			}
			if err := errors.Join(json.Unmarshal(in, &want), json.Unmarshal(in, &all)); err != nil {
				t.Fatalf("%q passed: %v", in, err)
			}
			if string(r.error) != want.Error || r.continues != want.Continues {
				t.Fatalf("%q became %+v", in, r)
			}
			sameObject(t, in, r.parameters, all["parameters"])
		}
	})
}

func sameObject(t *testing.T, in, got, want []byte) {
	t.Helper()
	if string(want) == "null" {
		want = nil
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%q: parameters became %q, not %q", in, got, want)
	}
}

// FuzzFrames cuts a stream in pieces and holds the messages against those of a simple split.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("a\x00bc\x00\x00d"), uint16(1), uint16(10))
	f.Add([]byte("\x00\x00\x00"), uint16(2), uint16(0))
	f.Add(bytes.Repeat([]byte("0123456789abcde\x00"), 3000), uint16(1000), uint16(40000))
	f.Add(append(bytes.Repeat([]byte("x"), 50000), 0, 'y', 0), uint16(17000), uint16(60000))
	f.Add(append(bytes.Repeat([]byte("x"), 20000), 0), uint16(16384), uint16(19999))
	f.Fuzz(func(t *testing.T, in []byte, piece, limit uint16) {
		held := newBudget(int(limit) + 1)
		cut := frames{max: int(limit), share: &share{budget: held}}
		want := bytes.Split(in, []byte{0})
		rest := want[len(want)-1]
		want = want[:len(want)-1]
		position := int64(0)
		for stream := in; ; {
			message, ok, err := cut.next()
			if ok {
				if len(want) == 0 || string(message) != string(want[0]) || len(message) > int(limit) {
					t.Fatalf("got %.100q of %d, want one of %d messages", message, len(message), len(want))
				}
				position += int64(len(message)) + 1
				if cut.handedOut != position {
					t.Fatalf("%d bytes are handed out, not %d", cut.handedOut, position)
				}
				want = want[1:]
				if len(message)%3 == 0 {
					cut.rest()
					cut.settle()
				}
				continue
			}
			if err != nil {
				next := rest
				if len(want) > 0 {
					next = want[0]
				}
				if len(next) <= int(limit) {
					t.Fatalf("a message of %d bytes: %v", len(next), err)
				}
				break
			}
			if len(stream) == 0 {
				if len(want) > 0 || cut.begun() != (len(rest) > 0) || cut.position() != int64(len(in)) {
					t.Fatalf("%d messages are left, begun is %v, position %d", len(want), cut.begun(), cut.position())
				}
				break
			}
			room, err := cut.room()
			if err != nil || len(room) == 0 {
				t.Fatalf("%d bytes of room, %v", len(room), err)
			}
			n := copy(room[:min(len(room), int(piece)+1)], stream)
			stream = stream[n:]
			cut.received(n)
			if len(cut.buffer) > max(smallBuffer, 2*(cut.end-cut.start)+int(piece)+1, int(limit)+1) || len(cut.buffer) > max(smallBuffer, int(limit)+1) {
				t.Fatalf("a buffer of %d for %d bytes", len(cut.buffer), cut.end-cut.start)
			}
			if n := held.taken(); len(cut.buffer) > smallBuffer && n != len(cut.buffer) {
				t.Fatalf("%d are reserved for a buffer of %d", n, len(cut.buffer))
			}
		}
		cut.close()
		if n := held.taken(); n != 0 {
			t.Fatalf("%d are still reserved", n)
		}
	})
}

// fuzzed has all kinds of fields.
type fuzzed struct {
	Name   string              `json:"name"`
	Use    string              `json:"use"`
	N      int64               `json:"n"`
	F      float64             `json:"f"`
	B      bool                `json:"b"`
	Maybe  *string             `json:"maybe,omitempty"`
	List   []string            `json:"list"`
	Map    map[string]string   `json:"map"`
	Lists  map[string][]fuzzed `json:"lists"`
	Inner  *fuzzed             `json:"inner"`
	Raw    json.RawMessage     `json:"raw"`
	Any    any                 `json:"any"`
	Number *float64            `json:"number"`
}

// FuzzDecode holds Decode against encoding/json: what it takes, encoding/json takes too, with the same
// meaning unless a key is there in another case, and nothing is missing in it.
func FuzzDecode(f *testing.F) {
	const good = `"name":"a","use":"idle","n":1,"f":1.5,"b":true,"list":[],"map":{},"lists":{},"raw":{},"any":1`
	for _, seed := range []string{
		`{` + good + `}`, `{` + good + `,"inner":{` + good + `},"maybe":null,"number":1e5}`, `{"name":null}`, `{}`, `null`, ``,
		`{"Name":"b",` + good + `}`, `{` + good + `,"name":"b"}`, `{` + good + `,"lists":{"x":[{` + good + `}]}}`, `{"lists":{"a":[{}]}}`,
		`{ "name" : "a" , "unknown" : [ { } ] , ` + good + `}`, `{"\u006eame":"\u00e9","use":"","n":-9223372036854775808,"f":-0,"b":false,"list":["a"],"map":{"a":"","\u0062 ":"c"},"lists":{},"raw":[1],"any":{}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var got fuzzed
		if err := Decode(in, &got); err != nil {
			return
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(in, &all); err != nil {
			t.Fatalf("%q passed: %v", in, err)
		}
		for _, name := range []string{"name", "use", "n", "f", "b", "list", "map", "lists", "raw", "any"} {
			if v, ok := all[name]; !ok || string(v) == "null" {
				t.Fatalf("%q passed without %s", in, name)
			}
		}
		if got.List == nil || got.Map == nil || got.Lists == nil {
			t.Fatalf("%q became %+v", in, got)
		}
		known := map[string]json.RawMessage{}
		for i := range reflect.TypeFor[fuzzed]().NumField() {
			name, _, _ := strings.Cut(reflect.TypeFor[fuzzed]().Field(i).Tag.Get("json"), ",")
			if v, ok := all[name]; ok {
				known[name] = v
			}
		}
		if strings.Contains(string(in), "inner") || strings.Contains(string(in), "lists") {
			return // whose fields would have to be picked, too
		}
		b, err := json.Marshal(known)
		if err != nil {
			t.Fatal(err)
		}
		var want fuzzed
		if err := json.Unmarshal(b, &want); err != nil || !reflect.DeepEqual(got.withoutRaw(), want.withoutRaw()) {
			t.Fatalf("%q became %+v, not %+v (%v)", in, got, want, err)
		}
	})
}

// withoutRaw leaves out what keeps its spaces.
func (f fuzzed) withoutRaw() fuzzed {
	f.Raw = nil
	return f
}

// FuzzRequest: whatever comes, the library gets nothing but a good call of the method, or there is an
// answer, or an error.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"method":"org.example.Test.Ping","parameters":{"text":"a"}}`, `{"method":"org.example.Test.Store","parameters":{"item":{"name":"n","tags":["a"],"notes":{"a":"b"},"kind":"big","size":1}}}`,
		`{"method":"org.example.Test.Count","parameters":{"to":1,"size":null},"more":true}`, `{"method":"org.varlink.service.GetInterfaceDescription","parameters":{"interface":"x"}}`,
		`{"method":"x.y","parameters":{}}`, `{"method":"org.example.Test.Store","parameters":{"raw":{"a":[]}}}`, `{"method":"org.example.Test.Ping","oneway":true}`,
	} {
		f.Add([]byte(seed))
	}
	s, err := NewServer(ServerOptions{}, newTestService())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := readCall(in)
		if err != nil {
			return
		}
		m, answer, err := s.find(c.method)
		if err != nil {
			t.Fatal(err)
		}
		var request []byte
		if m != nil {
			request, answer, err = m.request(c)
		}
		switch {
		case err != nil && (request != nil || answer != nil), err == nil && (request == nil) == (answer == nil):
			t.Fatalf("%q: request %q, answer %q, error %v", in, request, answer, err)
		case answer != nil:
			if _, err := readReply(bytes.TrimSuffix(answer, []byte{0})); err != nil {
				t.Fatalf("%q is answered with %q: %v", in, answer, err)
			}
		case request != nil:
			again, err := readCall(request)
			if err != nil || !bytes.Equal(again.method, c.method) || again.more != c.more || again.oneway != c.oneway || again.parameters == nil {
				t.Fatalf("%q became %q: %v", in, request, err)
			}
			if _, err := check(nil, again.parameters, m.in, false); err != nil {
				t.Fatalf("%q became %q: %v", in, request, err)
			}
		}
	})
}

func TestMend(t *testing.T) {
	d, err := parse(testDescription)
	if err != nil {
		t.Fatal(err)
	}
	out := (&method{out: d.methods[2].out}).out
	for in, want := range map[string]string{
		`{"tags":null,"notes":null,"items":null,"raw":null,"none":null}`:                      `{"tags":[],"notes":{},"items":[],"raw":{},"none":null}`,
		`{"tags":["null",null],"notes":{"a":null},"none":[null]}`:                             `{"tags":["null",null],"notes":{"a":null},"none":[null]}`,
		`{"items":[{"tags":null,"inner":{"notes":null,"inner":null}},null],"other":[null,1]}`: `{"items":[{"tags":[],"inner":{"notes":{},"inner":null}},null],"other":[null,1]}`,
		`{ "tags" : null , "raw" : { "a" : null } }`:                                          `{"tags" :[],"raw" :{ "a" : null }}`,
		`{"tags":{"x":null},"notes":[null],"items":"null"}`:                                   `{"tags":{"x":null},"notes":[null],"items":"null"}`,
	} {
		got, err := mend([]byte(in), out)
		if err != nil || string(got) != want {
			t.Errorf("%s\ngot  %s, %v\nwant %s", in, got, err, want)
		}
	}
	if _, err := mend([]byte(`{"tags":nul`), out); err == nil {
		t.Error("half an object: no error")
	}
}

// Keys and fields are told apart however many there are.
func TestKeysAndFields(t *testing.T) {
	var k keys
	var f fieldSet
	for round := range 2 {
		for i := range 100 {
			if k.add([]byte{byte(i)}) != (round == 0) || f.add(i) != (round == 0) {
				t.Fatalf("round %d, %d", round, i)
			}
		}
	}
}
