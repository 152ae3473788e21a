package itest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// names lists an image's names; nil where it is gone.
func (s *scenario) names(id string) []string {
	s.t.Helper()
	for _, i := range s.images() {
		if i.ID == id {
			return append([]string{}, i.Names...)
		}
	}
	return nil
}

// variant is a removal with one particular circumstance.
type variant struct {
	name string
	run  func(t *testing.T, s *scenario, target string)
}

var variants = []variant{
	{"a name among several goes and the containers stay", func(t *testing.T, s *scenario, target string) {
		s.podman("tag", image, "localhost/unmoor/other:1")
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		s.unmoor("rmi", "localhost/unmoor/other:1").wantCode(t, 0).wantSaid(t, "Untagged: localhost/unmoor/other:1")
		if names := s.names(target); fmt.Sprint(names) != fmt.Sprint([]string{image}) {
			t.Errorf("names %v", names)
		}
		s.podman("exec", "p", "cat", "/etc/name")
	}},
	{"by ID with several names", func(t *testing.T, s *scenario, target string) {
		s.podman("tag", image, "localhost/unmoor/other:1")
		s.unmoor("rmi", target[:12]).wantCode(t, 2).wantSaid(t, image, "localhost/unmoor/other:1", "--force")
		if len(s.names(target)) != 2 {
			t.Errorf("names %v", s.names(target))
		}
		s.unmoor("rmi", "-f", target[:12]).wantCode(t, 0)
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
	}},
	{"by short name, tag and digest", func(t *testing.T, s *scenario, target string) {
		digest := s.podman("inspect", "--type", "image", "--format", "{{.Digest}}", image)
		s.unmoor("plan", "unmoor/target").wantCode(t, 0)
		s.unmoor("plan", "localhost/unmoor/target@"+digest).wantCode(t, 0)
		s.unmoor("plan", "sha256:"+target).wantCode(t, 0)
		s.unmoor("plan", target[:6]).wantCode(t, 0)
		if !s.hasImage(target) {
			t.Fatal("a plan removed the image")
		}
		s.unmoor("rmi", "localhost/unmoor/target@"+digest).wantCode(t, 0)
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
	}},
	{"an image that another is built on", func(t *testing.T, s *scenario, target string) {
		s.write("Containerfile", "FROM "+image+"\nRUN touch /made\n")
		s.podman("build", "--network", "none", "-t", "localhost/unmoor/child", "-f", s.path("Containerfile"), s.path("tmp"))
		child := s.podman("inspect", "--type", "image", "--format", "{{.Id}}", "localhost/unmoor/child")
		s.podman("run", "-d", "--name", "p", "localhost/unmoor/child", "sleep", "1000")
		s.unmoor("rmi", target).wantCode(t, 2).wantSaid(t, "built on it")
		s.unmoor("rmi", "-f", target).wantCode(t, 2).wantSaid(t, "built on it")
		s.unmoor("rmi", "-f", image).wantCode(t, 0).wantSaid(t, "Untagged: "+image)
		if !s.hasImage(target) || len(s.names(target)) != 0 {
			t.Errorf("the parent should stay without a name: %v", s.names(target))
		}
		s.podman("exec", "p", "cat", "/etc/name")
		s.unmoor("rmi", "localhost/unmoor/child").wantCode(t, 2)
		s.unmoor("rmi", "-f", "--time", "0", "localhost/unmoor/child").wantCode(t, 0)
		if s.hasImage(child) || s.hasImage(target) {
			t.Error("the child or its dangling parent is still there")
		}
	}},
	{"a dangling parent is kept with --no-prune", func(t *testing.T, s *scenario, target string) {
		s.write("Containerfile", "FROM "+image+"\nRUN touch /made\n")
		s.podman("build", "--network", "none", "-t", "localhost/unmoor/child", "-f", s.path("Containerfile"), s.path("tmp"))
		s.podman("untag", image)
		s.unmoor("rmi", "--no-prune", "localhost/unmoor/child").wantCode(t, 0)
		if !s.hasImage(target) {
			t.Error("the dangling parent is gone")
		}
	}},
	{"a manifest list holds it", func(t *testing.T, s *scenario, target string) {
		s.podman("manifest", "create", "localhost/unmoor/list:1")
		s.podman("manifest", "add", "localhost/unmoor/list:1", "containers-storage:["+s.driver+"@"+s.path("root")+"+"+s.path("run")+"]"+image)
		before := s.look()
		s.unmoor("rmi", image).wantCode(t, 2).wantSaid(t, "localhost/unmoor/list:1")
		s.wantSame(before)
		s.unmoor("rmi", "localhost/unmoor/list:1").wantCode(t, 0)
		if !s.hasImage(target) {
			t.Error("the list took its instance along")
		}
		s.unmoor("rmi", image).wantCode(t, 0)
	}},
	{"mounted as a volume of a container of another image", func(t *testing.T, s *scenario, target string) {
		s.importImage("bystander", bystander)
		s.podman("run", "-d", "--name", "user", "--mount", "type=image,source="+image+",destination=/mnt", bystander, "sleep", "1000")
		before := s.look()
		r := s.unmoor("rmi", image).wantCode(t, 2)
		r.wantSaid(t, "user")
		r = s.unmoor("rmi", "--force=idle", image).wantCode(t, 2)
		r.wantSaid(t, "user")
		s.wantSame(before)
		s.podman("exec", "user", "cat", "/mnt/etc/name")
		p := s.process(s.podmanPID("user"))
		s.podman("rm", "-f", "-t", "0", "user")
		wantGone(t, []process{p}) // podman does not wait until it is reaped
		s.unmoor("rmi", image).wantCode(t, 0)
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
	}},
	{"paused", func(t *testing.T, s *scenario, target string) {
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		p := s.process(s.podmanPID("p"))
		if r := s.tryPodman("pause", "p"); r.code != 0 {
			skip(t, fmt.Sprintf("this machine cannot pause: %v", r))
		}
		s.unmoor("rmi", "--force=idle", image).wantCode(t, 2).wantSaid(t, "paused")
		s.unmoor("rmi", "-f", "--time", "1", image).wantCode(t, 0)
		wantGone(t, []process{p})
	}},
	{"a pod whose infra container is of the image", func(t *testing.T, s *scenario, target string) {
		s.importImage("bystander", bystander)
		s.podman("pod", "create", "--network", "none", "--name", "web", "--infra-image", image, "--infra-command", "/bin/sleep 1000")
		s.podman("run", "-d", "--pod", "web", "--name", "member", bystander, "sleep", "1000")
		before := s.look()
		s.unmoor("rmi", "--force=idle", image).wantCode(t, 2).wantSaid(t, "web")
		s.unmoor("plan", "-f", image).wantCode(t, 0).wantSaid(t, "member")
		s.wantSame(before)
		r := s.unmoor("rmi", "-f", "--time", "0", image).wantCode(t, 0)
		if left := append(s.podmanPods(), s.podmanContainers()...); len(left) > 0 {
			t.Errorf("podman still lists %v after %v", left, r)
		}
	}},
	{"a restart policy", func(t *testing.T, s *scenario, target string) {
		s.podman("run", "-d", "--restart", "always", "--name", "p", image, "sleep", "1000")
		s.unmoor("rmi", "-f", "--time", "0", image).wantCode(t, 0)
	}},
	{"containers that remove themselves", func(t *testing.T, s *scenario, target string) {
		for i := range 3 {
			s.podman("run", "-d", "--rm", "--name", fmt.Sprintf("p%d", i), image, "sleep", "1000")
		}
		s.unmoor("rmi", "-f", "--time", "0", image).wantCode(t, 0)
	}},
	{"rm of a container by name and by ID prefix", func(t *testing.T, s *scenario, target string) {
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		id := s.podman("create", "--name", "q", image, "true")
		u := s.unknown("u", image)
		s.unmoor("rm", "p").wantCode(t, 2).wantSaid(t, "--force")
		s.unmoor("rm", id[:12], "u").wantCode(t, 0)
		if s.hasContainer(u) || s.hasContainer(id) {
			t.Error("they are still there")
		}
		s.unmoor("rm", "-f", "--time", "0", "p").wantCode(t, 0)
		s.unmoor("rm", "nosuch").wantCode(t, 1).wantSaid(t, "nosuch")
		if !s.hasImage(target) {
			t.Error("the image went along")
		}
		s.unmoor("rmi", image).wantCode(t, 0)
	}},
	{"several images, one of them blocked", func(t *testing.T, s *scenario, target string) {
		other := s.importImage("bystander", bystander)
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		s.unmoor("rmi", image, bystander, "localhost/unmoor/nosuch").wantCode(t, 2).wantSaid(t, "localhost/unmoor/nosuch", "Deleted: "+other)
		if s.hasImage(other) || !s.hasImage(target) {
			t.Error("each image is all or nothing, and the next is tried after one fails")
		}
		s.unmoor("rmi", "--ignore", "localhost/unmoor/nosuch").wantCode(t, 0)
		s.unmoor("rmi", "-f", "--time", "0", "--all").wantCode(t, 0)
		if left := s.images(); len(left) > 0 {
			t.Errorf("images are left: %v", left)
		}
	}},
	{"JSON says what the plan is", func(t *testing.T, s *scenario, target string) {
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		for _, args := range [][]string{{"plan", image}, {"plan", "-f", image}, {"ps"}, {"images"}, {"why", image}, {"why", "p"}} {
			r := s.unmoor(append(args, "--format", "json")...).wantCode(t, map[bool]int{true: 2}[fmt.Sprint(args) == fmt.Sprint([]string{"plan", image})])
			var v any
			s.decode(r.stdout, &v)
			if !strings.Contains(r.stdout, target) && !strings.Contains(r.stdout, "p") {
				t.Errorf("%v says nothing of it: %v", args, r)
			}
		}
	}},
	{"a container record without a layer", func(t *testing.T, s *scenario, target string) {
		// As a removal leaves it that was killed half-way.
		id := s.unknown("u", image)
		layer := ""
		for _, c := range s.containers() {
			if c.ID == id {
				layer = c.Layer
			}
		}
		dropRecord(t, s.path("root/"+s.driver+"-layers/layers.json"), layer)
		if err := os.RemoveAll(s.layerDirectory(id)); err != nil {
			t.Fatal(err)
		}
		for _, link := range linksTo(s.path("root/overlay/l"), layer) {
			if err := os.Remove(link); err != nil {
				t.Fatal(err)
			}
		}
		s.unmoor("ps").wantCode(t, 0)
		s.unmoor("rmi", "--force=idle", image).wantCode(t, 0)
		if s.hasContainer(id) {
			t.Error("the record is still there")
		}
	}},
}

