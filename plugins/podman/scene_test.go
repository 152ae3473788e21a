package podman_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/podman"
)

// scene is a store of its own with a real Podman on it.
type scene struct {
	t          *testing.T
	generation generation
	dir        string
	command    []string
	env        []string
	store      core.StoreInfo
	tmpdir     string
}

// generation is one release of Podman.
type generation struct {
	name, podman, storage string
	// conf is what containers.conf needs besides, its [engine] table first.
	conf string
}

// generations are the machine's own, and the next one as itest/setup.sh makes it.
func generations() []generation {
	cache := os.Getenv("UNMOOR_CACHE")
	if cache == "" {
		cache = "/var/cache/unmoor-itest"
	}
	native := filepath.Join(cache, "trixie-native")
	return []generation{
		{"host", "podman", "containers-storage", ""},
		{"trixie", filepath.Join(native, "podman"), filepath.Join(native, "containers-storage"), fmt.Sprintf(`conmon_path=[%q]
helper_binaries_dir=[%q]
[engine.runtimes]
runc=[%q]
`, native+"/conmon", native, native+"/runc")},
	}
}

// everyGeneration runs a test on a scene of each.
func everyGeneration(t *testing.T, test func(t *testing.T, s *scene)) {
	t.Helper()
	for _, g := range generations() {
		t.Run(g.name, func(t *testing.T) { test(t, newScene(t, g)) })
	}
}

// everywhere runs a test in each generation through each mode, on a scene of its own.
func everywhere(t *testing.T, test func(t *testing.T, s *scene, p *podman.Plugin)) {
	t.Helper()
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			everyGeneration(t, func(t *testing.T, s *scene) { test(t, s, m.plugin(s)) })
		})
	}
}

// busybox is the statically linked one of Debian's busybox-static.
const busybox = "/bin/busybox"

// newScene makes a scene with the image localhost/bb, or skips the test.
func newScene(t *testing.T, g generation) *scene {
	t.Helper()
	return newSceneOn(t, g, "overlay")
}

func newSceneOn(t *testing.T, g generation, driver string) *scene {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "not root: podman cannot run containers on a store of its own")
	}
	s := &scene{t: t, generation: g, command: []string{g.podman}}
	for _, needed := range []string{g.podman, g.storage, busybox} {
		if _, err := exec.LookPath(needed); err != nil {
			skip(t, needed+" is not installed: run itest/setup.sh")
		}
	}
	dir, err := os.MkdirTemp("/var/tmp", "unmoor-podman-")
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
	s.tmpdir = filepath.Join(dir, "tmp")
	s.store = core.StoreInfo{GraphRoot: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), GraphDriver: driver}
	// Locks in files lie in the scene's own directory. The default ones lie in /dev/shm/libpod_lock,
	// which all stores of the machine share (libpod/lock/shm).
	config := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(config, []byte(`[containers]
default_ulimits=["nofile=1024:1024","nproc=1000:1000"]
pids_limit=0
netns="none"
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
lock_type="file"
`+g.conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env = []string{"CONTAINERS_CONF=" + config, "LC_ALL=C", "PODMAN_IGNORE_CGROUPSV1_WARNING=1"}
	t.Cleanup(s.close)
	s.image("localhost/bb")
	return s
}

// skip skips, and fails in CI, which has everything.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func (s *scene) close() {
	s.try("pod", "rm", "-f", "-a", "-t", "0")
	for range 5 { // what others need goes after them
		if out, err := s.cmd("rm", "-f", "-a", "-t", "0").CombinedOutput(); err == nil {
			break
		} else if !strings.Contains(string(out), "dependent") {
			s.t.Errorf("clean up: %v: %s", err, out)
		}
	}
	// Podman's cleanup processes may still be at work. A store that podman opened leaves its home
	// mounted on itself.
	s.wait("podman's processes to end", func() bool { return !mentioned(s.dir) })
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		for _, mounted := range []string{filepath.Join(s.store.GraphRoot, s.store.GraphDriver), s.store.GraphRoot} {
			for syscall.Unmount(mounted, 0) == nil { //nolint:revive // until nothing is mounted there
			}
		}
		if err = os.RemoveAll(s.dir); err == nil {
			return
		}
	}
	s.t.Errorf("clean up: %v", err)
}

