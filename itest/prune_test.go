package itest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pruned is what `unmoor prune --format json` says.
type pruned struct {
	Plan struct {
		Revision string
		Removals []struct {
			Image, Container string
			Actions          []action
			Blockers         []any
		}
	}
	Prune struct {
		Kept        []struct{ Image, Container, Reason string }
		Bytes       int64
		Disk, After *disk
		Wanted      int64
	}
	Results []struct {
		Status string
		Done   []action
	}
	ReclaimedBytes int64
}

type action struct{ Verb, Image, Container, Name, Owner string }

type disk struct{ Capacity, Available int64 }

// used is how full it is, in parts of a hundred.
func (d disk) used() int { return 100 - int(d.Available*100/d.Capacity) }

func (r result) pruned(t *testing.T) (p pruned) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		t.Fatalf("%v in %v", err, r)
	}
	return p
}

// all takes whatever nobody uses, however young.
var all = []string{"prune", "--all", "--stopped", "--build-leftovers", "--min-age", "0s", "--abandoned-age", "0s", "--format", "json"}

// planned are the actions of a plan, done those that were carried out; but for mounts, which are found as
// they are.
func (p pruned) planned() (all []string) {
	for _, r := range p.Plan.Removals {
		for _, a := range r.Actions {
			if a.Verb != "unmount" {
				all = append(all, fmt.Sprint(a))
			}
		}
	}
	slices.Sort(all)
	return all
}

func (p pruned) done() (all []string) {
	for _, r := range p.Results {
		for _, a := range r.Done {
			if a.Verb != "unmount" {
				all = append(all, fmt.Sprint(a))
			}
		}
	}
	slices.Sort(all)
	return all
}

// TestPrune: a store with everybody's containers, in use and idle. What is planned is what happens, all of
// the idle goes and nothing of what is in use, and the engines go on.
func TestPrune(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		sc := newScene(s, true)
		free := s.importImage("image", "localhost/unmoor/free:1")
		s.podman("tag", "localhost/unmoor/free:1", "localhost/unmoor/free:2")
		s.write("Containerfile", "FROM "+bystander+"\nRUN touch /one\nRUN touch /two\n")
		s.podman("build", "--layers", "--network", "none", "-t", "localhost/unmoor/built:1", "-f", s.path("Containerfile"), s.path("tmp"))
		s.podman("untag", "localhost/unmoor/built:1") // with two parents that have no name either

		before := s.containers()
		images := s.images()
		r := s.unmoor(append(all, "--dry-run")...).wantCode(t, 0)
		plan := r.pruned(t)
		if len(s.containers()) != len(before) || len(s.images()) != len(images) {
			t.Fatalf("a dry run has changed something: %v", r)
		}
		for _, removal := range plan.Plan.Removals {
			if len(removal.Blockers) > 0 {
				t.Errorf("what is planned is blocked: %+v", removal)
			}
			for _, a := range removal.Actions {
				if a.Verb == "stop" || a.Verb == "kill" {
					t.Errorf("somebody would be stopped: %+v", a)
				}
			}
		}
		r = s.unmoor(append(all, "--plan", plan.Plan.Revision)...).wantCode(t, 0)
		did := r.pruned(t)
		if diff := cmp.Diff(plan.planned(), did.done()); diff != "" {
			t.Errorf("(-planned +done):\n%s", diff)
		}
		if did.ReclaimedBytes < plan.Prune.Bytes*9/10 || did.ReclaimedBytes > plan.Prune.Bytes*11/10 {
			t.Errorf("%d bytes were planned, and %d given free", plan.Prune.Bytes, did.ReclaimedBytes)
		}

		wantAlive(t, append(slices.Collect(maps.Values(sc.inUse)), sc.beside, sc.infra, sc.holder.process)...)
		if err := sc.holder.sees("/etc/name"); err != nil {
			t.Errorf("the files of a live process are gone: %v", err)
		}
		var left []string
		for _, c := range s.containers() {
			left = append(left, strings.Split(c.Names[0], "-infra")[0])
		}
		for name := range sc.idle {
			if slices.Contains(left, name) {
				t.Errorf("%s is idle, and left", name)
			}
		}
		for name := range sc.inUse {
			if !slices.Contains(left, name) {
				t.Errorf("%s is in use, and gone", name)
			}
		}
		if len(left) != len(sc.inUse)+3 { // beside, the pod's infra container, u-live
			t.Errorf("there are %v", left)
		}
		if !sc.hasImage(sc.target) || !sc.hasImage(sc.bystander) || sc.hasImage(free) || len(s.images()) > 3 { // and Podman's pause image
			t.Errorf("there are %v", s.images())
		}
		// The engines' records are right.
		s.podman("exec", "beside", "cat", "/etc/name")
		s.podman("restart", "-t", "0", "beside")
		s.buildah("inspect", "b-run")
		s.check()
		s.unmoor(all...).wantCode(t, 125).wantSaid(t, "no terminal to ask at")
		if again := s.unmoor(append(all, "--force")...).wantCode(t, 0).pruned(t); len(again.Plan.Removals) > 0 {
			t.Errorf("and once more: %+v", again)
		}
	})
}

