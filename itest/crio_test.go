package itest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pauseImage is the image of the pods' own containers.
const pauseImage = "localhost/unmoor/pause:latest"

// obliging is a command that ends at SIGTERM; as PID 1 it has to ask for that.
var obliging = []string{"sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"}

// doubleBinary builds the double of CRI-O, once.
var doubleBinary = sync.OnceValues(func() (string, error) {
	tags, err := exec.Command("make", "-s", "-C", "..", "--eval=itest-tags: ; @echo $(TAGS)", "itest-tags").Output()
	if err != nil {
		return "", fmt.Errorf("ask make for the build tags: %w", err)
	}
	to := filepath.Join(run, "criodouble")
	cmd := exec.Command("go", "build", "-tags", strings.TrimSpace(string(tags)), "-o", to, "./itest/criodouble")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the double of CRI-O: %w\n%s", err, out)
	}
	return to, nil
})

// node is a scenario with a double of CRI-O on its store.
type node struct {
	*scenario
	double  *background
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
	target  string
	// flags are given to the double when it starts.
	flags []string
}

// newNode makes the images and starts the double.
func newNode(s *scenario, flags ...string) *node {
	s.t.Helper()
	n := &node{scenario: s, target: s.importImage("image", image), flags: flags}
	s.importImage("bystander", pauseImage)
	s.write("control", "")
	s.write("unmoor.toml", fmt.Sprintf("[plugin.crio]\naddress = \"unix://%s\"\nclaim_timeout = \"3s\"\n", n.socket()))
	s.t.Cleanup(func() {
		n.control("")
		if r := s.do(n.doubleCommand("-wipe")); r.code != 0 {
			s.t.Errorf("end what the double of CRI-O runs: %v", r)
		}
	})
	conn, err := grpc.NewClient("unix://"+n.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	n.runtime, n.images = cri.NewRuntimeServiceClient(conn), cri.NewImageServiceClient(conn)
	n.up()
	return n
}

func (n *node) socket() string { return n.path("crio.sock") }

func (n *node) doubleCommand(args ...string) *exec.Cmd {
	n.t.Helper()
	binary, err := doubleBinary()
	if err != nil {
		n.t.Fatal(err)
	}
	return n.gen.command(n.environment(), binary, append([]string{"-root", n.path("root"), "-runroot", n.path("run"),
		"-storage-driver", n.driver, "-runtime-root", n.path("runc"), "-pause-image", pauseImage, "-control", n.path("control")}, args...)...)
}

// up starts the double and waits until it answers.
func (n *node) up() {
	n.t.Helper()
	n.double = n.start(n.doubleCommand(append([]string{"-listen", n.socket(), "-log", n.path("calls")}, n.flags...)...))
	eventually(n.t, "the double of CRI-O listens", func() bool {
		if n.double.ended() {
			n.t.Fatalf("the double of CRI-O has ended: %v: %s", n.double.err, n.double.out.String())
		}
		return strings.Contains(n.double.out.String(), "listening on")
	})
	if _, err := n.runtime.Version(n.t.Context(), &cri.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
		n.t.Fatal(err)
	}
}

// down ends the double; its containers go on.
func (n *node) down() {
	n.double.kill()
	<-n.double.done
}

// control sets the double's switches.
func (n *node) control(lines string) {
	n.t.Helper()
	n.write("control.new", lines+"\n")
	if err := os.Rename(n.path("control.new"), n.path("control")); err != nil {
		n.t.Fatal(err)
	}
}

// unmoor runs the binary under test with the double for its CRI-O.
func (n *node) unmoor(args ...string) result {
	n.t.Helper()
	return n.scenario.unmoor(append([]string{"--config", n.path("unmoor.toml")}, args...)...)
}

// pod makes a pod; one that shares its pid namespace has a process of its own.
func (n *node) pod(name string, pid cri.NamespaceMode) string {
	n.t.Helper()
	r, err := n.runtime.RunPodSandbox(n.t.Context(), &cri.RunPodSandboxRequest{Config: podConfig(name, pid)})
	if err != nil {
		n.t.Fatalf("make pod %s: %v", name, err)
	}
	return r.PodSandboxId
}

func podConfig(name string, pid cri.NamespaceMode) *cri.PodSandboxConfig {
	return &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: name, Namespace: "shop", Uid: "uid-" + name, Attempt: 1},
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: pid}}}}
}

