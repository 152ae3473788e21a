package crio

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// node is a store with a double of CRI-O on it.
type node struct {
	t      *testing.T
	dir    string
	driver string
	flags  []string
	store  core.StoreInfo
	socket string
	double *exec.Cmd
	ended  chan struct{}
	cri.RuntimeServiceClient
	images cri.ImageServiceClient
}

// the images of every node.
const (
	app   = "localhost/app:latest"
	pause = "localhost/pause:latest"
)

// doubleBinary builds the double of CRI-O once.
var doubleBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "criodouble")
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "criodouble")
	build := exec.Command("go", "build", "-tags", "containers_image_openpgp exclude_graphdriver_btrfs", "-o", binary, "../../itest/criodouble")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the double of CRI-O: %w: %s", err, out)
	}
	return binary, nil
})

// built is whether a test asked for the double.
var built atomic.Bool

func TestMain(m *testing.M) {
	code := m.Run()
	if built.Load() {
		if path, err := doubleBinary(); err == nil {
			os.RemoveAll(filepath.Dir(path)) // a single file
		}
	}
	os.Exit(code)
}

func root(t testing.TB) {
	t.Helper()
	missing := ""
	if os.Getuid() != 0 {
		missing = "root"
	} else if _, err := exec.LookPath("runc"); err != nil {
		missing = "runc"
	} else if _, err := os.Stat("/bin/busybox"); err != nil {
		missing = "/bin/busybox (busybox-static)"
	}
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		t.Fatalf("this test needs %s, which CI must give it", missing)
	default:
		t.Skipf("this test needs %s", missing)
	}
}

// newNode makes a store with two images, and starts the double on it. All of it is gone at the end.
func newNode(t *testing.T, flags ...string) *node {
	t.Helper()
	root(t)
	dir, err := os.MkdirTemp("/var/tmp", "unmoor-crio-")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, dir: dir, driver: "overlay", flags: flags, socket: filepath.Join(dir, "crio.sock")}
	n.store = core.StoreInfo{GraphRoot: dir + "/root", RunRoot: dir + "/run", GraphDriver: n.driver}
	t.Cleanup(n.clear)
	archive := filepath.Join(dir, "rootfs.tar")
	if err := os.WriteFile(archive, rootfs(t), 0o600); err != nil {
		t.Fatal(err)
	}
	n.must(n.command("-image", app+"="+archive, "-image", pause+"="+archive))
	n.start()
	return n
}

// command is a run of the double.
func (n *node) command(args ...string) *exec.Cmd {
	n.t.Helper()
	built.Store(true)
	binary, err := doubleBinary()
	if err != nil {
		n.t.Fatal(err)
	}
	return exec.Command(binary, append([]string{"-root", n.store.GraphRoot, "-runroot", n.store.RunRoot, "-storage-driver", n.driver,
		"-runtime-root", n.dir + "/runc", "-control", n.dir + "/control", "-log", n.dir + "/calls"}, args...)...)
}

func (n *node) must(c *exec.Cmd) {
	n.t.Helper()
	if out, err := c.CombinedOutput(); err != nil {
		n.t.Fatalf("%v: %v: %s", c.Args, err, out)
	}
}

