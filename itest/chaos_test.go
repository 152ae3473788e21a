package itest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// badPlugin is a plugin that answers in any way that a test likes, byte by byte.
type badPlugin struct {
	listener net.Listener
	// answer writes what the plugin says to one call.
	answer func(c net.Conn, method string, parameters object)

	mu    sync.Mutex
	conns []net.Conn
	wait  sync.WaitGroup
}

func serveBadly(t *testing.T, socket string, answer func(c net.Conn, method string, parameters object)) *badPlugin {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	p := &badPlugin{listener: l, answer: answer}
	p.wait.Go(p.accept)
	t.Cleanup(p.die)
	return p
}

func (p *badPlugin) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns = append(p.conns, c)
		p.mu.Unlock()
		p.wait.Go(func() { p.converse(c) })
	}
}

func (p *badPlugin) converse(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	for {
		message, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var call struct {
			Method     string `json:"method"`
			Parameters object `json:"parameters"`
		}
		if json.Unmarshal(message[:len(message)-1], &call) != nil {
			return
		}
		p.answer(c, strings.TrimPrefix(call.Method, "io.unmoor.Plugin."), call.Parameters)
	}
}

// die closes the socket and every connection, as the end of a process does.
func (p *badPlugin) die() {
	p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wait.Wait()
}

// say writes one message; a reader that has gone is no concern of a bad plugin's.
func say(c net.Conn, text string) { _, _ = c.Write(append([]byte(text), 0)) }

const chaosDescription = `{"parameters":{"name":"chaos","engine":"Chaos","protocolVersions":[1],"capabilities":["stop","remove"],` +
	`"claimHints":[{"file":"chaos"}],"ready":true}%s}`

// describes answers Describe as a good plugin does, and anything else as told.
func describes(then func(c net.Conn, method string, parameters object)) func(net.Conn, string, object) {
	return func(c net.Conn, method string, parameters object) {
		if method != "Describe" {
			then(c, method, parameters)
			return
		}
		// The stream of a call with more stays open: continues, and nothing follows. A call without it gets
		// this as a surprise, so it is told apart by the first reply alone where the daemon asks plainly.
		say(c, fmt.Sprintf(chaosDescription, ""))
	}
}

// reports answers Claim with this report about each container that has the mark, and not_mine about the rest.
func reports(mine string) func(parameters object) string {
	return func(parameters object) string {
		var all []string
		containers, _ := parameters["containers"].([]any)
		for _, c := range containers {
			c := c.(object)
			report := `{"id":%q,"ownership":"not_mine","evidence":[]}`
			if _, err := os.Stat(c["directory"].(string) + "/chaos"); err == nil {
				report = mine
			}
			all = append(all, fmt.Sprintf(report, c["id"]))
		}
		return `{"parameters":{"reports":[` + strings.Join(all, ",") + `]}}`
	}
}

const running = `{"id":%q,"ownership":"mine","state":"running","use":"in_use","displayName":"chaotic","evidence":[]}`

