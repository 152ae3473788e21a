package itest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// finding is what the doctor says of one thing, as JSON.
type finding struct {
	Damage, Container, Image, Layer, Path, Name, Owner, Group string
	Use                                                       string
	Dead, Repaired                                            bool
	Error                                                     string
}

// unmoorer is a scenario or a node.
type unmoorer interface{ unmoor(args ...string) result }

// findings asks the doctor.
func (s *scenario) findings(u unmoorer, args ...string) []finding {
	s.t.Helper()
	r := u.unmoor(append([]string{"doctor", "--format", "json"}, args...)...)
	if r.code != 0 && r.code != 2 {
		s.t.Fatalf("the doctor: %v", r)
	}
	var all []finding
	s.decode(r.stdout, &all)
	if (r.code == 0) != !slices.ContainsFunc(all, func(f finding) bool { return !f.Repaired }) {
		s.t.Errorf("exit %d does not fit: %v", r.code, r)
	}
	return all
}

// wantHealthy fails the test where the doctor finds anything.
func (s *scenario) wantHealthy(u unmoorer) {
	s.t.Helper()
	u.unmoor("doctor", "--max", "0").wantCode(s.t, 0).wantSaid(s.t, "Nothing is wrong with the store in "+s.path("root"))
}

// deleteStorage deletes a container's storage behind its engine's back. The shared memory that Podman
// mounted in its directory stays, and makes the tool complain.
func (s *scenario) deleteStorage(id string) {
	s.t.Helper()
	s.do(s.storageCommand(s.gen, "delete-container", "-g", s.path("root"), "-R", s.path("run"), "-s", s.driver, id))
	if s.hasContainer(id) {
		s.t.Fatalf("container %s is still there", id)
	}
}

// deleteUnderneath has Podman delete the storage of a running pod's container. 5.4.2 does so with the image's;
// 4.3.1 does not see the container, whose record is a volatile one, and takes the image alone.
func (n *node) deleteUnderneath(id string) {
	n.t.Helper()
	n.podman("rmi", "-f", image)
	if !n.hasContainer(id) {
		return
	}
	if n.gen.name != "host" {
		n.t.Fatalf("podman left the storage of container %s", id)
	}
	n.must(n.do(n.doubleCommand("-delete", id)))
}

// TestDoctorWreck: a container of Podman's whose storage was deleted while it ran, beside one that was not.
func TestDoctorWreck(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		id := s.podman("run", "-d", "--name", "web", image, "sleep", "1000")
		fine := s.podman("run", "-d", "--name", "fine", image, "sleep", "1000")
		wreck, other := s.process(s.podmanPID("web")), s.process(s.podmanPID("fine"))
		s.wantHealthy(s)
		s.deleteStorage(id)

		before := s.look()
		r := s.unmoor("doctor").wantCode(t, 2)
		r.wantSaid(t, "Wreck: container web ("+id[:12]+") of podman", "pid "+strconv.Itoa(wreck.pid), "doctor --repair "+id[:12])
		t.Log(r)
		if all := s.findings(s); len(all) != 1 || all[0].Damage != "wreck" || all[0].Use != "in_use" || all[0].Dead {
			t.Errorf("not the wreck alone: %+v", all)
		}
		// Without its name nothing is ended.
		s.unmoor("doctor", "--repair", "--time", "0").wantCode(t, 2)
		s.unmoor("doctor", "--repair", "--time", "0", "fine").wantCode(t, 1).wantSaid(t, "fine")
		s.wantSame(before)
		wantAlive(t, wreck, other)

		r = s.unmoor("doctor", "--repair", "--time", "0", "web").wantCode(t, 0).wantSaid(t, "Repaired: Wreck", "web")
		t.Log(r)
		wantGone(t, []process{wreck})
		wantAlive(t, other)
		if left := s.podmanContainers(); len(left) != 1 || !strings.Contains(left[0], fine[:12]) {
			t.Errorf("podman lists %v", left)
		}
		s.podman("exec", "fine", "cat", "/etc/name")
		s.wantHealthy(s)
		s.check()
	})
}

