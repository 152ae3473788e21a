package itest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// scenario is one store and the engines that share it.
type scenario struct {
	t      *testing.T
	gen    *generation
	driver string
	// dir is the scenario's directory; its graph root, run root and the rest lie below it.
	dir string
	// options are further store options of every command (--storage-opt).
	options []string
	// env is added to the environment of every command.
	env []string
}

var scenarios atomic.Int32

const containersConf = `[containers]
default_ulimits=["nofile=1024:1024","nproc=1000:1000"]
pids_limit=0
netns="none"
log_driver="k8s-file"
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
lock_type="file"
tmp_dir=%q
%s`

// image is the image that the scenes remove, bystander one that must not be touched.
const (
	image     = "localhost/unmoor/target:latest"
	bystander = "localhost/unmoor/bystander:latest"
)

// newScenario makes an empty scenario, which is swept at the test's end.
func newScenario(t *testing.T, g *generation, driver string) *scenario {
	t.Helper()
	s := &scenario{t: t, gen: g, driver: driver, dir: filepath.Join(g.base, fmt.Sprintf("s%d", scenarios.Add(1)))}
	for _, dir := range []string{"tmp", "btmp"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s.write("storage.conf", fmt.Sprintf("[storage]\ndriver=%q\ngraphroot=%q\nrunroot=%q\n", driver, s.path("root"), s.path("run")))
	s.write("containers.conf", fmt.Sprintf(containersConf, s.path("tmp"), g.conf))
	t.Cleanup(func() {
		if left := sweep(s.dir); len(left) > 0 {
			t.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
		}
	})
	return s
}

// path is a path of the scenario.
func (s *scenario) path(name string) string { return filepath.Join(s.dir, name) }

// write writes a file of the scenario.
func (s *scenario) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// result is what a command said.
type result struct {
	command        string
	stdout, stderr string
	code           int
	took           time.Duration
}

// said is both outputs.
func (r result) said() string { return r.stdout + r.stderr }

func (r result) String() string {
	return fmt.Sprintf("%s: exit %d after %v\n--- stdout\n%s--- stderr\n%s", r.command, r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

func (s *scenario) environment() []string {
	return append([]string{"CONTAINERS_CONF=" + s.path("containers.conf"), "TMPDIR=" + s.path("btmp")}, s.env...)
}

// storeFlags are the flags that name the store to podman, buildah and unmoor alike.
func (s *scenario) storeFlags() []string {
	flags := []string{"--root", s.path("root"), "--runroot", s.path("run"), "--storage-driver", s.driver}
	for _, o := range s.options {
		flags = append(flags, "--storage-opt", o)
	}
	return flags
}

// do runs a command to its end. A command that hangs is killed after two minutes and fails the
// test.
func (s *scenario) do(cmd *exec.Cmd) result {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// conmon keeps the pipes of `podman start` open: do not wait for them.
	cmd.WaitDelay = 2 * time.Second
	began := time.Now()
	r := result{command: filepath.Base(cmd.Path) + " " + strings.Join(cmd.Args[1:], " ")}
	err := cmd.Start()
	if err == nil {
		timer := time.AfterFunc(2*time.Minute, func() {
			s.t.Errorf("%s hangs", r.command)
			_ = cmd.Process.Kill() // it ended meanwhile: as good
		})
		err = cmd.Wait()
		timer.Stop()
	}
	r.stdout, r.stderr, r.took = stdout.String(), stderr.String(), time.Since(began)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case errors.Is(err, exec.ErrWaitDelay):
	case err != nil:
		r.code, r.stderr = -1, r.stderr+err.Error()
	}
	return r
}

func (s *scenario) must(r result) string {
	s.t.Helper()
	if r.code != 0 {
		s.t.Fatal(r)
	}
	return strings.TrimSpace(r.stdout)
}

// podman, buildah and storage run an engine, which must succeed, and return its output.
func (s *scenario) podman(args ...string) string  { s.t.Helper(); return s.must(s.tryPodman(args...)) }
func (s *scenario) buildah(args ...string) string { s.t.Helper(); return s.must(s.tryBuildah(args...)) }

func (s *scenario) tryPodman(args ...string) result {
	s.t.Helper()
	return s.do(s.gen.command(s.environment(), "podman", append(s.storeFlags(), args...)...))
}

func (s *scenario) tryBuildah(args ...string) result {
	s.t.Helper()
	return s.do(s.buildahCommand(args...))
}

func (s *scenario) buildahCommand(args ...string) *exec.Cmd {
	return s.gen.command(s.environment(), "buildah", append(s.storeFlags(), args...)...)
}

// storage runs the containers-storage tool: it makes containers that no engine knows.
func (s *scenario) storage(args ...string) string {
	s.t.Helper()
	flags := []string{"-g", s.path("root"), "-R", s.path("run"), "-s", s.driver}
	for _, o := range s.options {
		flags = append(flags, "--storage-opt", o)
	}
	return s.must(s.do(s.storageCommand(s.gen, append(args[:1:1], append(flags, args[1:]...)...)...)))
}

// storageCommand has the tool read a storage.conf of ours: the distribution's names options of
// overlay, at which the other drivers stop.
func (s *scenario) storageCommand(g *generation, args ...string) *exec.Cmd {
	return g.command(append(s.environment(), "CONTAINERS_STORAGE_CONF="+s.path("storage.conf")), "containers-storage", args...)
}

// unmoor runs the binary under test.
func (s *scenario) unmoor(args ...string) result {
	s.t.Helper()
	r := s.do(s.unmoorCommand(args...))
	if strings.Contains(r.said(), "goroutine ") || strings.Contains(r.said(), "panic:") {
		s.t.Errorf("a stack trace: %v", r)
	}
	return r
}

func (s *scenario) unmoorCommand(args ...string) *exec.Cmd {
	return s.gen.command(s.environment(), unmoorBinary, append(s.storeFlags(), args...)...)
}

// wantCode fails the test where the exit code is another.
func (r result) wantCode(t *testing.T, code int) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("want exit %d: %v", code, r)
	}
	return r
}

