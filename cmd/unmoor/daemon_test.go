package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/config"
	"github.com/unmoor/unmoor/internal/daemon"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/wire"
)

// somePlugins are those of a double of the registry.
var somePlugins = []service.Plugin{
	{Name: "podman", Source: "builtin", WhenUnavailable: "block", Status: "ready", EngineVersion: "5.4.2", ProtocolVersion: 1,
		Capabilities: []string{"stop", "remove"}, LastSeen: epoch},
	{Name: "lxc", Address: "unix:/run/unmoor/plugins/lxc.sock", Source: "directory", WhenUnavailable: "ignore", Status: "unreachable",
		Capabilities: []string{}, LastError: "it did not\nanswer", Advice: "see what it does"},
}

// pluginDouble is a daemon's registry.
type pluginDouble struct{}

func (pluginDouble) Plugins() []service.Plugin { return somePlugins }

func (pluginDouble) Register(_ context.Context, address string) (service.Plugin, error) {
	if address == "unix:/bad" {
		return service.Plugin{}, errBoom
	}
	return service.Plugin{Name: "new", Address: address, Source: "registered", WhenUnavailable: "block", Status: "ready"}, nil
}

func (pluginDouble) Unregister(name string) error {
	if name != "new" {
		return daemon.ErrPluginUnknown
	}
	return nil
}

// serve has a daemon serve the fake, and returns its socket.
func (f *fake) serve(t *testing.T, protection core.Protection) string {
	t.Helper()
	engine := &core.Engine{Store: f, Owners: f, Kernel: f, Protection: protection}
	access, err := daemon.NewAccess(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := daemon.New(&daemon.Setup{
		Service: &service.Local{Engine: engine, Doctor: &core.Doctor{Engine: engine, Store: f, Owners: f, Kernel: f}, Builder: f, Loader: f,
			Cleaning: cleaning(config.Default().Prune)},
		Plugins: pluginDouble{}, Access: access,
	}, daemon.Options{})
	server, err := wire.NewServer(wire.ServerOptions{Vendor: "Unmoor", Product: "Unmoor", Version: "1.2.3", TakesFiles: daemon.TakesFiles}, d.Interface())
	if err != nil {
		t.Fatal(err)
	}
	f.server = server
	socket := filepath.Join(t.TempDir(), "socket")
	listener, err := wire.Listen(socket, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return socket
}

// ways runs a test on command lines in this process, and once more through a daemon.
func ways(t *testing.T, name string, test func(t *testing.T, on func(*fake) caller)) {
	t.Run(name+"/here", func(t *testing.T) { test(t, func(f *fake) caller { return caller{fake: f} }) })
	t.Run(name+"/daemon", func(t *testing.T) {
		test(t, func(f *fake) caller { return caller{fake: f, socket: f.serve(t, core.Protection{})} })
	})
}

// The lines that repeat the program name the daemon.
func TestHintsNameTheDaemon(t *testing.T) {
	f := single()
	url := "unix:" + f.serve(t, core.Protection{})
	got := f.call(t, "--url", url, "why", "web:1")
	if want := "To remove it with all of this: unmoor --url " + url + " rmi --force web:1\n"; got.code != 0 || !strings.HasSuffix(got.stdout, want) {
		t.Errorf("%+v", got)
	}
	got = f.call(t, "--local", "rmi", "nope")
	if want := "Error: no such image nope: unmoor --local images lists what there is\n"; got.stderr != want {
		t.Errorf("%+v", got)
	}
}

func TestVersionOfDaemon(t *testing.T) {
	f := single()
	socket := f.serve(t, core.Protection{})
	if got := (caller{fake: f, socket: socket}).call(t, "version"); got.code != 0 || got.stdout != "unmoor unknown\ndaemon 1.2.3 at unix:"+socket+"\n" {
		t.Errorf("%+v", got)
	}
	if got := f.call(t, "version"); got.code != 0 || got.stdout != "unmoor unknown\n" {
		t.Errorf("%+v", got)
	}
}

func TestOffers(t *testing.T) {
	ways(t, "", func(t *testing.T, on func(*fake) caller) {
		caller := on(mixed())
		for args, want := range map[string]string{
			"rmi w":         "web:1\n:4\n",
			"rmi localhost": "localhost/other:2\nlocalhost/other:latest\nlocalhost/web:1\n:4\n",
			"rm m":          "mystery\n:4\n",
			"why o":         "old\nother:2\nother:latest\n:4\n",
			"why old o":     "other:2\nother:latest\n:4\n",
		} {
			if got := caller.call(t, append([]string{"__complete"}, strings.Fields(args)...)...); got.stdout != want {
				t.Errorf("%s: %+v", args, got)
			}
		}
	})
	silent := caller{socket: double(t, "GetInfo"), dialing: client.Options{Patience: 50 * time.Millisecond}}
	if got := silent.call(t, "__complete", "rmi", "w"); got.stdout != ":4\n" {
		t.Errorf("a daemon that hangs: %+v", got)
	}
}

func TestPlugins(t *testing.T) {
	ways(t, "", func(t *testing.T, on func(*fake) caller) {
		caller := on(newFake())
		got := caller.call(t, "plugins")
		const table = `NAME        VERSION     STATUS       SOURCE      ADDRESS
podman      5.4.2       ready        builtin     -
lxc         -           unreachable  directory   unix:/run/unmoor/plugins/lxc.sock
`
		if got.stdout != table || got.stderr != "Note: lxc: it did not answer: see what it does\n" || got.code != 0 {
			t.Errorf("%+v", got)
		}
		if got := caller.call(t, "plugins", "-q"); got.stdout != "podman\nlxc\n" || got.stderr != "" {
			t.Errorf("%+v", got)
		}
		if got := caller.call(t, "plugins", "--format", "{{.Name}} {{.WhenUnavailable}} {{.Capabilities}}"); got.stdout != "podman block stop,remove\nlxc ignore \n" {
			t.Errorf("%+v", got)
		}
		var read []service.Plugin
		if got := caller.call(t, "plugins", "--format", "json"); json.Unmarshal([]byte(got.stdout), &read) != nil || len(read) != 2 ||
			!read[0].LastSeen.Equal(epoch) || read[1].LastError != "it did not\nanswer" || !strings.Contains(got.stdout, `"capabilities": []`) {
			t.Errorf("%+v", got)
		}
	})
	f := newFake()
	caller := caller{fake: f, socket: f.serve(t, core.Protection{})}
	for _, tt := range []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"plugins register unix:/run/new.sock", 0, "Registered: plugin new at unix:/run/new.sock (ready)\n", ""},
		{"plugins register unix:/bad", 125, "", "Error: the plugin at unix:/bad cannot be registered: the engine said\n       no\n"},
		{"plugins unregister new", 0, "Unregistered: plugin new\n", ""},
		{"plugins unregister other", 125, "", "Error: no plugin is called other\n"},
	} {
		if got := caller.call(t, strings.Fields(tt.args)...); got != (call{tt.stdout, tt.stderr, tt.code}) {
			t.Errorf("%s: %+v", tt.args, got)
		}
	}
}