// create makes a container in a pod.
func (n *node) create(pod, name, image string, command ...string) string {
	n.t.Helper()
	r, err := n.runtime.CreateContainer(n.t.Context(), &cri.CreateContainerRequest{PodSandboxId: pod,
		SandboxConfig: podConfig("any", cri.NamespaceMode_CONTAINER),
		Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: name, Attempt: 1},
			Image: &cri.ImageSpec{Image: image}, Command: command}})
	if err != nil {
		n.t.Fatalf("create container %s: %v", name, err)
	}
	return r.ContainerId
}

// run makes and starts a container.
func (n *node) run(pod, name, image string, command ...string) string {
	n.t.Helper()
	id := n.create(pod, name, image, command...)
	if _, err := n.runtime.StartContainer(n.t.Context(), &cri.StartContainerRequest{ContainerId: id}); err != nil {
		n.t.Fatalf("start container %s: %v", name, err)
	}
	return id
}

// exited makes a container that has run.
func (n *node) exited(pod, name, image string) string {
	n.t.Helper()
	id := n.run(pod, name, image, "true")
	eventually(n.t, name+" has exited", func() bool {
		r, err := n.runtime.ContainerStatus(n.t.Context(), &cri.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			n.t.Fatal(err)
		}
		return r.Status.State == cri.ContainerState_CONTAINER_EXITED
	})
	// The double unmounts it after it has said so.
	layer := filepath.Base(n.layerDirectory(id))
	eventually(n.t, name+" is unmounted", func() bool {
		counts, err := os.ReadFile(n.path("run/" + n.driver + "-layers/mountpoints.json"))
		return err == nil && !strings.Contains(string(counts), layer)
	})
	return id
}