// wantSaid fails the test where one of the words was not said.
func (r result) wantSaid(t *testing.T, words ...string) result {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.said(), w) {
			t.Errorf("%q was not said by %v", w, r)
		}
	}
	return r
}

// importImage makes an image of one of the archives of makeImages and returns its ID.
func (s *scenario) importImage(archive, name string) string {
	s.t.Helper()
	b, err := os.Open(filepath.Join(run, archive+".tar"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer b.Close()
	cmd := s.gen.command(s.environment(), "podman", append(s.storeFlags(), "import", "-q", "-", name)...)
	cmd.Stdin = b
	return strings.TrimPrefix(s.must(s.do(cmd)), "sha256:")
}

// unknown makes a container that no engine knows and returns its ID.
func (s *scenario) unknown(name, image string) string {
	s.t.Helper()
	out := s.storage("create-container", "--name", name, image)
	return strings.Fields(out)[0]
}

// mountUnknown mounts such a container and returns where.
func (s *scenario) mountUnknown(id string) string {
	s.t.Helper()
	lines := strings.Fields(s.storage("mount", id))
	return lines[len(lines)-1]
}

// layerDirectory is the directory of a container's layer.
func (s *scenario) layerDirectory(container string) string {
	s.t.Helper()
	for _, c := range s.containers() {
		if c.ID == container {
			if s.driver == "vfs" {
				return s.path("root/vfs/dir/" + c.Layer)
			}
			return s.path("root/overlay/" + c.Layer)
		}
	}
	s.t.Fatalf("no container %s in the store", container)
	return ""
}

// record is what the store's JSON files say of an item.
type record struct {
	ID    string   `json:"id"`
	Names []string `json:"names"`
	Image string   `json:"image"`
	Layer string   `json:"layer"`
}

// records reads a pair of the store's files: one kept over reboots and one volatile.
func (s *scenario) records(kind string) []record {
	s.t.Helper()
	var all []record
	for _, file := range []string{kind + "s.json", "volatile-" + kind + "s.json"} {
		b, err := os.ReadFile(s.path("root/" + s.driver + "-" + kind + "s/" + file))
		if errors.Is(err, os.ErrNotExist) || len(b) == 0 {
			continue
		}
		var some []record
		if err == nil {
			err = json.Unmarshal(b, &some)
		}
		if err != nil {
			s.t.Fatalf("read %s: %v", file, err)
		}
		all = append(all, some...)
	}
	return all
}

func (s *scenario) containers() []record { s.t.Helper(); return s.records("container") }
func (s *scenario) images() []record     { s.t.Helper(); return s.records("image") }

// hasImage is whether an image of that ID is in the store.
func (s *scenario) hasImage(id string) bool {
	s.t.Helper()
	for _, i := range s.images() {
		if i.ID == id {
			return true
		}
	}
	return false
}

// hasContainer is whether the store has the container.
func (s *scenario) hasContainer(id string) bool {
	s.t.Helper()
	for _, c := range s.containers() {
		if c.ID == id {
			return true
		}
	}
	return false
}

// start starts a process that runs beside the test and is killed at its end.
func (s *scenario) start(cmd *exec.Cmd) *background {
	s.t.Helper()
	b := &background{cmd: cmd, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &b.out, &b.out
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start %s: %v", cmd, err)
	}
	go func() {
		defer close(b.done)
		b.err = cmd.Wait()
	}()
	s.t.Cleanup(func() {
		b.kill()
		<-b.done
	})
	if p, err := processOf(cmd.Process.Pid); err == nil {
		b.process = p
	}
	return b
}

// background is a process beside the test. A goroutine waits for it, so that it is no zombie.
type background struct {
	process
	cmd  *exec.Cmd
	out  syncBuffer
	done chan struct{}
	err  error
}

// kill sends SIGKILL; one that has ended needs none.
func (b *background) kill() { _ = b.process.kill() }

func (b *background) ended() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// podmanPID is the pid of a running container's first process.
func (s *scenario) podmanPID(container string) int {
	s.t.Helper()
	pid, err := strconv.Atoi(s.podman("inspect", "--type", "container", "--format", "{{.State.Pid}}", container))
	if err != nil || pid == 0 {
		s.t.Fatalf("container %s has no pid (%v)", container, err)
	}
	return pid
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