// TestPruneCRIO: pods of CRI-O go whole or stay whole, what it pins stays, and while it does not answer nothing
// of it is touched.
func TestPruneCRIO(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		n := newNode(s)
		live, mixed, over := n.pod("live", cri.NamespaceMode_POD), n.pod("mixed", cri.NamespaceMode_CONTAINER), n.pod("over", cri.NamespaceMode_CONTAINER)
		runs := []process{n.firstProcess(n.run(live, "app", image, "sleep", "1000")), n.firstProcess(n.run(mixed, "app", image, "sleep", "1000"))}
		n.exited(mixed, "init", image)
		n.exited(over, "job", image)
		if _, err := n.runtime.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: over}); err != nil {
			t.Fatal(err)
		}
		free := s.importImage("image", "localhost/unmoor/free:1")
		before, pods := n.lists()

		n.down()
		r := n.unmoor(append(all, "--force")...).wantCode(t, 0).wantSaid(t, "owner_unavailable")
		if p := r.pruned(t); len(p.Plan.Removals) > 0 || len(p.Prune.Kept) == 0 {
			t.Errorf("while CRI-O does not answer: %v", r)
		}
		n.up()
		n.unmoor(append(all, "--force")...).wantCode(t, 0)
		after, left := n.lists()
		if len(after) != len(before)-1 || len(left) != len(pods)-1 || strings.Contains(fmt.Sprint(left), over) {
			t.Errorf("of %v %v there are %v %v", before, pods, after, left)
		}
		wantAlive(t, runs...)
		if s.hasImage(free) || !s.hasImage(n.target) || len(s.images()) != 2 {
			t.Errorf("there are %v", s.images())
		}
		s.check()
	})
}

// attic makes what a prune takes, and a container in use.
func attic(s *scenario) process {
	s.t.Helper()
	s.importImage("image", image)
	s.importImage("bystander", bystander)
	s.podman("run", "-d", "--name", "beside", bystander, "sleep", "1000")
	s.podman("create", "--name", "p-created", image, "true")
	s.buildah("from", "--pull-never", "--name", "b-idle", image)
	s.mountUnknown(s.unknown("u-mounted", image))
	s.unknown("u-plain", bystander)
	s.write("Containerfile", "FROM "+bystander+"\nRUN touch /one\n")
	s.podman("build", "--layers", "--network", "none", "-t", "localhost/unmoor/built:1", "-f", s.path("Containerfile"), s.path("tmp"))
	return s.process(s.podmanPID("beside"))
}

