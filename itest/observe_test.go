package itest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// syncBuffer is a buffer that one goroutine writes and another reads.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// view is all that can be seen of a scenario from outside: what must be equal before and after a
// removal that was refused.
type view struct {
	Files                 map[string]string
	Podman, Pods, Buildah []string
	Processes             []string
	Mounts                []string
}

// look takes a view of the scenario.
func (s *scenario) look() view {
	s.t.Helper()
	v := view{Files: map[string]string{}}
	for _, kind := range []string{"container", "layer", "image"} {
		for _, file := range []string{kind + "s.json", "volatile-" + kind + "s.json"} {
			name := "root/" + s.driver + "-" + kind + "s/" + file
			// A file that is not there is as telling as its content.
			b, _ := os.ReadFile(s.path(name))
			v.Files[name] = string(b)
		}
	}
	// How often each layer is mounted, as the library counts.
	counts := "run/" + s.driver + "-layers/mountpoints.json"
	b, _ := os.ReadFile(s.path(counts))
	v.Files[counts] = string(b)
	v.Podman, v.Pods = s.podmanContainers(), s.podmanPods()
	v.Buildah = strings.Split(s.buildah("containers", "--all", "--format", "{{.ContainerID}} {{.ContainerName}} {{.ImageID}}"), "\n")
	sort.Strings(v.Buildah)
	eventually(s.t, "no engine is cleaning up", func() bool {
		return !slices.ContainsFunc(processesBelow(s.dir), func(p process) bool {
			// conmon has the words in its arguments all the time.
			return !strings.Contains(p.command, "conmon") && strings.Contains(p.command, " container cleanup ")
		})
	})
	for _, p := range processesBelow(s.dir) {
		v.Processes = append(v.Processes, p.String()+" "+p.command)
	}
	v.Mounts = mountsBelow(s.dir)
	return v
}

// podmanContainers lists every container that Podman knows: id, name, state and pid.
func (s *scenario) podmanContainers() []string {
	s.t.Helper()
	var containers []struct {
		ID    string `json:"Id"`
		Names []string
		State string
		Pid   int
	}
	s.decode(s.podman("ps", "-a", "--external", "--format", "json"), &containers)
	var all []string
	for _, c := range containers {
		all = append(all, fmt.Sprintf("%s %s %s %d", c.ID, strings.Join(c.Names, ","), c.State, c.Pid))
	}
	sort.Strings(all)
	return all
}

func (s *scenario) podmanPods() []string {
	s.t.Helper()
	var pods []struct {
		ID         string `json:"Id"`
		Name       string
		Status     string
		Containers []struct{ ID, Status string }
	}
	s.decode(s.podman("pod", "ps", "--format", "json"), &pods)
	var all []string
	for _, p := range pods {
		sort.Slice(p.Containers, func(i, j int) bool { return p.Containers[i].ID < p.Containers[j].ID })
		all = append(all, fmt.Sprintf("%s %s %s %v", p.ID, p.Name, p.Status, p.Containers))
	}
	sort.Strings(all)
	return all
}

func (s *scenario) decode(text string, into any) {
	s.t.Helper()
	if strings.TrimSpace(text) == "" {
		return
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		s.t.Fatalf("read %s: %v", text, err)
	}
}

// wantSame fails the test where something changed since the view was taken.
func (s *scenario) wantSame(before view) {
	s.t.Helper()
	if diff := cmp.Diff(before, s.look()); diff != "" {
		s.t.Errorf("a refused removal changed something:\n%s", diff)
	}
}