// TestDoctorPodOfCRIO: the case that justifies the product. Podman deletes the image of a running pod, exits
// with 0, and leaves a pod that CRI-O can neither enter nor stop.
func TestDoctorPodOfCRIO(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		n := newNode(s)
		web, job := n.pod("web", cri.NamespaceMode_CONTAINER), n.pod("job", cri.NamespaceMode_POD)
		app := n.run(web, "app", image, "sleep", "1000")
		wreck, infra := n.firstProcess(app), n.firstProcess(job)
		s.wantHealthy(n)
		n.deleteUnderneath(app)
		wantAlive(t, wreck)
		_, pods := n.lists()

		r := n.unmoor("doctor").wantCode(t, 2)
		r.wantSaid(t, "Wreck: container shop/web/app ("+app[:12]+") of crio, in pod shop/web", "pid "+strconv.Itoa(wreck.pid))
		t.Log(r)
		n.unmoor("doctor", "--repair", "--time", "1").wantCode(t, 2)
		wantAlive(t, wreck)

		r = n.unmoor("doctor", "--repair", "--time", "1", "shop/web").wantCode(t, 0).wantSaid(t, "Repaired: Wreck", "shop/web/app")
		t.Log(r)
		wantGone(t, []process{wreck})
		wantAlive(t, infra)
		containers, after := n.lists()
		if len(containers) > 0 || !slices.Equal(pods, after) {
			t.Errorf("CRI-O lists the containers %v, and the pods %v, which were %v", containers, after, pods)
		}
		// The pod is of use as before.
		s.importImage("image", image)
		next := n.run(web, "again", image, obliging...)
		again := n.firstProcess(next)
		wantAlive(t, again)
		s.wantHealthy(n)

		// Another one, which a CRI-O that was started anew knows nothing of.
		n.deleteUnderneath(next)
		n.down()
		n.unmoor("doctor").wantCode(t, 125).wantSaid(t, "crio did not say what it has", "Wreck", strconv.Itoa(again.pid))
		n.up()
		wantAlive(t, again)
		r = n.unmoor("doctor", "--repair", "--time", "1", strconv.Itoa(again.pid)).wantCode(t, 0).wantSaid(t, "Repaired: Wreck")
		t.Log(r)
		wantGone(t, []process{again})
		s.wantHealthy(n)
	})
}

// age makes a container's record older than any engine is given to record it.
func (s *scenario) age(id string) {
	s.t.Helper()
	for _, file := range []string{"containers.json", "volatile-containers.json"} {
		s.edit("root/"+s.driver+"-containers/"+file, func(r map[string]any) {
			if r["id"] == id {
				r["created"] = time.Now().Add(-48 * time.Hour).Format(time.RFC3339Nano)
			}
		})
	}
}

// edit changes the objects of one of the store's JSON files, which need not be there.
func (s *scenario) edit(file string, change func(map[string]any)) {
	s.t.Helper()
	b, err := os.ReadFile(s.path(file))
	if os.IsNotExist(err) || len(b) == 0 {
		return
	}
	var all []map[string]any
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	for _, r := range all {
		change(r)
	}
	if err == nil {
		b, err = json.Marshal(all)
	}
	if err == nil {
		err = os.WriteFile(s.path(file), b, 0o600)
	}
	if err != nil {
		s.t.Fatalf("edit %s: %v", file, err)
	}
}

// damage is one that is made, and what the doctor has to say of it.
type damage struct {
	kind string
	// make returns what the finding is called by.
	make func(s *scenario) string
	dead bool
	// vfs is whether there is such a damage with the vfs driver.
	vfs bool
	// after checks what a repair must not have cost.
	after func(s *scenario)
}

var damaged = []damage{
	{kind: "lost_storage", dead: true, vfs: true, make: func(s *scenario) string {
		id := s.podman("create", "--name", "lost", image, "true")
		s.deleteStorage(id)
		return id
	}},
	{kind: "lost_record", vfs: true, make: func(s *scenario) string {
		meta := `{"image-name":"` + image + `","image-id":"","name":"forgotten","created-at":1}`
		id := strings.Fields(s.storage("create-container", "--name", "forgotten", "--metadata", meta, image))[0]
		s.age(id)
		return id
	}},
	{kind: "lost_layer", dead: true, vfs: true, make: func(s *scenario) string {
		id := s.unknown("half", image)
		directory := s.layerDirectory(id)
		layer := filepath.Base(directory)
		dropRecord(s.t, s.path("root/"+s.driver+"-layers/layers.json"), layer)
		for _, path := range append(linksTo(s.path("root/overlay/l"), layer), directory) {
			if err := os.RemoveAll(path); err != nil {
				s.t.Fatal(err)
			}
		}
		return id
	}},
	{kind: "stray_mount", dead: true, make: func(s *scenario) string {
		id := strings.Repeat("ab", 32)
		at := s.path("root/overlay/" + id + "/diff/mnt")
		s.mkdir(at)
		s.mkdir(s.path("precious"))
		s.write("precious/data", "data")
		s.bind(s.path("precious"), at)
		return id
	}, after: func(s *scenario) {
		if b, err := os.ReadFile(s.path("precious/data")); err != nil || string(b) != "data" {
			s.t.Errorf("the host's data is gone: %v", err)
		}
	}},
	{kind: "stray_directory", dead: true, vfs: true, make: func(s *scenario) string {
		id := strings.Repeat("cd", 32)
		s.mkdir(s.path("root/" + s.driver + "-containers/" + id + "/userdata"))
		return id
	}},
	{kind: "unreferenced_layer", dead: true, vfs: true, make: func(s *scenario) string {
		return strings.Fields(s.storage("create-layer"))[0]
	}},
	{kind: "stale_mount_count", dead: true, make: func(s *scenario) string {
		id := s.unknown("counted", image)
		merged := s.mountUnknown(id)
		if err := s.gen.in("umount", merged); err != nil {
			s.t.Fatal(err)
		}
		return id
	}},
}

