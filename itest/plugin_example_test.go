package itest

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// skiff is a scenario with containers of Skiff's, the engine that does not exist (examples/), whose plugin is
// one of the examples.
type skiff struct {
	*scenario
	// plugin is how the plugin is run, without the socket.
	plugin []string
	// env is what the plugin needs, which a process that starts it has to have too.
	env    []string
	socket string
	state  struct {
		GraphRoot  string                     `json:"graphRoot"`
		Containers map[string]*skiffContainer `json:"containers"`
	}
}

type skiffContainer struct {
	Name      string `json:"name"`
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
}

// examplePlugins are the examples' commands, by language.
func examplePlugins(t *testing.T, s *scenario) map[string]*skiff {
	t.Helper()
	goPlugin, err := buildExample()
	if err != nil {
		t.Fatal(err)
	}
	python, err := filepath.Abs("../examples/plugin-python/skiff.py")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*skiff{
		"go":     {scenario: s, plugin: []string{goPlugin}},
		"python": {scenario: s, plugin: []string{"/usr/bin/python3", python}, env: pythonVarlink(t)},
	}
}

// buildExample builds the Go example once.
var buildExample = sync.OnceValues(func() (string, error) {
	to := filepath.Join(run, "plugin-go")
	cmd := exec.Command("go", "build", "-trimpath", "-o", to, "./examples/plugin-go")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the example: %w\n%s", err, out)
	}
	return to, nil
})

// withSkiff runs a scene with each of the examples, in a store of its own.
func withSkiff(t *testing.T, scene func(t *testing.T, k *skiff)) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		for language, k := range examplePlugins(t, s) {
			t.Run(language, func(t *testing.T) {
				k.scenario = newScenario(t, s.gen, s.driver)
				k.socket = k.path("skiff.sock")
				k.env = append(k.env, "SKIFF_STATE="+k.path("skiff.json"))
				k.scenario.env = append(k.scenario.env, k.env...)
				k.state.GraphRoot = k.path("root")
				k.state.Containers = map[string]*skiffContainer{}
				scene(t, k)
			})
		}
	})
}

// container makes a container the way that Skiff does: entered in the file, then made in the store.
func (k *skiff) container(name, image string) (id string) {
	k.t.Helper()
	id = fmt.Sprintf("%064x", len(k.state.Containers)+0x5c1ff)
	k.state.Containers[id] = &skiffContainer{Name: name}
	k.save()
	metadata, err := json.Marshal(map[string]string{"skiff": name})
	if err != nil {
		k.t.Fatal(err)
	}
	k.storage("create-container", "--id", id, "--metadata", string(metadata), image)
	return id
}

// run starts a container: a process with the container as its root, in a mount namespace of its own.
func (k *skiff) run(id string) *background {
	k.t.Helper()
	b := k.pivoted(k.mountUnknown(id), "sleep", "1011")
	start, err := strconv.ParseUint(b.startTime, 10, 64)
	if err != nil {
		k.t.Fatal(err)
	}
	c := k.state.Containers[id]
	c.PID, c.StartTime = b.pid, start
	k.save()
	return b
}

func (k *skiff) save() {
	k.t.Helper()
	text, err := json.Marshal(k.state)
	if err != nil {
		k.t.Fatal(err)
	}
	k.write("skiff.json.new", string(text))
	if err := os.Rename(k.path("skiff.json.new"), k.path("skiff.json")); err != nil {
		k.t.Fatal(err)
	}
}

// load is the file as it is now: the IDs that it has.
func (k *skiff) load() map[string]bool {
	k.t.Helper()
	text, err := os.ReadFile(k.path("skiff.json"))
	if err != nil {
		k.t.Fatal(err)
	}
	state := k.state
	state.Containers = nil
	if err := json.Unmarshal(text, &state); err != nil {
		k.t.Fatalf("%v: %s", err, text)
	}
	if state.GraphRoot != k.state.GraphRoot {
		k.t.Errorf("the file is of store %q now", state.GraphRoot)
	}
	ids := map[string]bool{}
	for id := range state.Containers {
		ids[id] = true
	}
	return ids
}