// mentioned is whether a process has the path in its command line.
func mentioned(path string) bool {
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return true
	}
	for _, name := range lines {
		// An error means that the process ended.
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(path)) {
			return true
		}
	}
	return false
}

func (s *scene) cmd(args ...string) *exec.Cmd {
	all := slices.Concat(s.command, []string{"--root", s.store.GraphRoot, "--runroot", s.store.RunRoot,
		"--tmpdir", s.tmpdir, "--storage-driver", s.store.GraphDriver}, args)
	cmd := exec.Command(all[0], all[1:]...)
	cmd.Env = append(os.Environ(), s.env...)
	return cmd
}

// podman runs podman, as its user would, and returns what it printed.
func (s *scene) podman(args ...string) string {
	s.t.Helper()
	var stderr bytes.Buffer
	once := func() ([]byte, error) {
		stderr.Reset()
		cmd := s.cmd(args...)
		cmd.Stderr = &stderr
		return cmd.Output()
	}
	out, err := once()
	if err != nil && args[0] == "start" && strings.Contains(stderr.String(), "read init-p: connection reset") {
		// runc's first process may die where the machine is loaded (runc 1.1.15, seen once): no word about Podman.
		s.t.Logf("note: once more, podman %s: %s", strings.Join(args, " "), stderr.String())
		out, err = once()
	}
	if err != nil {
		s.t.Fatalf("podman %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

func (s *scene) try(args ...string) {
	if out, err := s.cmd(args...).CombinedOutput(); err != nil {
		s.t.Logf("podman %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// lose deletes a container from the store behind Podman's back.
func (s *scene) lose(id core.ContainerID) {
	s.t.Helper()
	cmd := exec.Command(s.generation.storage, "--graph", s.store.GraphRoot, "--run", s.store.RunRoot,
		"--storage-driver", s.store.GraphDriver, "delete-container", string(id))
	// It may stumble over what is mounted in the container's directory.
	out, err := cmd.CombinedOutput()
	if slices.ContainsFunc(s.containers(), func(c core.Container) bool { return c.ID == id }) {
		s.t.Fatalf("delete container %s from the store: %v: %s", id.Short(), err, out)
	}
}

// image imports an image with busybox in it.
func (s *scene) image(name string) {
	s.t.Helper()
	binary, err := os.ReadFile(busybox)
	if err != nil {
		s.t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	write := func(h *tar.Header, body []byte) {
		h.Size = int64(len(body))
		if err := w.WriteHeader(h); err != nil {
			s.t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			s.t.Fatal(err)
		}
	}
	write(&tar.Header{Name: "etc/name", Mode: 0o644}, []byte(name))
	write(&tar.Header{Name: "bin/busybox", Mode: 0o755}, binary)
	for _, applet := range []string{"sh", "sleep", "true"} {
		write(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.cmd("import", "-q", "-", name)
	cmd.Stdin = &archive
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("import: %v: %s", err, out)
	}
}

// deaf is a command that ignores SIGTERM.
var deaf = []string{"localhost/bb", "sh", "-c", `trap "" TERM; while :; do sleep 1; done`}

func (s *scene) run(args ...string) core.ContainerID {
	s.t.Helper()
	return core.ContainerID(s.podman(append([]string{"run", "-d"}, args...)...))
}

func (s *scene) create(args ...string) core.ContainerID {
	s.t.Helper()
	return core.ContainerID(s.podman(append([]string{"create"}, args...)...))
}

// containers reads the store's own records, those of the last moments as if they were older.
func (s *scene) containers() []core.Container {
	s.t.Helper()
	var all []core.Container
	directory := filepath.Join(s.store.GraphRoot, s.store.GraphDriver+"-containers")
	for _, name := range []string{"containers.json", "volatile-containers.json"} {
		text, err := os.ReadFile(filepath.Join(directory, name))
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			s.t.Fatal(err)
		}
		var records []struct {
			ID, Image, Layer, Metadata string
			Names                      []string
			Created                    time.Time
		}
		if err := json.Unmarshal(text, &records); err != nil {
			s.t.Fatal(err)
		}
		for _, r := range records {
			all = append(all, core.Container{ID: core.ContainerID(r.ID), Names: r.Names, ImageID: core.ImageID(r.Image),
				LayerID: core.LayerID(r.Layer), Metadata: r.Metadata, Created: r.Created,
				Directory: filepath.Join(directory, r.ID, "userdata")})
		}
	}
	return all
}

// mode is a way to reach Podman.
type mode struct {
	name   string
	plugin func(*scene) *podman.Plugin
}

var modes = []mode{{"cli", (*scene).cli}, {"api", (*scene).api}}

func (s *scene) cli() *podman.Plugin {
	return s.plugin(podman.Options{Command: s.command, TmpDir: s.tmpdir, Env: s.env, Settling: -1})
}

// api starts Podman's service.
func (s *scene) api() *podman.Plugin {
	s.t.Helper()
	socket := filepath.Join(s.dir, "api.sock")
	cmd := s.cmd("system", "service", "--time", "0", "unix://"+socket)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it is gone
		_ = cmd.Wait()         // killed
	})
	s.wait("the service's socket", func() bool { _, err := os.Stat(socket); return err == nil })
	return s.plugin(podman.Options{Address: "unix://" + socket, Settling: -1})
}

func (s *scene) plugin(o podman.Options) *podman.Plugin {
	s.t.Helper()
	p, err := podman.New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *scene) wait(what string, done func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// claim claims the whole store.
func (s *scene) claim(p *podman.Plugin) map[core.ContainerID]core.Claim {
	s.t.Helper()
	containers := s.containers()
	claims, err := p.Claim(context.Background(), s.store, containers)
	if err != nil {
		s.t.Fatal(err)
	}
	if len(claims) != len(containers) {
		s.t.Fatalf("%d claims about %d containers", len(claims), len(containers))
	}
	byID := make(map[core.ContainerID]core.Claim)
	for _, c := range claims {
		byID[c.Container] = c
	}
	return byID
}

// handles claims the whole store and makes handles of some.
func (s *scene) handles(p *podman.Plugin, ids ...core.ContainerID) []core.Handle {
	s.t.Helper()
	claims := s.claim(p)
	var handles []core.Handle
	for _, c := range s.containers() {
		if slices.Contains(ids, c.ID) {
			handles = append(handles, core.Handle{Container: c, Claim: claims[c.ID]})
		}
	}
	if len(handles) != len(ids) {
		s.t.Fatalf("%d of the %d containers are in the store", len(handles), len(ids))
	}
	return handles
}

// states lists podman's own view: name to state.
func (s *scene) states() map[string]string {
	s.t.Helper()
	var rows []struct {
		Names []string
		State string
	}
	if err := json.Unmarshal([]byte(s.podman("ps", "-a", "--format", "json")), &rows); err != nil {
		s.t.Fatal(err)
	}
	states := make(map[string]string)
	for _, r := range rows {
		states[r.Names[0]] = r.State
	}
	return states
}

func (s *scene) succeeded(outcomes []core.Outcome, n int) {
	s.t.Helper()
	if len(outcomes) != n {
		s.t.Fatalf("%d outcomes, not %d", len(outcomes), n)
	}
	for _, o := range outcomes {
		if o.Err != nil {
			s.t.Errorf("container %s: %v", o.Container.Short(), o.Err)
		}
	}
}

func (s *scene) gone(ids ...core.ContainerID) {
	s.t.Helper()
	for _, c := range s.containers() {
		if slices.Contains(ids, c.ID) {
			s.t.Errorf("container %s (%s) is still in the store", c.ID.Short(), fmt.Sprint(c.Names))
		}
	}
}