// firstProcess is the one of a container that CRI-O has running or created.
func (n *node) firstProcess(id string) process {
	n.t.Helper()
	var state struct{ Pid int }
	text, err := os.ReadFile(n.path("root/" + n.driver + "-containers/" + id + "/userdata/state.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	n.decode(string(text), &state)
	if state.Pid == 0 {
		n.t.Fatalf("container %s has no process: %s", id, text)
	}
	return n.process(state.Pid)
}

// lists are what the double lists, each item as ID and state, sorted.
func (n *node) lists() (containers, pods []string) {
	n.t.Helper()
	c, err := n.runtime.ListContainers(n.t.Context(), &cri.ListContainersRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, c := range c.Containers {
		containers = append(containers, c.Id+" "+c.State.String())
	}
	p, err := n.runtime.ListPodSandbox(n.t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range p.Items {
		pods = append(pods, p.Id+" "+p.State.String())
	}
	slices.Sort(containers)
	slices.Sort(pods)
	return containers, pods
}

// nodeView is a view of a node: the engines', and what the double lists.
type nodeView struct {
	view
	Containers, Sandboxes []string
}

func (n *node) look() nodeView {
	n.t.Helper()
	v := nodeView{view: n.scenario.look()}
	v.Containers, v.Sandboxes = n.lists()
	return v
}

func (n *node) wantSame(before nodeView) {
	n.t.Helper()
	if diff := cmp.Diff(before, n.look(), cmp.AllowUnexported(nodeView{})); diff != "" {
		n.t.Errorf("something changed:\n%s", diff)
	}
}

// wantNoMounts fails the test where something is mounted that belongs to no container of the store.
func (n *node) wantNoMounts() {
	n.t.Helper()
	containers := n.containers()
	for _, m := range append(mountsBelow(n.path("root")), mountsBelow(n.path("run"))...) {
		if m != n.path("root/"+n.driver) && !slices.ContainsFunc(containers, func(c record) bool {
			return strings.Contains(m, "/"+c.ID+"/") || strings.Contains(m, "/"+c.Layer+"/")
		}) {
			n.t.Errorf("a mount is left: %s", m)
		}
	}
}

func TestCRIOImage(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		n := newNode(s)
		web, job := n.pod("web", cri.NamespaceMode_CONTAINER), n.pod("job", cri.NamespaceMode_POD)
		running := n.run(web, "app", image, obliging...)
		created := n.create(web, "next", image, obliging...)
		exited := n.exited(job, "done", image)
		infra := n.firstProcess(job)
		s.podman(append([]string{"run", "-d", "--name", "p-run", image}, obliging...)...)
		s.podman("create", "--name", "p-idle", image, "true")
		s.buildah("from", "--pull-never", "--name", "b-idle", image)
		all := []process{n.firstProcess(running), n.firstProcess(created), s.process(s.podmanPID("p-run"))}
		before := n.look()

		names := []string{"shop/web/app", "shop/web/next", "shop/job/done", "p-run", "p-idle", "b-idle"}
		n.unmoor("rmi", image).wantCode(t, 2).wantSaid(t, append(names, "--force")...)
		n.wantSame(before)
		// What is idle is no reason to stop what runs.
		n.unmoor("rmi", "--force=idle", image).wantCode(t, 2).wantSaid(t, "shop/web/app", "shop/web/next", "p-run")
		n.unmoor("plan", "-f", image).wantCode(t, 0).wantSaid(t, names...)
		n.wantSame(before)
		wantAlive(t, all...)
		if t.Failed() {
			t.FailNow()
		}

		r := n.unmoor("rmi", "-f", "--time", "2", image).wantCode(t, 0)
		t.Logf("-f took %v\n%s", r.took.Round(time.Millisecond), r.said())
		wantGone(t, all)
		wantAlive(t, infra)
		if s.hasImage(n.target) {
			t.Errorf("the image is still there after %v", r)
		}
		for _, c := range s.containers() {
			if c.Image == n.target {
				t.Errorf("container %s %v is still there after %v", c.ID, c.Names, r)
			}
		}
		containers, pods := n.lists()
		if len(containers) > 0 {
			t.Errorf("CRI-O still lists %v", containers)
		}
		if diff := cmp.Diff(before.Sandboxes, pods); diff != "" {
			t.Errorf("the pods are others (of %.12s, %.12s, %.12s):\n%s", running, created, exited, diff)
		}
		if i, err := n.images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: image}}); err != nil || i.Image != nil {
			t.Errorf("CRI-O still has the image: %v, %v", i, err)
		}
		// Podman lists other engines' containers too.
		for _, c := range append(s.podmanContainers(), s.buildah("containers", "-q")) {
			if c != "" && !strings.Contains(c, web) && !strings.Contains(c, job) {
				t.Errorf("podman or buildah still lists %s", c)
			}
		}
		n.wantNoMounts()
		s.check()
		// The pods are of use as before.
		for _, pod := range []string{web, job} {
			wantAlive(t, n.firstProcess(n.run(pod, "again", pauseImage, obliging...)))
		}
	})
}