func (s *scenario) mkdir(path string) {
	s.t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// TestDoctorDamage makes each kind of damage for real, finds it, repairs it, and checks the store and the
// engine.
func TestDoctorDamage(t *testing.T) {
	on(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		target := s.importImage("image", image)
		s.podman("run", "-d", "--name", "runs", image, "sleep", "1000")
		runs := s.process(s.podmanPID("runs"))
		s.buildah("from", "--pull-never", "--name", "b", image)
		s.mountUnknown(s.unknown("mounted", image)) // by the store's own count: no damage
		s.wantHealthy(s)
		made := make(map[string]string)
		for _, d := range damaged {
			if s.driver == "vfs" && !d.vfs {
				continue
			}
			made[d.kind] = d.make(s)
		}
		all := s.findings(s, "--max", "0")
		for _, d := range damaged {
			id := made[d.kind]
			i := slices.IndexFunc(all, func(f finding) bool {
				return f.Damage == d.kind && (f.Container == id || f.Layer == id || f.Path == id)
			})
			switch {
			case id == "":
			case i < 0:
				t.Errorf("no %s of %s", d.kind, id)
			case all[i].Dead != d.dead:
				t.Errorf("%s: dead is %t: %+v", d.kind, all[i].Dead, all[i])
			}
		}
		if len(all) != len(made) {
			t.Errorf("%d findings of %d damages: %+v", len(all), len(made), all)
		}
		// A layer that came into being just now may be one that is being fetched.
		if young := s.findings(s); slices.ContainsFunc(young, func(f finding) bool { return f.Damage == "unreferenced_layer" }) {
			t.Errorf("a young layer is taken for damage: %+v", young)
		}
		t.Log(s.unmoor("doctor", "--max", "0").wantCode(t, 2))

		r := s.unmoor("doctor", "--max", "0", "--repair").wantCode(t, 2)
		t.Log(r)
		left := s.findings(s, "--max", "0")
		if len(left) != 1 || left[0].Damage != "lost_record" {
			t.Errorf("left after the repair of what is dead: %+v", left)
		}
		for _, d := range damaged {
			if d.after != nil && made[d.kind] != "" {
				d.after(s)
			}
		}
		t.Log(s.unmoor("doctor", "--repair", made["lost_record"][:12]).wantCode(t, 0))
		s.wantHealthy(s)
		s.check()
		wantAlive(t, runs)
		s.podman("exec", "runs", "cat", "/etc/name")
		if !s.hasImage(target) {
			t.Error("the image is gone")
		}
		s.unmoor("rmi", "--force=kill", "--time", "0", image).wantCode(t, 0)
	})
}

// TestDoctorKeepsWhatIsUsed: damage that a process uses is named and left alone.
func TestDoctorKeepsWhatIsUsed(t *testing.T) {
	hostOnly(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		id := strings.Repeat("ef", 32)
		at := s.path("root/" + s.driver + "-containers/" + id + "/userdata")
		s.mkdir(at)
		s.write("root/"+s.driver+"-containers/"+id+"/userdata/data", "data")
		holder := s.shell("sleep", `cd "$1"; exec sleep 1003`, at)
		for _, args := range [][]string{{}, {id}} {
			r := s.unmoor(append([]string{"doctor", "--max", "0", "--repair"}, args...)...).wantCode(t, 2)
			r.wantSaid(t, strconv.Itoa(holder.pid))
		}
		if _, err := os.Stat(filepath.Join(at, "data")); err != nil {
			t.Error(err)
		}
		wantAlive(t, holder.process)
		holder.kill()
		<-holder.done
		s.unmoor("doctor", "--max", "0", "--repair").wantCode(t, 0).wantSaid(t, fmt.Sprintf("Repaired: Stray directory: container %s", id[:12]))
		s.wantHealthy(s)
	})
}

// TestDoctorOfAnotherRunRoot: from a run root that is not the engine's, its mounted container looks as if its
// mount was left behind. Nothing is done about that unasked.
func TestDoctorOfAnotherRunRoot(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		merged := s.mountUnknown(s.unknown("u", image))
		r := s.do(s.gen.command(s.environment(), unmoorBinary, "--root", s.path("root"), "--runroot", s.path("run2"),
			"--storage-driver", s.driver, "doctor", "--repair")).wantCode(t, 125)
		r.wantSaid(t, "another run root", "podman did not say what it has")
		if _, err := os.Stat(filepath.Join(merged, "etc/name")); err != nil {
			t.Errorf("it was unmounted: %v; %v", err, r)
		}
	})
}
