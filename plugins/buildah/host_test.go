package buildah

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

// needRoot skips a test that needs root and programs; in CI, which has both, that is a failure.
func needRoot(t *testing.T, programs ...string) {
	t.Helper()
	missing := ""
	if os.Getuid() != 0 {
		missing = "root"
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = p
		}
	}
	if missing != "" {
		lacking(t, missing)
	}
}

func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is needed, and CI has to have it", what)
	}
	t.Skipf("%s is needed", what)
}

const containersConf = `[containers]
default_ulimits=["nofile=1024:1024","nproc=1000:1000"]
pids_limit=0
netns="none"
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
`

// host is one store of its own with engines that work on it, perhaps in another root directory.
type host struct {
	t      *testing.T
	chroot string // "" for this root
	dir    string // as the engines see it
	driver string
	store  core.StoreInfo
	plugin *Plugin
}

// outside is a path of the engines' as we see it.
func (h *host) outside(path string) string { return filepath.Join(h.chroot, path) }

// newHost makes a store with the image localhost/bb in it.
func newHost(t *testing.T, driver string) *host {
	t.Helper()
	needRoot(t, "buildah", "podman", "runc", "busybox")
	dir, err := os.MkdirTemp("/var/tmp", "unmoor-buildah")
	if err != nil {
		t.Fatal(err)
	}
	return (&host{t: t, dir: dir, driver: driver}).prepare()
}

// trixieRoot is where the other generation of engines is, as itest/setup.sh makes it.
func trixieRoot() string {
	cache := os.Getenv("UNMOOR_CACHE")
	if cache == "" {
		cache = "/var/cache/unmoor-itest"
	}
	return filepath.Join(cache, "trixie")
}

func newTrixie(t *testing.T) *host {
	t.Helper()
	needRoot(t, "mount", "umount", "chroot", "busybox")
	if _, err := os.Stat(trixieRoot() + "/usr/bin/buildah"); err != nil {
		lacking(t, "the trixie root that itest/setup.sh makes")
	}
	root, err := os.MkdirTemp("/var/tmp", "unmoor-buildah-trixie")
	if err != nil {
		t.Fatal(err)
	}
	mount := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Fatalf("mount %v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-R", root).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
			return
		}
		if err := os.Remove(root); err != nil {
			t.Error(err)
		}
	})
	mount("--bind", trixieRoot(), root)
	mount("--make-private", root)
	mount("-t", "proc", "proc", root+"/proc")
	mount("-t", "sysfs", "sysfs", root+"/sys")
	mount("--rbind", "/dev", root+"/dev")
	mount("--make-rslave", root+"/dev")
	mount("-t", "tmpfs", "tmpfs", root+"/run")
	mount("-t", "cgroup2", "cgroup2", root+"/sys/fs/cgroup")
	return (&host{t: t, chroot: root, dir: "/run/unmoor", driver: "overlay"}).prepare()
}

