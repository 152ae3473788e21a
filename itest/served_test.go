package itest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// servePlugins has engines that are built in run as plugins in processes of their own, and unmoor ask those.
func (s *scenario) servePlugins(engines ...string) map[string]*background {
	s.t.Helper()
	dir := s.t.TempDir() // outside of the scenario, whose processes are counted
	served := make(map[string]*background)
	config := ""
	for _, name := range engines {
		socket := filepath.Join(dir, name+".sock")
		served[name] = s.start(s.gen.command(s.environment(), unmoorBinary, "plugin", "serve", "--socket", socket, name))
		eventually(s.t, "the plugin listens", func() bool {
			if served[name].ended() {
				s.t.Fatalf("the plugin %s has ended: %s", name, served[name].out.String())
			}
			_, err := os.Stat(socket)
			return err == nil
		})
		config += fmt.Sprintf("[plugin.%s]\nsocket = %q\n", name, "unix:"+socket)
	}
	s.write("config.toml", config)
	s.env = append(s.env, "UNMOOR_CONFIG="+s.path("config.toml"))
	return served
}

// lasting is a JSON document without what changes from one look to the next: times, the kernel's evidence
// of what passes by, and the processes by which buildah run asks its runtime how the container is.
func (s *scenario) lasting(text string) any {
	s.t.Helper()
	var v any
	s.decode(text, &v)
	var strip func(any) any
	strip = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "time")
			for key, below := range v {
				v[key] = strip(below)
			}
		case []any:
			v = slices.DeleteFunc(v, func(item any) bool {
				evidence, _ := item.(map[string]any)
				source := evidence["source"]
				return source != nil && source != "podman" && evidence["kind"] != "record"
			})
			for i, below := range v {
				v[i] = strip(below)
			}
			return v
		}
		return v
	}
	return strip(v)
}

// TestServedEngines: an engine that is served on a socket says what it says in the process, evidence and
// all, and does what it does there.
func TestServedEngines(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		sc := newScene(s, false)
		ask := func() (why, ps any) {
			return s.lasting(s.must(s.unmoor("why", "--format", "json", image))), s.lasting(s.must(s.unmoor("ps", "--format", "json")))
		}
		why, ps := ask()
		plugins := s.servePlugins("podman", "buildah")
		servedWhy, servedPS := ask()
		if d := cmp.Diff(why, servedWhy); d != "" {
			t.Errorf("why differs (-built in +served):\n%s", d)
		}
		if d := cmp.Diff(ps, servedPS); d != "" {
			t.Errorf("ps differs (-built in +served):\n%s", d)
		}
		before := s.look()
		s.unmoor("rmi", "--force=idle", image).wantCode(t, 2)
		s.wantSame(before)
		sc.wantDone(s.unmoor("rmi", "-f", "--time", "2", image))
		for name, p := range plugins {
			if p.ended() {
				t.Errorf("the plugin %s has ended: %s", name, p.out.String())
			}
		}
	})
}

// TestPluginCheck: the engines keep the rules of their protocol with real containers, too.
func TestPluginCheck(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		// One that ignores SIGTERM: the signs of life count.
		s.podman("run", "-d", "--name", "p-run", image, "sleep", "1000")
		s.buildah("from", "--pull-never", "--name", "b-run", image)
		s.buildahRun("b-run", "--network", "none")
		for engine, container := range map[string]string{"podman": "p-run", "buildah": "b-run"} {
			r := s.unmoor("plugin", "check", "--container", container, unmoorBinary, "plugin", "serve", engine).wantCode(t, 0)
			r.wantSaid(t, "ok    container-in-use ", "ok    container-revision ", "ok    container-stop ", "ok    container-gone ", " 0 fail,")
		}
		s.unmoor("rm", "b-run").wantCode(t, 0) // which the plugin leaves to it
		if left := s.podmanContainers(); len(left) != 0 {
			t.Errorf("podman still lists %v", left)
		}
		s.check()
	})
}