func TestEvents(t *testing.T) {
	f := mixed()
	caller := caller{fake: f, socket: f.serve(t, core.Protection{})}
	if got := caller.call(t, "events", "--stream=false"); got != (call{}) {
		t.Errorf("nothing has happened: %+v", got)
	}
	if got := caller.call(t, "rm", "old"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	got := caller.call(t, "events", "--stream=false")
	old := id("93bc")
	want := `^\S+ \S+ \+0000 UTC action_started container ` + old + ` \(verb=remove, name=old, owner=podman, operation=\w+, uid=\d+, pid=\d+\)
\S+ \S+ \+0000 UTC action_finished container ` + old + ` \(.*
\S+ \S+ \+0000 UTC container_removed container ` + old + ` \(.*\)\n$`
	if got.code != 0 || !regexp.MustCompile(want).MatchString(got.stdout) {
		t.Errorf("%+v", got)
	}
	got = caller.call(t, "events", "--stream=false", "--format", "json")
	var sequences []int64
	for line := range strings.Lines(got.stdout) {
		var e service.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || string(e.Action.Container) != old {
			t.Errorf("%s: %v", line, err)
		}
		sequences = append(sequences, e.Sequence)
	}
	if len(sequences) != 3 {
		t.Fatalf("%+v", got)
	}
	got = caller.call(t, "events", "--stream=false", "--since", fmt.Sprint(sequences[1]), "--format", "{{.Sequence}} {{.Type}} {{.Object}} {{.Name}}")
	if got.stdout != fmt.Sprintf("%d container_removed container old\n", sequences[2]) {
		t.Errorf("%+v", got)
	}
	if got := caller.call(t, "events", "--since", fmt.Sprint(sequences[2]+9)); got.code != 125 || !strings.Contains(got.stderr, "no longer kept") || !strings.Contains(got.stderr, "--since ") {
		t.Errorf("what is yet to come: %+v", got)
	}
}

// screen is an output that another goroutine reads.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// Events are printed as they come, until an interrupt, which is no error.
func TestEventsFollow(t *testing.T) {
	f := mixed()
	caller := caller{fake: f, socket: f.serve(t, core.Protection{})}
	var stdout, stderr screen
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	watching := caller.app(t, &stdout, &stderr)
	go func() { ended <- watching.run(ctx, []string{"events", "--since", "0"}) }()
	if got := caller.call(t, "rm", "old"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	eventually(t, "the removal is told", func() bool { return strings.Contains(stdout.String(), "container_removed") })
	cancel()
	if code := <-ended; code != 0 || stderr.String() != "" {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

// An interrupt leaves the daemon to end what it is doing, and says so.
func TestInterruptThroughDaemon(t *testing.T) {
	f := single()
	stopping, release := make(chan struct{}), make(chan struct{})
	f.stopping = func() { close(stopping); <-release }
	caller := caller{fake: f, socket: f.serve(t, core.Protection{})}
	var stdout, stderr screen
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	removing := caller.app(t, &stdout, &stderr)
	go func() { ended <- removing.run(ctx, []string{"rm", "--force", "web"}) }()
	<-stopping
	cancel()
	code := <-ended
	// Whether it has heard of the stop yet is a matter of chance.
	want := regexp.MustCompile("^Error: interrupted: the daemon at unix:" + caller.socket +
		` ends it after this: (stop container web \(91bc00000000\) by podman|what it is doing); the same command goes on from there\n$`)
	if code != 125 || !want.MatchString(stderr.String()) || stdout.String() != "" {
		t.Errorf("exit %d: %s%s", code, &stdout, &stderr)
	}
	eventually(t, "the daemon has noticed", func() bool { return f.server.Connections() == 0 })
	close(release)
	eventually(t, "the daemon has ended it", func() bool {
		return strings.Contains(caller.call(t, "events", "--stream=false").stdout, "action_failed")
	})
	if got := caller.call(t, "rm", "web"); got.code != 0 || !strings.Contains(got.stdout, "Removed: container web") {
		t.Errorf("once more, without force since it is stopped: %+v", got)
	}
}

// double is a daemon that answers a method with some messages, and hangs up; it is silent on the method
// alone. It returns its socket.
func double(t *testing.T, method string, messages ...string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "double")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { conn.Close() })
			wg.Go(func() {
				in := bufio.NewReader(conn)
				for {
					call, err := in.ReadString(0)
					if err != nil {
						return
					}
					answers := messages
					asked := strings.Contains(call, "."+method+`"`)
					if !asked {
						answers = []string{`{"parameters":{"vendor":"v","product":"p","version":"1","url":"u","interfaces":["io.unmoor.Removal"]}}`}
					}
					for _, a := range answers {
						if _, err := conn.Write(append([]byte(a), 0)); err != nil {
							return
						}
					}
					if asked && len(messages) > 0 {
						conn.Close()
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); wg.Wait() })
	return socket
}

func TestLostDaemon(t *testing.T) {
	step := func(phase, verb string) string {
		return `{"continues":true,"parameters":{"operationId":"1","progress":{"phase":"` + phase + `","action":{"verb":"` + verb +
			`","container":"` + id("91bc") + `","name":"web","owner":"podman"}}}}`
	}
	lost := caller{socket: double(t, "Remove", step("started", "stop"), step("finished", "stop"), step("started", "remove"))}
	got := lost.call(t, "rm", "--force", "web")
	if got.code != 125 || got.stdout != "Stopped: container web (91bc00000000) by podman\n" ||
		!strings.HasPrefix(got.stderr, "Error: the daemon at unix:"+lost.socket+" was lost in the middle of it (") ||
		!strings.HasSuffix(got.stderr, "), and whether this is done is not known: remove container web (91bc00000000) by podman; the same command goes on from there\n") {
		t.Errorf("%+v", got)
	}
	lost = caller{socket: double(t, "Remove", step("started", "remove"), step("finished", "remove"))}
	if got := lost.call(t, "rm", "-q", "web"); got.code != 125 || got.stdout != id("91bc")+"\n" {
		t.Errorf("%+v", got)
	}
	if got := lost.call(t, "rm", "--format", "json", "web"); got.code != 125 || got.stdout != "" {
		t.Errorf("%+v", got)
	}
}

func TestSilentDaemon(t *testing.T) {
	silent := caller{socket: double(t, "GetInfo"), dialing: client.Options{Patience: 50 * time.Millisecond}}
	got := silent.call(t, "ps")
	if got.code != 125 || got.stderr != "Error: the daemon at unix:"+silent.socket+" did not answer within 50ms: see what it does (journalctl -u unmoor), or go on without it by --local\n" {
		t.Errorf("%+v", got)
	}
	if got := silent.call(t, "--url", "unix:"+silent.socket, "ps"); got.code != 125 || strings.Contains(got.stderr, "--local") {
		t.Errorf("%+v", got)
	}
	// A socket on which nobody listens is no daemon.
	absent := caller{socket: filepath.Join(t.TempDir(), "none")}
	if address := absent.socket; absent.call(t, "--url", "unix:"+address, "ps").code != 125 {
		t.Error("a daemon that was named and is not there is no error")
	}
	if got := single().call(t, "--local", "ps", "-q"); got.code != 0 {
		t.Errorf("%+v", got)
	}
}