// start starts the double and waits until it listens.
func (n *node) start() {
	n.t.Helper()
	c := n.command(append([]string{"-listen", n.socket}, n.flags...)...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.double, n.ended = c, make(chan struct{})
	line, err := bufio.NewReader(out).ReadString('\n')
	go func() { c.Wait(); close(n.ended) }()
	if err != nil {
		n.t.Fatalf("the double of CRI-O does not listen: %v (%q)", err, line)
	}
	conn, err := grpc.NewClient("unix://"+n.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	n.RuntimeServiceClient, n.images = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
}

// stop ends the double. Its containers go on.
func (n *node) stop() {
	n.t.Helper()
	if n.double == nil {
		return
	}
	n.double.Process.Kill()
	<-n.ended
	n.double = nil
}

// clear ends everything and removes the directory once nothing is mounted below it.
func (n *node) clear() {
	n.stop()
	n.control("")
	if out, err := n.command("-wipe").CombinedOutput(); err != nil {
		n.t.Errorf("wipe: %v: %s", err, out)
	}
	table := func() []string {
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			n.t.Fatalf("%s is left, since the mount table cannot be read: %v", n.dir, err)
		}
		var below []string
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], n.dir+"/") {
				below = append(below, f[4])
			}
		}
		return below
	}
	for round := 0; len(table()) > 0 && round < 3; round++ {
		points := table()
		slices.SortFunc(points, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
		for _, p := range points {
			unix.Unmount(p, unix.UMOUNT_NOFOLLOW) // what is left is seen next
		}
	}
	if left := table(); len(left) > 0 {
		n.t.Fatalf("%s is left, since this is mounted there: %v", n.dir, left)
	}
	if out, err := exec.Command("rm", "-rf", "--one-file-system", n.dir).CombinedOutput(); err != nil {
		n.t.Errorf("remove %s: %v: %s", n.dir, err, out)
	}
}

// control sets the double's switches.
func (n *node) control(lines ...string) {
	n.t.Helper()
	path := filepath.Join(n.dir, "control")
	if err := os.WriteFile(path+".new", []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		n.t.Fatal(err)
	}
}

// calls are what the double was called for since the last time.
func (n *node) calls() []string {
	n.t.Helper()
	path := filepath.Join(n.dir, "calls")
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	os.Remove(path) // it is written anew
	var methods []string
	for line := range strings.Lines(string(text)) {
		methods = append(methods, strings.Fields(line)[0])
	}
	slices.Sort(methods)
	return methods
}

// plugin makes a plugin that takes unlisted containers for forgotten at once, unless told otherwise.
func (n *node) plugin(o ...Options) *Plugin {
	n.t.Helper()
	options := Options{Settling: -1}
	if len(o) > 0 {
		options = o[0]
	}
	options.Address = "unix://" + n.socket
	p, err := New(options)
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

// pod makes a pod.
func (n *node) pod(name string) string {
	n.t.Helper()
	r, err := n.RunPodSandbox(n.t.Context(), &cri.RunPodSandboxRequest{Config: sandboxConfig(name)})
	if err != nil {
		n.t.Fatalf("make pod %s: %v", name, err)
	}
	return r.PodSandboxId
}

func sandboxConfig(name string) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "default", Uid: "uid-" + name, Attempt: 1},
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}}}}
}

// Commands for containers.
var (
	// obliging ends at SIGTERM, stubborn ignores it, as every first process without a handler does.
	obliging = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"}
	stubborn = []string{"/bin/sleep", "1000"}
	brief    = []string{"/bin/true"}
)

// create makes a container.
func (n *node) create(pod, name string, command []string) string {
	n.t.Helper()
	r, err := n.CreateContainer(n.t.Context(), &cri.CreateContainerRequest{PodSandboxId: pod, SandboxConfig: sandboxConfig("x"),
		Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: name, Attempt: 1}, Image: &cri.ImageSpec{Image: app}, Command: command}})
	if err != nil {
		n.t.Fatalf("create container %s: %v", name, err)
	}
	return r.ContainerId
}

// run makes and starts a container.
func (n *node) run(pod, name string, command []string) string {
	n.t.Helper()
	id := n.create(pod, name, command)
	if _, err := n.StartContainer(n.t.Context(), &cri.StartContainerRequest{ContainerId: id}); err != nil {
		n.t.Fatalf("start container %s: %v", name, err)
	}
	return id
}

// exited makes a container that has run.
func (n *node) exited(pod, name string) string {
	n.t.Helper()
	id := n.run(pod, name, brief)
	n.eventually(name+" has exited", func() bool { return n.state(id) == cri.ContainerState_CONTAINER_EXITED })
	return id
}

func (n *node) state(id string) cri.ContainerState {
	n.t.Helper()
	r, err := n.ContainerStatus(n.t.Context(), &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		n.t.Fatal(err)
	}
	return r.Status.State
}