func TestCRIOPauseImage(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		n := newNode(s)
		web, job := n.pod("web", cri.NamespaceMode_CONTAINER), n.pod("job", cri.NamespaceMode_POD)
		pause := ""
		for _, c := range s.containers() {
			if c.ID == web {
				pause = c.Image
			}
		}
		all := []process{n.firstProcess(job),
			n.firstProcess(n.run(web, "app", image, obliging...)),
			n.firstProcess(n.create(web, "next", image, obliging...)),
			n.firstProcess(n.run(job, "work", image, obliging...))}
		n.exited(job, "done", image)
		// A container beside the pods, of the image of theirs.
		s.podman(append([]string{"run", "-d", "--name", "beside", image}, obliging...)...)
		beside := s.process(s.podmanPID("beside"))
		before := n.look()

		pods := []string{"shop/web/POD", "shop/job/POD", "shop/web/app", "shop/web/next", "shop/job/work", "shop/job/done"}
		// CRI-O's pause image is pinned; one that was, before an update say, is not.
		for _, force := range forces {
			n.unmoor("rmi", force, pauseImage).wantCode(t, 2).wantSaid(t, "pinned by CRI-O", "pause_image")
		}
		n.wantSame(before)
		const old = "localhost/unmoor/pause:old"
		s.podman("tag", pauseImage, old)
		s.podman("untag", old, pauseImage)
		before = n.look()
		n.unmoor("rmi", old).wantCode(t, 2).wantSaid(t, "shop/web/POD", "shop/job/POD", "--force")
		r := n.unmoor("plan", "-f", old).wantCode(t, 0).wantSaid(t, pods...)
		t.Log(r)
		n.wantSame(before)
		wantAlive(t, all...)
		if t.Failed() {
			t.FailNow()
		}

		r = n.unmoor("rmi", "-f", "--time", "2", old).wantCode(t, 0)
		t.Logf("-f took %v\n%s", r.took.Round(time.Millisecond), r.said())
		wantGone(t, all)
		wantAlive(t, beside)
		if s.hasImage(pause) {
			t.Error("the pause image is still there")
		}
		if !s.hasImage(n.target) {
			t.Error("the image of the pods' containers is gone")
		}
		if containers, pods := n.lists(); len(containers)+len(pods) > 0 {
			t.Errorf("CRI-O still lists %v, %v", containers, pods)
		}
		if left := s.containers(); len(left) != 1 {
			t.Errorf("not the one container beside the pods is left: %v", left)
		}
		s.podman("exec", "beside", "cat", "/etc/name")
		n.wantNoMounts()
		s.check()
	})
}

func TestCRIOTrouble(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		n := newNode(s)
		web := n.pod("web", cri.NamespaceMode_CONTAINER)
		app := n.firstProcess(n.run(web, "app", image, obliging...))
		n.exited(web, "done", image)
		look := func() nodeView {
			v := n.look()
			// The double itself may be another process.
			v.Processes = slices.DeleteFunc(v.Processes, func(p string) bool { return strings.Contains(p, "/criodouble ") })
			return v
		}
		before := look()
		for _, trouble := range []struct {
			scenario, control string
			down              bool
			// says is what the message has besides the names, and the way out.
			says []string
		}{
			{"down", "", true, []string{"systemctl status crio"}},
			{"hung", "hang", false, []string{"no answer in time", "journalctl -u crio"}},
			{"hung in one question", "hang ImageFsInfo", false, []string{"no answer in time", "journalctl -u crio"}},
			{"slow", "slow=1m", false, []string{"no answer in time", "journalctl -u crio"}},
			{"garbage", "garbage", false, []string{"answered nonsense"}},
			{"no gRPC", "bytes", false, []string{"does not speak gRPC"}},
		} {
			t.Run(trouble.scenario, func(t *testing.T) {
				n.control(trouble.control)
				if trouble.down {
					n.down()
				}
				for _, force := range []string{"--force=none", "--force=stop", "--force=kill"} {
					r := n.unmoor("rmi", force, "--time", "1", image).wantCode(t, 2)
					r.wantSaid(t, append([]string{"crio", n.socket()}, trouble.says...)...)
					if most := 4 * time.Second; r.took > most {
						t.Errorf("more than %v: %v", most, r)
					}
					if force == "--force=stop" {
						t.Log(r)
					}
				}
				n.control("")
				if trouble.down {
					n.up()
				}
				// The connection of the test has to find back.
				if _, err := n.runtime.Version(n.t.Context(), &cri.VersionRequest{}, grpc.WaitForReady(true)); err != nil {
					t.Fatal(err)
				}
				wantAlive(t, app)
				if diff := cmp.Diff(before, look(), cmp.AllowUnexported(nodeView{})); diff != "" {
					t.Errorf("something changed:\n%s", diff)
				}
			})
		}
		t.Run("slow, but not too slow", func(t *testing.T) {
			n.control("slow=500ms")
			defer n.control("")
			n.unmoor("rmi", image).wantCode(t, 2).wantSaid(t, "shop/web/app", "shop/web/done")
		})
		t.Run("on another store", func(t *testing.T) {
			other := newNode(newScenario(t, s.gen, s.driver))
			r := s.unmoor("--config", other.path("unmoor.toml"), "rmi", "-f", "--time", "1", image).wantCode(t, 2)
			t.Log(r)
			r.wantSaid(t, strconv.Itoa(app.pid), "--force=kill")
			if strings.Contains(r.said(), "answer") || strings.Contains(r.said(), "shop/web") {
				t.Errorf("they are taken for CRI-O's: %v", r)
			}
			wantAlive(t, app)
			if diff := cmp.Diff(before, look(), cmp.AllowUnexported(nodeView{})); diff != "" {
				t.Errorf("something changed:\n%s", diff)
			}
		})
		t.Run("well again", func(t *testing.T) {
			n.unmoor("rmi", "-f", "--time", "2", image).wantCode(t, 0)
			wantGone(t, []process{app})
			s.check()
		})
	})
}

