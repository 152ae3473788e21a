package itest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// generation is one set of engines.
type generation struct {
	name string
	// path is where its programs are looked for.
	path string
	// conf is added to the [engine] table of containers.conf.
	conf string
	// base is where its scenarios lie.
	base string
	// through is the command through which its programs are run; empty where they are run as they are.
	through []string
	// missing says why it cannot be used; empty where it can.
	missing string
}

var generations []*generation

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// findGenerations looks which generations there are: this machine's own engines, and those that
// setup.sh made of the next Debian's.
func findGenerations(cannot string) {
	cache := os.Getenv("UNMOOR_CACHE")
	if cache == "" {
		cache = "/var/cache/unmoor-itest"
	}
	native := filepath.Join(cache, "trixie-native")
	generations = []*generation{
		{name: "host", path: searchPath, missing: cannot},
		{name: "trixie", path: native + ":" + searchPath, missing: cannot, conf: fmt.Sprintf(`conmon_path=[%q]
helper_binaries_dir=[%q]
[engine.runtimes]
runc=[%q]
`, native+"/conmon", native, native+"/runc")},
	}
	if _, err := os.Stat(native); err != nil && cannot == "" {
		generations[1].missing = "no second generation of engines: run itest/setup.sh"
	}
	for _, g := range generations {
		g.base = filepath.Join(run, g.name)
		if err := os.MkdirAll(g.base, 0o755); err != nil {
			g.missing = err.Error()
		}
		for _, tool := range []string{"podman", "buildah", "containers-storage", "runc", "conmon"} {
			if g.missing == "" && g.find(tool) == "" {
				g.missing = tool + " is not installed: run itest/setup.sh"
			}
		}
	}
	host, next := generations[0], generations[1]
	if host.missing == "" && next.missing == "" {
		if v := host.podmanVersion(); v == next.podmanVersion() {
			next.missing = "no second generation of engines: this machine's own podman is as new, " + v
		}
	}
}

// podmanVersion is what Podman says of itself; empty where it does not run.
func (g *generation) podmanVersion() string {
	out, err := g.command(nil, "podman", "--version").Output()
	if err != nil {
		g.missing = fmt.Sprintf("podman does not run: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// find looks a program up; empty where there is none.
func (g *generation) find(program string) string {
	if filepath.IsAbs(program) {
		return program
	}
	for _, dir := range filepath.SplitList(g.path) {
		if info, err := os.Stat(filepath.Join(dir, program)); err == nil && !info.IsDir() {
			return filepath.Join(dir, program)
		}
	}
	return ""
}

// command makes a command to be run there, with this environment besides PATH and HOME.
func (g *generation) command(env []string, program string, args ...string) *exec.Cmd {
	path := g.find(program)
	if path == "" {
		path = "/nonexistent/" + program
	}
	words := append(append(g.through[:len(g.through):len(g.through)], path), args...)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append([]string{"PATH=" + g.path, "HOME=/root", "LC_ALL=C.UTF-8", "PODMAN_IGNORE_CGROUPSV1_WARNING=1"}, env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

// in runs a command, such as mount, that must succeed.
func (g *generation) in(program string, args ...string) error {
	out, err := g.command(nil, program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}

// everywhere runs a scene on every generation with every driver, each in a store of its own.
func everywhere(t *testing.T, scene func(t *testing.T, s *scenario)) {
	on(t, []string{"overlay", "vfs"}, scene)
}

// on runs a scene on every generation with the given drivers.
func on(t *testing.T, drivers []string, scene func(t *testing.T, s *scenario)) {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "needs root")
	}
	for _, g := range generations {
		for _, driver := range drivers {
			t.Run(g.name+"/"+driver, func(t *testing.T) {
				if g.missing != "" {
					skip(t, g.missing)
				}
				if !alone[t.Name()[:strings.IndexByte(t.Name(), '/')]] {
					t.Parallel()
				}
				scene(t, newScenario(t, g, driver))
			})
		}
	}
}

// hostOnly runs a scene on this machine's own engines.
func hostOnly(t *testing.T, drivers []string, scene func(t *testing.T, s *scenario)) {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "needs root")
	}
	g := generations[0]
	if g.missing != "" {
		skip(t, g.missing)
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			if !alone[t.Name()[:strings.IndexByte(t.Name(), '/')]] {
				t.Parallel()
			}
			scene(t, newScenario(t, g, driver))
		})
	}
}

// alone are the tests that run with nothing beside them: they measure time, or end all that a user
// runs.
var alone = map[string]bool{"TestStopsInParallel": true, "TestRootless": true, "TestRootlessDefault": true, "TestServiceIdle": true}