// TestPruneKilled kills a prune in the middle; the same command completes. TestKilledAtEveryStep has the other
// steps, which are the same.
func TestPruneKilled(t *testing.T) {
	hostOnly(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		prune := append(all, "--force")
		attic(s)
		r := s.dieAt("list", prune...).wantCode(t, 0)
		var reached []string
		for _, m := range stepLine.FindAllStringSubmatch(r.stderr, -1) {
			reached = append(reached, m[1])
		}
		want := s.images()
		steps := []string{"remove", "delete_container", "store_announce", "store_delete", "store_complete"}
		if s.driver == "vfs" || testing.Short() {
			steps = []string{"delete_container", "store_complete"}
		}
		for _, step := range steps {
			t.Run(step, func(t *testing.T) {
				if !slices.Contains(reached, step) {
					t.Fatalf("it is not among %v", reached)
				}
				s := newScenario(t, s.gen, s.driver)
				beside := attic(s)
				if r := s.dieAt(step, prune...); r.code != -1 {
					t.Fatalf("not killed: %v", r)
				}
				s.unmoor(prune...).wantCode(t, 0)
				wantAlive(t, beside)
				if len(s.containers()) != 1 || len(s.images()) != len(want) {
					t.Errorf("left are %v %v", s.containers(), s.images())
				}
				s.check()
				if again := s.unmoor(prune...).wantCode(t, 0); strings.Contains(again.stdout, "completed") || len(again.pruned(t).Plan.Removals) > 0 {
					t.Errorf("there was something to do once more: %v", again)
				}
				s.podman("exec", "beside", "true")
			})
		}
	})
}