// serve starts the plugin on its socket.
func (k *skiff) serve() *background {
	k.t.Helper()
	b := k.start(k.gen.command(k.env, k.plugin[0], append(k.plugin[1:len(k.plugin):len(k.plugin)], "--socket", k.socket)...))
	eventually(k.t, "the plugin listens", func() bool {
		if b.ended() {
			k.t.Fatalf("the plugin ended: %v\n%s", b.err, b.out.String())
		}
		c, err := net.Dial("unix", k.socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return b
}

// configure names the plugin in config.toml, and has Unmoor read that.
func (k *skiff) configure(key string, value any) {
	k.t.Helper()
	text, err := json.Marshal(value) // TOML's strings and arrays of strings are JSON's
	if err != nil {
		k.t.Fatal(err)
	}
	k.write("unmoor.toml", fmt.Sprintf("[plugins]\ndirectory = %q\nhints = %q\n[audit]\nfile = %q\n[plugin.skiff]\n%s = %s\n",
		k.path("plugins"), k.path("hints"), k.path("audit.log"), key, text))
	k.scenario.env = append(k.scenario.env, "UNMOOR_CONFIG="+k.path("unmoor.toml"))
}

// TestExamplePlugin removes an image on which containers of an engine stand that Unmoor knows through one of
// the examples alone.
func TestExamplePlugin(t *testing.T) {
	withSkiff(t, func(t *testing.T, k *skiff) {
		k.configure("address", "unix:"+k.socket)
		target := k.importImage("image", image)
		stays := k.importImage("bystander", bystander)
		web, idle, other := k.container("web", image), k.container("old", image), k.container("beside", bystander)
		inWeb, beside := k.run(web), k.run(other)
		plugin := k.serve()

		k.unmoor("ps").wantCode(t, 0).wantSaid(t, "web", "skiff", "running", "in_use")
		k.unmoor("rmi", image).wantCode(t, 2).wantSaid(t, "web", web[:12], "skiff", fmt.Sprint(inWeb.pid))
		k.unmoor("rmi", "--force=idle", image).wantCode(t, 2).wantSaid(t, "web", "skiff")
		wantAlive(t, inWeb.process, beside.process)
		k.unmoor("rmi", "-f", "--time", "1", image).wantCode(t, 0).wantSaid(t, "Stopped: container web", "by skiff", "Removed: container old")
		wantGone(t, []process{inWeb.process})
		if k.hasImage(target) || k.hasContainer(web) || k.hasContainer(idle) {
			t.Error("something of it is left")
		}
		if left := k.load(); len(left) != 1 || !left[other] {
			t.Errorf("Skiff's file has %v", left)
		}
		wantAlive(t, beside.process)

		// Down, the plugin keeps what looks like Skiff's, and the images, any of which that may mount.
		free := k.unknown("u-free", bystander)
		plugin.kill()
		eventually(t, "the plugin is gone", plugin.ended)
		r := k.unmoor("rmi", "-f", bystander).wantCode(t, 2).wantSaid(t, other[:12], "skiff")
		if !k.hasContainer(other) || !k.hasImage(stays) {
			t.Errorf("gone after %v", r)
		}
		wantAlive(t, beside.process)
		k.unmoor("rm", "u-free").wantCode(t, 0)
		if k.hasContainer(free) {
			t.Error("a container that is not Skiff's concern is kept")
		}
		k.serve()
		k.unmoor("rmi", "-f", "--time", "0", bystander).wantCode(t, 0)
		wantGone(t, []process{beside.process})
		if left := k.load(); len(left) > 0 {
			t.Errorf("Skiff's file has %v", left)
		}
	})
}

// TestExamplePluginCommand has Unmoor start the plugin itself.
func TestExamplePluginCommand(t *testing.T) {
	withSkiff(t, func(t *testing.T, k *skiff) {
		k.configure("command", k.plugin)
		target := k.importImage("image", image)
		web := k.container("web", image)
		inWeb := k.run(web)
		k.unmoor("rmi", image).wantCode(t, 2).wantSaid(t, "web", "skiff")
		k.unmoor("rmi", "-f", "--time", "1", image).wantCode(t, 0).wantSaid(t, "Stopped: container web", "by skiff")
		wantGone(t, []process{inWeb.process})
		if left := k.load(); k.hasImage(target) || len(left) > 0 {
			t.Errorf("left: image %v, in Skiff's file %v", k.hasImage(target), left)
		}
		// What was started for these commands has ended with them.
		for _, p := range processesBelow(k.dir) {
			if strings.Contains(p.command, k.plugin[len(k.plugin)-1]) {
				t.Errorf("left behind: %v %s", p, p.command)
			}
		}
	})
}

// TestExamplePluginCheck has the conformance suite judge the examples, served and started, with a container that
// runs.
func TestExamplePluginCheck(t *testing.T) {
	withSkiff(t, func(t *testing.T, k *skiff) {
		k.importImage("image", image)
		check := func(words ...string) {
			t.Helper()
			web := k.container("web", image)
			inWeb := k.run(web)
			r := k.unmoor(append([]string{"plugin", "check", "--container", web}, words...)...).wantCode(t, 0).wantSaid(t, " 0 fail")
			if strings.Contains(r.stdout, "skip  container-") {
				t.Errorf("not all was tried: %v", r)
			}
			wantGone(t, []process{inWeb.process})
			if left := k.load(); left[web] {
				t.Errorf("Skiff's file has %v", left)
			}
		}
		check(k.plugin...)
		k.serve()
		check("unix:" + k.socket)
	})
}

// TestPluginGuide makes what docs/plugin-guide.md makes, as an author elsewhere would, and has it judged.
func TestPluginGuide(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		guide, err := os.ReadFile("../docs/plugin-guide.md")
		if err != nil {
			t.Fatal(err)
		}
		repository, err := filepath.Abs("..")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(s.path("raft"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"raft.go", "raft.py"} {
			_, text, ok := strings.Cut(string(guide), "<!-- test: "+name+" -->\n```")
			_, text, _ = strings.Cut(text, "\n")
			text, _, closed := strings.Cut(text, "\n```")
			if !ok || !closed {
				t.Fatalf("the guide has no %s", name)
			}
			s.write("raft/"+name, text+"\n")
		}
		sums, err := os.ReadFile("../go.sum")
		if err != nil {
			t.Fatal(err)
		}
		s.write("raft/go.sum", string(sums))
		s.write("raft/go.mod", "module example.com/raft\n\ngo 1.26\n\nrequire github.com/unmoor/unmoor v0.0.0\n\n"+
			"replace github.com/unmoor/unmoor => "+repository+"\n")
		build := exec.Command("go", "build", "-mod=mod", "-o", "raft", ".")
		build.Dir = s.path("raft")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", build, err, out)
		}
		for _, from := range []string{"examples/plugin-python/unmoor_plugin.py", "varlink/io.unmoor.Plugin.varlink"} {
			text, err := os.ReadFile(filepath.Join(repository, from))
			if err != nil {
				t.Fatal(err)
			}
			s.write("raft/"+filepath.Base(from), string(text))
		}
		for _, command := range [][]string{{s.path("raft/raft")}, {"/usr/bin/python3", s.path("raft/raft.py")}} {
			args := append([]string{"plugin", "check"}, command...)
			s.do(s.gen.command(pythonVarlink(t), unmoorBinary, args...)).wantCode(t, 0).wantSaid(t, "plugin raft (Raft)", " 0 fail")
		}
	})
}
