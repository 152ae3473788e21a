package itest

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the transcripts that the service gives now")

// clientScene is what the clients look at: two images and an idle container that nobody owns.
func clientScene(s *scenario) {
	s.importImage("image", image)
	s.importImage("bystander", bystander)
	s.unknown("u-plain", image)
}

// TestVarlinkctl drives the whole API through varlinkctl: of 257, and of sid.
func TestVarlinkctl(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		clients := varlinkctls(t)
		for _, name := range slices.Sorted(maps.Keys(clients)) {
			t.Run(name, func(t *testing.T) {
				s := newScenario(t, s.gen, s.driver)
				clientScene(s)
				d := s.serve()
				var b strings.Builder
				run := func(args ...string) {
					r := s.do(s.gen.command(nil, clients[name], append([]string{"--json=short"}, args...)...))
					fmt.Fprintf(&b, "$ varlinkctl %s\n", strings.Join(args, " "))
					for line := range strings.Lines(strings.ReplaceAll(r.stdout, "\x1e", "")) {
						fmt.Fprintf(&b, "    %s", line)
					}
					if r.code != 0 {
						// The words around it differ between versions.
						fmt.Fprintf(&b, "    error %s\n", lastError(r.stderr))
					}
				}
				call := func(method, parameters string, flags ...string) {
					run(append(flags, "call", d.socket, method, parameters)...)
				}
				run("list-interfaces", d.socket)
				if r := s.do(s.gen.command(nil, clients[name], "info", d.socket)); r.code != 0 || !strings.Contains(r.stdout, "Unmoor") {
					t.Errorf("info: %v", r)
				}
				for _, i := range []string{"io.unmoor.Removal", "org.varlink.service"} {
					if r := s.do(s.gen.command(nil, clients[name], "introspect", d.socket, i)); r.code != 0 || !strings.Contains(r.stdout, "interface "+i) {
						t.Errorf("introspect: %v", r)
					}
				}
				call(removal+".GetStore", "{}")
				call(removal+".ListImages", "{}", "--more")
				call(removal+".ListImages", `{"image":"localhost/unmoor/target"}`)
				call(removal+".ListImages", "{}")
				call(removal+".ListContainers", "{}", "--more")
				call(removal+".ListContainers", `{"container":"u-plain","size":true}`)
				call(removal+".ListContainers", `{"container":"nothing"}`)
				call(removal+".Explain", `{"reference":"u-plain"}`)
				call(removal+".Plan", `{"targets":{"images":["localhost/unmoor/target","nothing"]},"force":"idle"}`)
				call(removal+".Plan", `{"targets":{}}`)
				call(removal+".Plan", `{}`)
				call(removal+".RemoveImage", `{"image":"nothing"}`)
				call(removal+".RemoveImage", `{"image":"localhost/unmoor/target"}`)
				call(removal+".RemoveImage", `{"image":"localhost/unmoor/target","force":"sideways"}`)
				call(removal+".RemoveImage", `{"image":7}`)
				call(removal+".RemoveImage", `{"image":"localhost/unmoor/target","revision":"`+strings.Repeat("0", 64)+`"}`)
				call(removal+".RemoveContainer", `{"container":"nothing"}`)
				call(removal+".Examine", "{}")
				call(removal+".Repair", `{"names":["nothing"]}`)
				call(removal+".ListPlugins", "{}")
				call(removal+".RegisterPlugin", `{"address":"unix:/nonexistent/plugin.sock"}`)
				call(removal+".UnregisterPlugin", `{"name":"nothing"}`)
				call(removal+".RemoveImage", `{"image":"localhost/unmoor/target","force":"idle"}`, "--more")
				call(removal+".Remove", `{"targets":{"either":["localhost/unmoor/bystander"]}}`, "--more")
				call(removal+".ListImages", "{}", "--more")
				call(removal+".ListContainers", "{}", "--more")
				call(removal+".Monitor", "{}")
				call(removal+".Nothing", "{}")
				call("io.unmoor.Nothing.Nothing", "{}")
				call("org.varlink.service.GetInterfaceDescription", `{"interface":"io.unmoor.Nothing"}`)
				d.stop()
				wantTranscript(t, "varlinkctl.txt", s.normal(b.String()), name != "varlinkctl")
			})
		}
	})
}

var errorName = regexp.MustCompile(`(?:io\.unmoor|org\.varlink\.service)\.[A-Za-z.]+`)

// lastError is the name of the error that varlinkctl ends with.
func lastError(said string) string {
	names := errorName.FindAllString(said, -1)
	if len(names) == 0 {
		return said
	}
	return names[len(names)-1]
}

// TestPythonVarlink drives the API through python-varlink.
func TestPythonVarlink(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		clientScene(s)
		d := s.serve()
		script, err := filepath.Abs("testdata/client.py")
		if err != nil {
			t.Fatal(err)
		}
		out := s.must(s.do(s.gen.command(pythonVarlink(t), "/usr/bin/python3", script, d.socket)))
		d.stop()
		wantTranscript(t, "python.txt", s.normal(out+"\n"), false)
	})
}

// pythonVarlink is the environment in which python3 finds the second generation's module.
func pythonVarlink(t *testing.T) []string {
	t.Helper()
	cache := os.Getenv("UNMOOR_CACHE")
	if cache == "" {
		cache = "/var/cache/unmoor-itest"
	}
	modules := filepath.Join(cache, "trixie/usr/lib/python3/dist-packages")
	if _, err := os.Stat(filepath.Join(modules, "varlink")); err != nil {
		skip(t, "no python3-varlink: run itest/setup.sh")
	}
	return []string{"PYTHONPATH=" + modules, "PYTHONDONTWRITEBYTECODE=1"}
}

// normal takes out of a transcript what differs from run to run.
func (s *scenario) normal(text string) string {
	text = strings.ReplaceAll(text, s.dir, "DIR")
	for _, r := range []struct{ pattern, with string }{
		{`"(created|time|lastSeen)": ?"[^"]*"`, `"$1":"TIME"`},
		{`"(operationId)": ?"[^"]*"`, `"$1":"OPERATION"`},
		{`"(sequence|oldestSequence|pid)": ?[0-9]+`, `"$1":0`},
		{`"(size|uniqueSize|bytes|reclaimedBytes|reclaimableBytes)": ?[0-9]+`, `"$1":0`},
		{`"engineVersion": ?"[^"]*"`, `"engineVersion":"VERSION"`},
		{`sha256:[0-9a-f]{64}`, "DIGEST"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	// IDs by the order in which they turn up.
	seen := map[string]string{strings.Repeat("0", 64): strings.Repeat("0", 64)}
	text = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllStringFunc(text, func(id string) string {
		if seen[id] == "" {
			seen[id] = fmt.Sprintf("ID%d", len(seen))
		}
		return seen[id]
	})
	for id, name := range seen {
		if id == name {
			continue
		}
		text = strings.ReplaceAll(text, id[:12], name)
	}
	return text
}

// wantTranscript compares with a recorded transcript. A client that is not the recorded one has words of its
// own for the standard errors, and is compared in what it was answered otherwise.
func wantTranscript(t *testing.T, file, got string, other bool) {
	t.Helper()
	path := filepath.Join("testdata", file)
	if *update && !other {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(text)
	if other {
		want, got = answers(want), answers(got)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("another transcript than %s (-update writes it):\n%s", path, diff)
	}
}

// answers are the lines of a transcript without errors and empty replies.
func answers(text string) string {
	return regexp.MustCompile(`(?m)^    (?:error .*|\{\})\n`).ReplaceAllString(text, "")
}