// onLoop puts the scenario's graph root on a file system of its own of so many MiB.
func (s *scenario) onLoop(size int64) {
	s.t.Helper()
	file := s.path("disk")
	f, err := os.Create(file)
	if err == nil {
		err = f.Truncate(size << 20)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.MkdirAll(s.path("root"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-m", "0", file}, {"mount", "-o", "loop", file, s.path("root")}} {
		if err := s.gen.in(args[0], args[1:]...); err != nil {
			skip(s.t, "no file system of its own: "+err.Error())
		}
	}
	// Before the scenario is swept, which cannot remove what is mounted upon.
	s.t.Cleanup(func() {
		eventually(s.t, "the file system can be unmounted", func() bool {
			if left := sweep(s.path("root")); len(left) > 0 {
				s.t.Log(left)
			}
			return s.gen.in("mountpoint", "-q", s.path("root")) != nil || s.gen.in("umount", s.path("root")) == nil
		})
	})
}

// large makes an image of so many MiB that compress to nothing less.
func (s *scenario) large(name string, size int) string {
	s.t.Helper()
	dir := s.path("large-" + name)
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	noise := make([]byte, size<<20)
	r := rand.New(rand.NewPCG(1, uint64(len(name))+uint64(name[0])))
	for i := 0; i < len(noise); i += 8 {
		v := r.Uint64()
		for k := range 8 {
			noise[i+k] = byte(v >> (8 * k))
		}
	}
	busybox, err := os.ReadFile(filepath.Join(run, "image/bin/busybox"))
	if err != nil {
		s.t.Fatal(err)
	}
	for file, content := range map[string][]byte{"noise": noise, "bin/sleep": busybox} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	archive := s.path(name + ".tar")
	if err := s.gen.in("tar", "-C", dir, "-cf", archive, "."); err != nil {
		s.t.Fatal(err)
	}
	id := s.podman("import", "-q", archive, "localhost/unmoor/"+name+":1")
	for _, path := range []string{dir, archive} {
		if err := os.RemoveAll(path); err != nil {
			s.t.Fatal(err)
		}
	}
	return strings.TrimPrefix(id, "sha256:")
}

func (s *scenario) disk() disk {
	s.t.Helper()
	var f syscall.Statfs_t
	if err := syscall.Statfs(s.path("root"), &f); err != nil {
		s.t.Fatal(err)
	}
	return disk{int64(f.Blocks) * f.Bsize, int64(f.Bavail) * f.Bsize}
}

// fill fills the file system until it is so full, in parts of a hundred.
func (s *scenario) fill(used int, name string) {
	s.t.Helper()
	f, err := os.OpenFile(s.path("root/"+name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); s.disk().used() < used; {
		if _, err := f.Write(block); err != nil {
			s.t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestPruneWhenFull: a small file system that is too full, and that fills further while it is pruned. Images
// go in the order of their last use, until there is room; the one in use and the protected one stay, and the
// one that was used last goes last.
func TestPruneWhenFull(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.onLoop(400)
		s.write("config.toml", "[prune]\nmin_age = \"0s\"\n[protect]\nimages = [\"*/kept\"]\n")
		prune := []string{"--config", s.path("config.toml"), "prune", "--force", "--when-full", "--format", "json"}
		look := func() { t.Helper(); s.unmoor(prune...).wantCode(t, 0) } // as a timer does
		ids := map[string]string{}
		for _, name := range []string{"kept", "running", "used", "first", "second", "third"} {
			ids[name] = s.large(name, 30)
			look()
		}
		s.podman("run", "-d", "--name", "runs", "localhost/unmoor/running:1", "/bin/sleep", "1000")
		runs := s.process(s.podmanPID("runs"))
		s.podman("create", "--name", "was", "localhost/unmoor/used:1", "/bin/sleep", "1")
		look()
		s.podman("rm", "was")
		if used := s.disk().used(); used >= 85 {
			t.Fatalf("it is %d%% full already", used)
		}
		s.fill(87, "ballast")

		// What fills it further, while it is pruned: no more than an image's worth.
		end := make(chan struct{})
		filled := make(chan error, 1)
		go func() {
			filled <- func() error {
				f, err := os.Create(s.path("root/more"))
				if err != nil {
					return err
				}
				defer f.Close()
				for n := 0; n < 20; n++ {
					select {
					case <-end:
						return nil
					case <-time.After(20 * time.Millisecond):
					}
					if _, err := f.Write(make([]byte, 1<<20)); err != nil {
						return err
					}
				}
				return f.Sync()
			}()
		}()
		r := s.unmoor(prune...)
		close(end)
		if err := <-filled; err != nil {
			t.Fatal(err)
		}
		p := r.wantCode(t, 0).pruned(t)
		var order []string
		for _, removal := range p.Plan.Removals {
			for name, id := range ids {
				if id == removal.Image {
					order = append(order, name)
				}
			}
		}
		t.Logf("from %d%% to %d%%: %v", p.Prune.Disk.used(), p.Prune.After.used(), order)
		if p.Prune.After.used() > 80 {
			t.Errorf("it is still %d%% full", p.Prune.After.used())
		}
		if want := []string{"first", "second", "third", "used"}; len(order) == 0 || !slices.Equal(order, want[:min(len(order), len(want))]) {
			t.Errorf("they went in the order %v", order)
		}
		if slices.Contains(order, "used") {
			t.Errorf("more went than was needed: %v", order)
		}
		// Whatever is wanted, what is in use or protected stays.
		r = s.unmoor(append(prune, "--high", "2%", "--low", "1%")...).wantCode(t, 2).wantSaid(t, "nothing more may go")
		for name, id := range ids {
			if want := name == "kept" || name == "running"; s.hasImage(id) != want {
				t.Errorf("%s is there: %v, after %v", name, !want, r)
			}
		}
		wantAlive(t, runs)
		s.podman("exec", "runs", "/bin/sleep", "0")
		s.check()
	})
}

// TestServePrunes: the service sees when images are used, containers that live for a moment included, and
// prunes by itself where the file system is full.
func TestServePrunes(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.onLoop(300)
		s.write("config.toml", fmt.Sprintf(`[store]
root = %q
runroot = %q
driver = %q
[prune]
enabled = true
interval = "1s"
min_age = "0s"
[audit]
file = %q
[plugins]
directory = %q
hints = %q
[plugin.podman]
command = ["podman", "--root", %[1]q, "--runroot", %[2]q]
[plugin.crio]
enabled = false
[log]
level = "info"
`, s.path("root"), s.path("run"), s.driver, s.path("audit.log"), s.path("plugins"), s.path("hints")))
		a, b := s.large("a", 40), s.large("b", 41)
		serve := s.start(s.gen.command(s.environment(), unmoorBinary, "--config", s.path("config.toml"), "serve", "--socket", s.path("socket")))
		journal := s.path("root/unmoor/usage.json")
		read := func() (j struct {
			Images map[string]struct{ Seen, Used time.Time }
		}) {
			text, err := os.ReadFile(journal)
			if err == nil {
				err = json.Unmarshal(text, &j)
			}
			if err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			return j
		}
		eventually(t, "the service has looked at the store", func() bool {
			if serve.ended() {
				t.Fatalf("serve: %v %s", serve.err, serve.out.String())
			}
			return len(read().Images) == 2
		})
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(serve.out.String())
			}
		})
		began := time.Now()
		s.podman("run", "--rm", "localhost/unmoor/a:1", "/bin/sleep", "0")
		s.fill(88, "ballast")
		eventually(t, "the image that was not used is gone", func() bool { return !s.hasImage(b) })
		eventually(t, "it is not too full", func() bool { return s.disk().used() <= 80 })
		if !s.hasImage(a) {
			t.Error("the image that was used last is gone, too")
		}
		audit, err := os.ReadFile(s.path("audit.log"))
		if err != nil || !strings.Contains(string(audit), `"method":"Prune"`) || !strings.Contains(string(audit), b) {
			t.Errorf("the audit log: %v %s", err, audit)
		}
		if err := serve.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-serve.done
		if serve.err != nil {
			t.Errorf("serve: %v %s", serve.err, serve.out.String())
		}
		j := read()
		if used := j.Images[a].Used; used.Before(began) {
			t.Errorf("the journal: %+v; it was used after %v", j, began)
		}
		s.check()
	})
}