// TestPluginChaos has the daemon live with plugins that break every rule: the container is kept, the message
// says who is to blame, and other engines' containers can be removed all the same.
func TestPluginChaos(t *testing.T) {
	claim := reports(running)
	claims := func(text string) func(net.Conn, string, object) {
		return describes(func(c net.Conn, _ string, _ object) { say(c, text) })
	}
	stops := func(stop func(c net.Conn, parameters object)) func(net.Conn, string, object) {
		return describes(func(c net.Conn, method string, parameters object) {
			if method == "Claim" {
				say(c, claim(parameters))
				return
			}
			stop(c, parameters)
		})
	}
	misbehaviours := map[string]func(c net.Conn, method string, parameters object){
		"never answers":           describes(func(net.Conn, string, object) {}),
		"sends null":              claims("null"),
		"sends an array":          claims("[]"),
		"sends no JSON":           claims("{"),
		"no parameters":           claims("{}"),
		"null parameters":         claims(`{"parameters":null}`),
		"null reports":            claims(`{"parameters":{"reports":null}}`),
		"no reports":              claims(`{"parameters":{"reports":[]}}`),
		"an error without a name": claims(`{"error":""}`),
		"an error of its own":     claims(`{"error":"org.chaos.Error","parameters":7}`),
		"its engine is down":      claims(`{"error":"io.unmoor.Plugin.EngineUnavailable","parameters":{"reason":"the engine sleeps"}}`),
		"about other ids": describes(func(c net.Conn, _ string, parameters object) {
			say(c, strings.ReplaceAll(claim(parameters), `{"id":"`, `{"id":"0`))
		}),
		"twice each": describes(func(c net.Conn, _ string, parameters object) {
			text := claim(parameters)
			inner := strings.TrimSuffix(strings.TrimPrefix(text, `{"parameters":{"reports":[`), `]}}`)
			say(c, `{"parameters":{"reports":[`+inner+","+inner+`]}}`)
		}),
		"an unknown word": describes(func(c net.Conn, _ string, parameters object) {
			say(c, strings.ReplaceAll(claim(parameters), "not_mine", "nobodys"))
		}),
		"mine without state": describes(func(c net.Conn, _ string, parameters object) {
			say(c, reports(`{"id":%q,"ownership":"mine","evidence":[]}`)(parameters))
		}),
		"closes half-way": describes(func(c net.Conn, _ string, parameters object) {
			text := claim(parameters)
			_, _ = c.Write([]byte(text[:len(text)/2]))
			c.Close()
		}),
		"continues for ever": describes(func(c net.Conn, _ string, parameters object) {
			for range 100_000 {
				if _, err := c.Write(append([]byte(strings.TrimSuffix(claim(parameters), "}")+`,"continues":true}`), 0)); err != nil {
					return
				}
			}
		}),
		"sends 1 GiB": describes(func(c net.Conn, _ string, _ object) {
			chunk := []byte(strings.Repeat(" ", 1<<20))
			for range 1024 {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}),
		"another name": func(c net.Conn, _ string, _ object) {
			say(c, strings.Replace(fmt.Sprintf(chaosDescription, ""), `"chaos"`, `"podman"`, 1))
		},
		"another version": func(c net.Conn, _ string, _ object) {
			say(c, strings.Replace(fmt.Sprintf(chaosDescription, ""), `[1]`, `[2]`, 1))
		},
		"describes null": func(c net.Conn, _ string, _ object) { say(c, `{"parameters":null}`) },
		"closes at once": func(c net.Conn, _ string, _ object) { c.Close() },
		"dies within Stop": stops(func(c net.Conn, _ object) {
			c.Close()
		}),
		"stops nothing and says so": stops(func(c net.Conn, _ object) { say(c, `{"parameters":{"outcomes":[]}}`) }),
		"stops others": stops(func(c net.Conn, _ object) {
			say(c, `{"parameters":{"outcomes":[{"id":"`+strings.Repeat("a", 64)+`"}]}}`)
		}),
		"lies about a stop": nil, // below: it needs a process in the container
	}
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		for name, answer := range misbehaviours {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newScenario(t, s.gen, s.driver)
				target := s.importImage("image", image)
				s.importImage("bystander", bystander)
				other := s.podman("create", "--name", "p-created", bystander, "true")
				id := s.unknown("u-chaos", image)
				mark := "root/overlay-containers/" + id + "/userdata"
				if err := os.MkdirAll(s.path(mark), 0o700); err != nil {
					t.Fatal(err)
				}
				s.write(mark+"/chaos", "")
				said := []string{"chaos"}
				if name == "lies about a stop" {
					s.shell("sleep", `exec chroot "$1" sleep 1010`, s.mountUnknown(id))
					said = nil // it is the kernel that keeps it
					answer = stops(func(c net.Conn, _ object) { say(c, fmt.Sprintf(`{"parameters":{"outcomes":[{"id":%q}]}}`, id)) })
				}
				s.write("service.toml", s.serviceSections()+fmt.Sprintf(
					"[plugin.chaos]\naddress = \"unix:%s\"\nclaim_timeout = \"2s\"\n", s.path("chaos.sock")))
				p := serveBadly(t, s.path("chaos.sock"), answer)
				d := s.serve()

				began := time.Now()
				r := s.through(d, "rmi", "--force=stop", "--time", "1", image)
				if r.code != 2 && r.code != 125 {
					t.Errorf("want exit 2 or 125: %v", r)
				}
				r.wantSaid(t, append(said, id[:12])...)
				if took := time.Since(began); took > 45*time.Second {
					t.Errorf("took %v", took)
				}
				if !s.hasContainer(id) || !s.hasImage(target) {
					t.Errorf("gone after %v", r)
				}
				// (An image goes once it is known that no container mounts it as a volume: that takes the plugin.)
				s.through(d, "rm", "p-created").wantCode(t, 0)
				if s.hasContainer(other) {
					t.Error("the other engine's container is still there")
				}
				if resident := status(t, d.background.pid, "VmHWM:"); resident > 200<<10 {
					t.Errorf("%d KiB resident", resident)
				}
				p.die()
				s.through(d, "ps").wantCode(t, 0).wantSaid(t, "u-chaos")
				d.stop()
			})
		}
	})
}

// through runs the binary under test as a client of the daemon.
func (s *scenario) through(d *service, args ...string) result {
	s.t.Helper()
	return s.do(s.gen.command(s.environment(), unmoorBinary, append([]string{"--url", "unix:" + d.socket}, args...)...))
}