func TestVariants(t *testing.T) {
	for _, v := range variants {
		t.Run(dashed(v.name), func(t *testing.T) {
			run := func(t *testing.T, s *scenario) {
				target := s.importImage("image", image)
				v.run(t, s, target)
				if len(s.records("layer")) > 0 || len(s.images()) == 0 {
					s.check()
				}
			}
			on(t, []string{"overlay"}, run)
			// One generation is enough: the paths that differ are few.
			hostOnly(t, []string{"vfs"}, run)
		})
	}
}

// TestPodmanSocket: Podman is asked through its API alone; there is no command to fall back to.
func TestPodmanSocket(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		socket := "unix://" + s.path("podman.sock")
		service := s.start(s.gen.command(s.environment(), "podman", append(s.storeFlags(), "system", "service", "--time", "0", socket)...))
		eventually(t, "podman's service listens", func() bool {
			if service.ended() {
				t.Fatalf("podman system service: %v: %s", service.err, service.out.String())
			}
			conn, err := net.Dial("unix", s.path("podman.sock"))
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
		s.write("config.toml", fmt.Sprintf("[plugin.podman]\naddress = %q\ncommand = [\"/nonexistent/podman\"]\n", socket))
		s.podman("run", "-d", "--name", "running", image, "sleep", "1000")
		s.podman("create", "--name", "idle", image, "true")
		p := s.process(s.podmanPID("running"))
		before := s.look()
		unmoor := func(args ...string) result {
			t.Helper()
			return s.unmoor(append([]string{"--config", s.path("config.toml")}, args...)...)
		}
		unmoor("rmi", "--force=idle", image).wantCode(t, 2).wantAdvised(t, "running", "--force")
		s.wantSame(before)
		wantAlive(t, p)
		unmoor("rmi", "-f", "--time", "1", image).wantCode(t, 0).wantSaid(t, "by podman")
		wantGone(t, []process{p})
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
		if left := s.podmanContainers(); len(left) > 0 {
			t.Errorf("podman still lists %v", left)
		}
		if service.ended() {
			t.Errorf("podman's service has ended: %v: %s", service.err, service.out.String())
		}
		s.check()
	})
}