// TestDf: what is counted is what is there, whoever holds it.
func TestDf(t *testing.T) {
	hostOnly(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		sc := newScene(s, true)
		r := s.unmoor("df", "-v", "--format", "json").wantCode(t, 0)
		var df struct {
			OfImages, OfContainers, Total struct{ Count, Active, Bytes, Now, AfterStop, Never int64 }
			Containers                    []struct {
				Name, Fate string
				Owners     []string
				Bytes      int64
			}
			Images []struct{ ID, Fate string }
		}
		if err := json.Unmarshal([]byte(r.stdout), &df); err != nil {
			t.Fatal(err)
		}
		if int(df.OfContainers.Count) != len(s.containers()) || int(df.OfImages.Count) != len(s.images()) ||
			df.Total.Bytes != df.Total.Now+df.Total.AfterStop+df.Total.Never || df.OfImages.Bytes <= 0 {
			t.Errorf("%+v", df)
		}
		for _, c := range df.Containers {
			_, idle := sc.idle[c.Name]
			_, inUse := sc.inUse[c.Name]
			if idle && c.Fate != "now" || inUse && c.Fate != "after_stop" || len(c.Owners) != 1 || c.Bytes < 0 {
				t.Errorf("%+v", c)
			}
		}
		for _, i := range df.Images {
			if (i.ID == sc.target || i.ID == sc.bystander) && i.Fate != "after_stop" {
				t.Errorf("%+v", i)
			}
		}
		s.unmoor("df").wantCode(t, 0).wantSaid(t, "TYPE", "Images", "podman", "buildah", "nobody", "% full")
		s.unmoor("df", "--html", s.path("store.html")).wantCode(t, 0)
		if page, err := os.ReadFile(s.path("store.html")); err != nil || !strings.Contains(string(page), "p-inpod") {
			t.Errorf("the map: %v", err)
		}
	})
}