var hexID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// check fails the test where the store is not consistent: by the library's own check (the one of the
// trixie root, since bookworm's has none), and by comparing records with directories, where the
// library's check sees nothing.
func (s *scenario) check() {
	s.t.Helper()
	s.libraryCheck()

	layers := ids(s.records("layer"))
	containers := s.containers()
	for _, c := range containers {
		if !slices.Contains(layers, c.Layer) {
			s.t.Errorf("check: container %s has no layer", c.ID)
		}
		if !s.hasImage(c.Image) && c.Image != "" {
			s.t.Errorf("check: container %s has no image", c.ID)
		}
	}
	layerDirectory := "root/overlay"
	if s.driver == "vfs" {
		layerDirectory = "root/vfs/dir"
	}
	for _, d := range []struct {
		dir   string
		known []string
		both  bool
	}{
		{layerDirectory, layers, true},
		{"root/" + s.driver + "-containers", ids(containers), false},
		{"run/" + s.driver + "-containers", ids(containers), false},
		{"root/" + s.driver + "-images", ids(s.images()), true},
	} {
		var there []string
		entries, err := os.ReadDir(s.path(d.dir))
		if err != nil && !os.IsNotExist(err) {
			s.t.Errorf("check: %v", err)
		}
		for _, e := range entries {
			if hexID.MatchString(e.Name()) {
				there = append(there, e.Name())
				if !slices.Contains(d.known, e.Name()) {
					s.t.Errorf("check: %s/%s has no record", d.dir, e.Name())
				}
			}
		}
		for _, id := range d.known {
			if d.both && !slices.Contains(there, id) {
				s.t.Errorf("check: %s/%s is missing", d.dir, id)
			}
		}
	}
	if left, _ := filepath.Glob(s.path("root/" + s.driver + "/tempdirs/*/*")); len(left) > 0 {
		s.t.Errorf("check: left by a removal: %v", left)
	}
	if links, err := os.ReadDir(s.path("root/overlay/l")); err == nil && len(links) != len(layers) {
		s.t.Errorf("check: %d links for %d layers in overlay/l", len(links), len(layers))
	}
}

func ids(records []record) []string {
	all := []string{}
	for _, r := range records {
		all = append(all, r.ID)
	}
	return all
}

// libraryCheck runs `containers-storage check` of the newer generation on a copy of the store: it
// mounts and unmounts what it checks, which a running container would not survive. Layers that are
// unreferenced are errors at once (-m 0).
func (s *scenario) libraryCheck() {
	s.t.Helper()
	checker := generations[len(generations)-1]
	if checker.missing != "" {
		without(s.t, "the library's own check of the store", checker.missing)
		return
	}
	scratch := s.path("check")
	defer func() {
		for _, m := range sweep(scratch) {
			s.t.Errorf("left by the check: %s", m)
		}
	}()
	if err := os.MkdirAll(scratch, 0o755); err != nil {
		s.t.Fatal(err)
	}
	// One file system: what is mounted in the store is not part of it.
	if out, err := exec.Command("cp", "-ax", s.path("root"), scratch).CombinedOutput(); err != nil {
		s.t.Fatalf("copy the store: %v: %s", err, out)
	}
	// containers/storage makes this directory with the first deletion since v1.59, and the check of
	// earlier ones takes it for a layer.
	if err := os.Remove(filepath.Join(scratch, "root", s.driver, "tempdirs")); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Errorf("check: %v", err)
	}
	r := s.do(s.storageCommand(checker, "check", "-g", scratch+"/root", "-R", scratch+"/run", "-s", s.driver, "-m", "0"))
	for line := range strings.Lines(r.said()) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "level=warning") {
			s.t.Errorf("containers-storage check: %s", line)
		}
	}
	if r.code != 0 {
		s.t.Errorf("containers-storage check: exit %d", r.code)
	}
}

// wantGone fails the test where one of the processes lives.
func wantGone(t *testing.T, processes []process) {
	t.Helper()
	for _, p := range processes {
		eventually(t, fmt.Sprintf("process %v (%s) is gone", p, p.command), func() bool { return !p.alive() })
	}
}

// wantAlive fails the test where one of the processes is gone.
func wantAlive(t *testing.T, processes ...process) {
	t.Helper()
	for _, p := range processes {
		if !p.alive() {
			t.Errorf("process %v (%s) is gone", p, p.command)
		}
	}
}