// TestPodmanNetwork: Podman lets a network go only where no container of its records is in it.
func TestPodmanNetwork(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.write("containers.conf", fmt.Sprintf(containersConf, s.path("tmp"), s.gen.conf)+fmt.Sprintf("\n[network]\nnetwork_config_dir=%q\nnetwork_backend=\"netavark\"\n", s.path("networks")))
		target := s.importImage("image", image)
		s.podman("network", "create", "n")
		s.podman("create", "--network", "n", "--name", "idle", image, "true")
		if r := s.tryPodman("run", "-d", "--network", "n", "--name", "running", image, "sleep", "1000"); r.code != 0 {
			lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
			t.Logf("note: without a running container in a network, which Podman cannot make here: %s", lines[len(lines)-1])
		}
		if r := s.tryPodman("network", "rm", "n"); r.code == 0 {
			t.Fatal("podman lets a network go that has containers")
		}
		s.unmoor("rmi", "-f", "--time", "1", image).wantCode(t, 0)
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
		s.podman("network", "rm", "n")
		s.check()
	})
}

// TestReadOnlyStore: an image of an additional store is not written, its containers are ours.
func TestReadOnlyStore(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		lender := newScenario(t, s.gen, s.driver)
		target := lender.importImage("image", image)
		s.options = []string{"overlay.imagestore=" + lender.path("root")}
		lent := lender.look()
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		before := s.look()
		for _, force := range []string{"--force=none", "-f", "--force=kill"} {
			s.unmoor("rmi", force, image).wantCode(t, 2).wantSaid(t, "read-only")
		}
		s.wantSame(before)
		s.unmoor("rm", "-f", "--time", "0", "p").wantCode(t, 0)
		lender.wantSame(lent)
		if !lender.hasImage(target) {
			t.Error("the image is gone from the additional store")
		}
	})
}

// TestStorageConf: the store that storage.conf names.
func TestStorageConf(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		s.env = []string{"CONTAINERS_STORAGE_CONF=" + s.path("storage.conf")}
		s.podman("run", "-d", "--name", "p", image, "sleep", "1000")
		plain := func(args ...string) result {
			return s.do(s.gen.command(s.environment(), unmoorBinary, args...))
		}
		plain("rmi", image).wantCode(t, 2).wantSaid(t, "p")
		plain("rmi", "-f", "--time", "0", image).wantCode(t, 0)
		if s.hasImage(target) {
			t.Error("the image is still there")
		}
		s.check()
	})
}

// linksTo lists the links of overlay/l that lead to a layer.
func linksTo(dir, layer string) []string {
	var found []string
	links, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.Contains(to, layer) {
			found = append(found, link)
		}
	}
	return found
}

// dashed is a sentence as a test's name.
func dashed(s string) string { return strings.ReplaceAll(s, " ", "-") }