// forces are all there are.
var forces = []string{"--force=none", "--force=idle", "--force=stop", "--force=kill"}

func TestCRIOPinned(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		n := newNode(s, "-pinned", "localhost/unmoor/targ*")
		const free, extra = "localhost/unmoor/free:latest", "localhost/unmoor/extra:latest"
		s.importImage("bystander", free)
		s.podman("tag", image, extra)
		web := n.pod("web", cri.NamespaceMode_CONTAINER)
		app := n.firstProcess(n.run(web, "app", image, obliging...))
		look := func() nodeView {
			v := n.look()
			v.Processes = slices.DeleteFunc(v.Processes, func(p string) bool { return strings.Contains(p, "/criodouble ") })
			return v
		}
		before := look()
		kept := func(reference string, says ...string) {
			t.Helper()
			for _, force := range forces {
				n.unmoor("rmi", force, "--time", "1", reference).wantCode(t, 2).wantSaid(t, says...)
			}
		}
		same := func(when string) {
			t.Helper()
			wantAlive(t, app)
			if diff := cmp.Diff(before, look(), cmp.AllowUnexported(nodeView{})); diff != "" {
				t.Fatalf("%s something changed:\n%s", when, diff)
			}
		}
		// By every name and by its ID.
		for _, reference := range []string{image, extra, n.target, pauseImage} {
			kept(reference, "pinned by CRI-O", "pinned_images")
		}
		n.unmoor("why", image).wantCode(t, 0).wantSaid(t, "pinned by CRI-O", "shop/web/app")
		n.unmoor("why", "--format", "json", image).wantCode(t, 0).wantSaid(t, `"protected"`, `"pinned by CRI-O"`)
		same("of what is pinned")

		n.down()
		kept(free, "crio, which may pin it", "systemctl status crio", "when_unavailable")
		if err := os.Remove(n.socket()); err != nil {
			t.Fatal(err)
		}
		kept(free, "crio, which may pin it", "systemctl status crio")
		n.up()
		n.control("fail=no_such_blob ImageStatus")
		kept(free, "cannot tell whether it pins it", "no such blob")
		n.control("garbage ImageStatus")
		kept(free, "answered nonsense")
		n.control("")
		same("while CRI-O could not answer")

		n.unmoor("rmi", free).wantCode(t, 0)
		n.down()
		n.flags = nil
		n.up()
		n.unmoor("rmi", extra).wantCode(t, 0)
		n.unmoor("rmi", "-f", "--time", "2", image).wantCode(t, 0)
		wantGone(t, []process{app})
		if s.hasImage(n.target) {
			t.Error("the image that is not pinned any more is still there")
		}
		n.wantNoMounts()
		s.check()
	})
}

// Where there is no CRI-O and nothing of it, it pins nothing.
func TestCRIOAbsent(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		s.podman("create", image, "true")
		s.write("unmoor.toml", fmt.Sprintf("[plugin.crio]\naddress = \"unix://%s\"\n", s.path("none.sock")))
		s.write("required.toml", fmt.Sprintf("[plugin.crio]\naddress = \"unix://%s\"\nrequired = true\n", s.path("none.sock")))
		s.unmoor("--config", s.path("required.toml"), "rmi", "--force=kill", image).wantCode(t, 2).wantSaid(t, "required = false")
		s.unmoor("--config", s.path("unmoor.toml"), "rmi", "-f", image).wantCode(t, 0)
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
	})
}