func (n *node) eventually(what string, is func() bool) {
	n.t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// stored reads the store's containers as core/cstore would show them.
func (n *node) stored() []core.Container {
	n.t.Helper()
	return storedIn(n.t, n.store)
}

func storedIn(t testing.TB, store core.StoreInfo) []core.Container {
	t.Helper()
	var all []core.Container
	home := filepath.Join(store.GraphRoot, store.GraphDriver+"-containers")
	for _, name := range []string{"containers.json", "volatile-containers.json"} {
		text, err := os.ReadFile(filepath.Join(home, name))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, containersOf(t, text, home, filepath.Join(store.RunRoot, store.GraphDriver+"-containers"))...)
	}
	return all
}

func containersOf(t testing.TB, text []byte, home, run string) []core.Container {
	t.Helper()
	var records []struct {
		ID       string    `json:"id"`
		Names    []string  `json:"names"`
		Image    string    `json:"image"`
		Layer    string    `json:"layer"`
		Metadata string    `json:"metadata"`
		Created  time.Time `json:"created"`
		Flags    struct{ Volatile bool }
	}
	if err := json.Unmarshal(text, &records); err != nil {
		t.Fatal(err)
	}
	var all []core.Container
	for _, r := range records {
		all = append(all, core.Container{ID: core.ContainerID(r.ID), Names: r.Names, ImageID: core.ImageID(r.Image), LayerID: core.LayerID(r.Layer),
			Metadata: r.Metadata, Created: r.Created, Volatile: r.Flags.Volatile,
			Directory: filepath.Join(home, r.ID, "userdata"), RunDirectory: filepath.Join(run, r.ID, "userdata")})
	}
	return all
}

// claims asks the plugin about the whole store.
func (n *node) claims(p *Plugin) map[string]core.Claim {
	n.t.Helper()
	containers := n.stored()
	claims, err := p.Claim(n.t.Context(), n.store, containers)
	if err != nil {
		n.t.Fatal(err)
	}
	return index(n.t, containers, claims)
}

func index(t testing.TB, containers []core.Container, claims []core.Claim) map[string]core.Claim {
	t.Helper()
	byID := make(map[string]core.Claim)
	for _, c := range claims {
		byID[string(c.Container)] = c
	}
	if len(claims) != len(containers) || len(byID) != len(claims) {
		t.Fatalf("%d claims about %d of %d containers", len(claims), len(byID), len(containers))
	}
	return byID
}

// handles are handles of containers as they are claimed now.
func (n *node) handles(p *Plugin, ids ...string) []core.Handle {
	n.t.Helper()
	claims := n.claims(p)
	handles := make([]core.Handle, len(ids))
	for _, c := range n.stored() {
		if i := slices.Index(ids, string(c.ID)); i >= 0 {
			handles[i] = core.Handle{Container: c, Claim: claims[string(c.ID)]}
		}
	}
	for i, h := range handles {
		if h.Container.ID == "" {
			n.t.Fatalf("no container %s in the store", ids[i])
		}
	}
	return handles
}

// there is whether the store has a container.
func (n *node) there(id string) bool {
	n.t.Helper()
	return slices.ContainsFunc(n.stored(), func(c core.Container) bool { return string(c.ID) == id })
}

// listed is whether the double lists a container or pod.
func (n *node) listed(id string) bool {
	n.t.Helper()
	containers, err := n.ListContainers(n.t.Context(), &cri.ListContainersRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	pods, err := n.ListPodSandbox(n.t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	return slices.ContainsFunc(containers.Containers, func(c *cri.Container) bool { return c.Id == id }) ||
		slices.ContainsFunc(pods.Items, func(p *cri.PodSandbox) bool { return p.Id == id })
}

// rootfs is a tar of busybox and the places that a runtime mounts on.
func rootfs(t testing.TB) []byte {
	t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "dev", "proc", "tmp"} {
		add(tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, busybox)
	add(tar.Header{Name: "bin/pause", Typeflag: tar.TypeReg, Mode: 0o755}, []byte("#!/bin/sh\ntrap 'exit 0' TERM\nwhile :; do sleep 0.05; done\n"))
	for _, name := range []string{"sh", "sleep", "true"} {
		add(tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}