func (h *host) prepare() *host {
	h.t.Helper()
	h.store = core.StoreInfo{GraphRoot: h.outside(h.dir + "/root"), RunRoot: h.outside(h.dir + "/run"), GraphDriver: h.driver}
	h.plugin = New(Options{Settle: 5 * time.Second})
	out := h.outside(h.dir)
	h.t.Cleanup(func() {
		// The layers' home is mounted on itself.
		for _, sub := range []string{"/root/overlay", "/root/vfs"} {
			for syscall.Unmount(out+sub, 0) == nil {
			}
		}
		if err := os.RemoveAll(out); err != nil {
			h.t.Error(err)
		}
	})
	h.t.Cleanup(func() { h.buildah("rm", "--all").Run() }) // unmounts what the test has left
	bin := out + "/image/bin"
	for _, dir := range []string{bin, out + "/image/etc", out + "/tmp"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	h.put("containers.conf", containersConf)
	// The machine's own configuration is left out of it.
	h.put("home/.config/containers/policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	box, err := exec.LookPath("busybox")
	if err != nil {
		h.t.Fatal(err)
	}
	binary, err := os.ReadFile(box)
	if err == nil {
		err = os.WriteFile(bin+"/busybox", binary, 0o755)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	for _, applet := range []string{"sh", "sleep", "true", "cat"} {
		if err := os.Symlink("busybox", bin+"/"+applet); err != nil {
			h.t.Fatal(err)
		}
	}
	if o, err := exec.Command("tar", "-C", out+"/image", "-cf", out+"/image.tar", ".").CombinedOutput(); err != nil {
		h.t.Fatalf("tar: %v: %s", err, o)
	}
	h.must(h.podman("import", h.dir+"/image.tar", "localhost/bb:latest"))
	return h
}

func (h *host) put(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(h.outside(path)), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.outside(path), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *host) command(program string, args ...string) *exec.Cmd {
	env := []string{"CONTAINERS_CONF=" + h.dir + "/containers.conf", "TMPDIR=" + h.dir + "/tmp",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + h.dir + "/home"}
	all := append([]string{program, "--root", h.dir + "/root", "--runroot=" + h.dir + "/run", "--storage-driver", h.driver}, args...)
	c := exec.Command(all[0], all[1:]...)
	if h.chroot != "" {
		c = exec.Command("chroot", append([]string{h.chroot}, all...)...)
	}
	c.Env, c.Dir = env, "/"
	return c
}

func (h *host) buildah(args ...string) *exec.Cmd { return h.command("buildah", args...) }

func (h *host) podman(args ...string) *exec.Cmd {
	return h.command("podman", append([]string{"--tmpdir", h.dir + "/libpod"}, args...)...)
}

func (h *host) must(c *exec.Cmd) string {
	h.t.Helper()
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		h.t.Fatalf("%v: %v: %s", c.Args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// running is a command in the background. It and its like are gone when the test ends.
type running struct {
	*exec.Cmd
	output *bytes.Buffer
	done   chan struct{}
}

func (h *host) start(c *exec.Cmd) *running {
	h.t.Helper()
	r := &running{Cmd: c, output: new(bytes.Buffer), done: make(chan struct{})}
	c.Stdout, c.Stderr = r.output, r.output
	c.WaitDelay = time.Second
	if err := c.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		c.Wait() // how it ends is the test's affair
		close(r.done)
	}()
	h.t.Cleanup(func() {
		for _, p := range h.below(c.Process.Pid) {
			syscall.Kill(p, syscall.SIGKILL)
		}
		c.Process.Kill()
		<-r.done
	})
	return r
}

func (r *running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// below are the descendants of a process.
func (h *host) below(pid int) []int {
	all, _ := pids()
	var found []int
	parents := map[int]bool{pid: true}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if s, err := readStat(p); err == nil && parents[s.parent] && !parents[p] {
				parents[p], grown = true, true
				found = append(found, p)
			}
		}
	}
	return found
}

// stored reads the store's containers as core/cstore would show them.
func (h *host) stored() []core.Container {
	h.t.Helper()
	var all []core.Container
	home := filepath.Join(h.store.GraphRoot, h.driver+"-containers")
	mounted := h.mountCounts()
	for _, name := range []string{"containers.json", "volatile-containers.json"} {
		b, err := os.ReadFile(filepath.Join(home, name))
		if err != nil {
			continue
		}
		var records []struct {
			ID       string    `json:"id"`
			Names    []string  `json:"names"`
			Layer    string    `json:"layer"`
			Metadata string    `json:"metadata"`
			Created  time.Time `json:"created"`
			Flags    struct{ Volatile bool }
		}
		if err := json.Unmarshal(b, &records); err != nil {
			h.t.Fatal(err)
		}
		for _, r := range records {
			layer := filepath.Join(h.store.GraphRoot, h.driver, r.Layer)
			if h.driver == "vfs" {
				layer = filepath.Join(h.store.GraphRoot, "vfs/dir", r.Layer)
			}
			all = append(all, core.Container{ID: core.ContainerID(r.ID), Names: r.Names, LayerID: core.LayerID(r.Layer),
				Metadata: r.Metadata, Created: r.Created, Volatile: r.Flags.Volatile,
				Directory: filepath.Join(home, r.ID, "userdata"),
				Layer: core.Layer{ID: core.LayerID(r.Layer), Directory: layer, MountPoint: filepath.Join(layer, "merged"), Driver: h.driver,
					MountCount: mounted[r.Layer]}})
		}
	}
	return all
}

// mountCounts are the store's own, by layer.
func (h *host) mountCounts() map[string]int {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.store.RunRoot, h.driver+"-layers", "mountpoints.json"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	var records []struct {
		ID    string `json:"id"`
		Count int    `json:"count"`
	}
	if err := json.Unmarshal(b, &records); err != nil {
		h.t.Fatal(err)
	}
	counts := make(map[string]int)
	for _, r := range records {
		counts[r.ID] = r.Count
	}
	return counts
}

// claims asks the plugin about the whole store, by first name.
func (h *host) claims() map[string]core.Claim {
	h.t.Helper()
	containers := h.stored()
	claims, err := h.plugin.Claim(h.t.Context(), h.store, containers)
	if err != nil {
		h.t.Fatal(err)
	}
	if len(claims) != len(containers) {
		h.t.Fatalf("%d claims about %d containers", len(claims), len(containers))
	}
	named := make(map[string]core.Claim)
	for i, c := range containers {
		if claims[i].Container != c.ID {
			h.t.Fatalf("claim %d is about %s, not %s", i, claims[i].Container, c.ID)
		}
		name := string(c.ID)
		if len(c.Names) > 0 {
			name = c.Names[0]
		}
		named[name] = claims[i]
	}
	return named
}

func (h *host) handles(names ...string) []core.Handle {
	h.t.Helper()
	claims := h.claims()
	var all []core.Handle
	for _, c := range h.stored() {
		if len(c.Names) > 0 && slices.Contains(names, c.Names[0]) {
			all = append(all, core.Handle{Container: c, Claim: claims[c.Names[0]]})
		}
	}
	if len(all) != len(names) {
		h.t.Fatalf("%d containers of %v", len(all), names)
	}
	return all
}

func (h *host) eventually(what string, is func() bool) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain until %s; claims: %+v", what, h.claims())
		}
	}
}

// sleeper waits until a sleep of that many seconds runs below a command, and returns its pid.
func (h *host) sleeper(r *running, seconds int) int {
	h.t.Helper()
	found := 0
	h.eventually("sleep "+strconv.Itoa(seconds)+" runs", func() bool {
		if r.ended() {
			h.t.Fatalf("%v ended: %s", r.Args, r.output)
		}
		for _, pid := range h.below(r.Process.Pid) {
			args, _ := readArgs(pid)
			if len(args) == 2 && filepath.Base(args[0]) == "sleep" && args[1] == strconv.Itoa(seconds) {
				found = pid
			}
		}
		return found != 0
	})
	return found
}

func names(pid int, c core.Claim) bool {
	return slices.ContainsFunc(core.Processes(c.Evidence), func(p core.Process) bool { return p.PID == pid && p.StartTime != 0 })
}
