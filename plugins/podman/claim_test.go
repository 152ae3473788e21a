package podman_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/podman"
)

func TestClaim(t *testing.T) { everyGeneration(t, testClaim) }

func testClaim(t *testing.T, s *scene) {
	s.image("localhost/other")
	running := s.run("--name", "running", "--label", "PODMAN_SYSTEMD_UNIT=running.service", "localhost/bb", "sleep", "1000")
	created := s.create("--name", "created", "localhost/bb", "sleep", "1000")
	paused := s.run("--name", "paused", "localhost/bb", "sleep", "1000")
	s.podman("pause", "paused")
	exited := s.run("--name", "exited", "localhost/bb", "true")
	s.podman("wait", "exited")
	initialized := s.create("--name", "initialized", "localhost/bb", "sleep", "1000")
	s.podman("init", "initialized")
	sharer := s.create("--name", "sharer", "--net", "container:running", "localhost/other", "true")
	second := s.create("--name", "second", "--ipc", "container:sharer", "--net", "none", "localhost/other", "true")
	s.podman("volume", "create", "--driver", "image", "--opt", "image=localhost/bb", "data")
	mounter := s.create("--name", "mounter", "-v", "data:/data", "--mount", "type=image,src=localhost/bb,dst=/image", "localhost/other", "true")
	s.podman("pod", "create", "--name", "web", "--infra-image", "localhost/bb", "--infra-command", "sleep 1000")
	member := s.run("--name", "member", "--pod", "web", "localhost/bb", "sleep", "1000")
	infra := core.ContainerID(s.podman("ps", "-a", "--no-trunc", "-q", "--filter", "name=infra"))
	image := core.ImageID(s.podman("image", "inspect", "--format", "{{.Id}}", "localhost/bb"))
	var volume core.ContainerID
	for _, c := range s.containers() {
		if slices.Contains(c.Names, "data+volume") {
			volume = c.ID
		}
	}

	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			claims := s.claim(m.plugin(&scene{t: t, dir: s.dir, command: s.command, env: s.env, store: s.store, tmpdir: s.tmpdir}))
			if len(claims) != 11 {
				t.Errorf("%d claims", len(claims))
			}
			if got := claims[running].Labels["PODMAN_SYSTEMD_UNIT"]; got != "running.service" {
				t.Errorf("the labels of running are %v", claims[running].Labels)
			}
			for _, want := range []struct {
				id     core.ContainerID
				name   string
				state  core.State
				use    core.Use
				group  string
				along  []core.ContainerID
				images []core.ImageID
			}{
				{running, "running", core.StateRunning, core.UseInUse, "", []core.ContainerID{sharer, second}, nil},
				{created, "created", core.StateCreated, core.UseIdle, "", nil, nil},
				{paused, "paused", core.StatePaused, core.UseInUse, "", nil, nil},
				{exited, "exited", core.StateStopped, core.UseIdle, "", nil, nil},
				{initialized, "initialized", core.StateRunning, core.UseInUse, "", nil, nil},
				{sharer, "sharer", core.StateCreated, core.UseIdle, "", []core.ContainerID{second}, nil},
				{second, "second", core.StateCreated, core.UseIdle, "", nil, nil},
				{mounter, "mounter", core.StateCreated, core.UseIdle, "", nil, []core.ImageID{image}},
				{member, "member", core.StateRunning, core.UseInUse, "web", nil, nil},
				{infra, "", core.StateRunning, core.UseInUse, "web", []core.ContainerID{member}, nil},
				{volume, "data", core.StateStopped, core.UseUnknown, "", []core.ContainerID{mounter}, nil},
			} {
				c := claims[want.id]
				if c.Ownership != core.OwnershipMine || c.State != want.state || c.Use != want.use || c.Group != want.group {
					t.Errorf("%s: %s, %s, %s, group %q", want.name, c.Ownership, c.State, c.Use, c.Group)
				}
				if want.name != "" && c.DisplayName != want.name {
					t.Errorf("%s is called %s", want.name, c.DisplayName)
				}
				slices.Sort(want.along)
				if diff := cmp.Diff(want.along, c.TakesAlong); diff != "" {
					t.Errorf("%s takes along: %s", want.name, diff)
				}
				if diff := cmp.Diff(want.images, c.ImageVolumes); diff != "" {
					t.Errorf("%s mounts images: %s", want.name, diff)
				}
				if c.Revision == "" || len(c.Evidence) == 0 {
					t.Errorf("%s: revision %q, %d pieces of evidence", want.name, c.Revision, len(c.Evidence))
				}
				processes := core.Processes(c.Evidence)
				if want.use == core.UseInUse && (len(processes) != 2 || processes[0].StartTime == 0 || processes[0].OnHost) {
					t.Errorf("%s: the processes are %+v", want.name, processes)
				}
				if want.use != core.UseInUse && len(processes) > 0 {
					t.Errorf("%s: it has processes: %+v", want.name, processes)
				}
			}
			if !slices.ContainsFunc(claims[running].Evidence, func(e core.Evidence) bool { return strings.Contains(e.Detail, "running.service") }) {
				t.Error("the systemd unit goes unnamed")
			}
		})
	}

	t.Run("a batch of one sees the whole store", func(t *testing.T) {
		one := slices.DeleteFunc(s.containers(), func(c core.Container) bool { return c.ID != running })
		claims, err := s.cli().Claim(context.Background(), s.store, one)
		if err != nil {
			t.Fatal(err)
		}
		along := []core.ContainerID{sharer, second}
		slices.Sort(along)
		if diff := cmp.Diff(along, claims[0].TakesAlong); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("strangers with Podman's metadata", func(t *testing.T) {
		containers := s.containers()
		stranger := containers[0]
		stranger.ID = core.ContainerID(strings.Repeat("0123", 16))
		stranger.Created = time.Now().Add(-10 * time.Second)
		batch := append(containers, stranger)
		old, err := s.cli().Claim(context.Background(), s.store, batch)
		if err != nil {
			t.Fatal(err)
		}
		if c := old[len(old)-1]; c.Ownership != core.OwnershipNotMine {
			t.Errorf("what podman does not know is %s", c.Ownership)
		}
		if old[0].Ownership != core.OwnershipMine {
			t.Errorf("it costs the others their claim: %s", old[0].Ownership)
		}
		patient := s.plugin(podman.Options{Command: s.command, TmpDir: s.tmpdir, Env: s.env})
		young, err := patient.Claim(context.Background(), s.store, batch)
		if err != nil {
			t.Fatal(err)
		}
		if c := young[len(young)-1]; c.Ownership != core.OwnershipUnknown {
			t.Errorf("what podman may be about to record is %s", c.Ownership)
		}
	})

	t.Run("another run root is no answer", func(t *testing.T) {
		other := s.store
		other.RunRoot = filepath.Join(s.dir, "run2")
		if claims, err := s.cli().Claim(context.Background(), other, s.containers()); err == nil {
			t.Errorf("claimed all the same: %+v", claims[0])
		}
	})

	t.Run("a service on another store", func(t *testing.T) {
		other := s.store
		other.GraphRoot = t.TempDir()
		sub := &scene{t: t, dir: s.dir, command: s.command, env: s.env, store: s.store, tmpdir: s.tmpdir}
		if err := os.Remove(filepath.Join(s.dir, "api.sock")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		p := sub.api()
		claims, err := p.Claim(context.Background(), other, s.containers())
		if err == nil {
			t.Fatalf("claimed all the same: %+v", claims[0])
		}
		for _, said := range []string{"podman at unix:", "serves another store (" + s.store.GraphRoot + ")", other.GraphRoot} {
			if !strings.Contains(err.Error(), said) {
				t.Errorf("%v: without %q", err, said)
			}
		}
		// What is not like Podman's is no matter of its.
		if _, err := p.Claim(context.Background(), other, plain); err != nil {
			t.Error(err)
		}
	})
}

// TestMountedImageGone: an image that a container mounts by a name that it has lost is no error.
func TestMountedImageGone(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		s.image("localhost/other")
		id := s.create("--mount", "type=image,src=localhost/other,dst=/image", "localhost/bb", "true")
		s.podman("tag", "localhost/other", "localhost/renamed")
		s.podman("untag", "localhost/other", "localhost/other")
		if c := s.claim(p)[id]; c.Ownership != core.OwnershipMine || len(c.ImageVolumes) > 0 {
			t.Errorf("%+v", c)
		}
		// Podman cannot remove such a container.
		s.podman("tag", "localhost/renamed", "localhost/other")
	})
}

// TestOlderPodman: one that cannot read the store's database is no answer, and is not run on it.
func TestOlderPodman(t *testing.T) {
	g := generations()
	s := newScene(t, g[1])
	id := s.create("--name", "created", "localhost/bb", "true")
	older := s.plugin(podman.Options{Command: []string{g[0].podman}, TmpDir: s.tmpdir, Env: s.env, Settling: -1})
	if version, err := older.Describe(t.Context()); err != nil || !strings.HasPrefix(version.EngineVersion, "4.3.") {
		t.Skipf("the host's podman is %s, and reads SQLite", version.EngineVersion)
	}
	for range 2 {
		if claims, err := older.Claim(t.Context(), s.store, s.containers()); err == nil || !strings.Contains(err.Error(), "SQLite") || !strings.Contains(advice(err), "[plugin.podman] command") {
			t.Errorf("%+v, %v", claims, err)
		}
		if claims, err := older.List(t.Context(), s.store); err == nil {
			t.Errorf("%+v", claims)
		}
	}
	if _, err := os.Stat(filepath.Join(s.store.GraphRoot, "libpod/bolt_state.db")); !os.IsNotExist(err) {
		t.Errorf("it made a database: %v", err)
	}
	if c := s.claim(s.cli())[id]; c.Ownership != core.OwnershipMine {
		t.Errorf("%+v", c)
	}
}

// advice is what an error has an operator do.
func advice(err error) string {
	var a interface{ Advice() string }
	if !errors.As(err, &a) {
		return ""
	}
	return a.Advice()
}

// plain is a container of Buildah's, CRI-O's and nobody's.
var plain = []core.Container{
	{ID: core.ContainerID(strings.Repeat("a", 64))},
	{ID: core.ContainerID(strings.Repeat("b", 64)), Metadata: `{"image-name":"x","pod-name":"p","pod-id":"q"}`},
	{ID: core.ContainerID(strings.Repeat("c", 64)), Metadata: `not json`},
}

func podmans() core.Container {
	return core.Container{ID: core.ContainerID(strings.Repeat("d", 64)),
		Metadata: `{"image-name":"x","image-id":"y","name":"z","created-at":1}`}
}

// fakePodman writes a shell script that stands for podman.
func fakePodman(t *testing.T, script string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "podman")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return []string{path}
}

func TestPodmanIsNotRunForOthers(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	p, err := podman.New(podman.Options{Command: fakePodman(t, "touch "+ran)})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := p.Claim(context.Background(), core.StoreInfo{}, plain)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range claims {
		if c.Container != plain[i].ID || c.Ownership != core.OwnershipNotMine {
			t.Errorf("%+v", c)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("podman was run")
	}
}

func TestBrokenPodman(t *testing.T) {
	id := strings.Repeat("d", 64)
	const noVolumes = `case "$*" in *volume*) echo '[]'; exit 0;; esac; `
	for _, test := range []struct {
		name, script string
		// unsure where there is an answer, but none about the container; else an error
		unsure bool
	}{
		{"fails", "echo 'Error: database is locked' >&2; exit 125", false},
		{"prints nonsense", "echo hello", false},
		{"prints nothing", "", false},
		{"prints half", `printf '[{"Id":"` + id + `","Sta'`, false},
		{"prints a record without a state", `echo '[{"Id":"` + id + `"}]'`, false},
		{"prints a record twice", `r='{"Id":"` + id + `","State":{"Status":"running"}}'; echo "[$r,$r]"`, false},
		{"leaves it out", noVolumes + "echo '[]'", true},
		{"fails and leaves it out", noVolumes + "echo '[]'; echo 'Error: no such file' >&2; exit 125", true},
		{"means another one", noVolumes + "echo '[]'; echo 'Error: no such container " + strings.Repeat("e", 64) + "' >&2; exit 125", true},
		{"floods", "exec cat /dev/zero", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, err := podman.New(podman.Options{Command: fakePodman(t, test.script)})
			if err != nil {
				t.Fatal(err)
			}
			claims, err := p.Claim(context.Background(), core.StoreInfo{}, []core.Container{podmans()})
			if !test.unsure {
				if err == nil {
					t.Errorf("claims %+v", claims)
				}
				if test.name == "fails" && !strings.Contains(advice(err), "podman ps -a") {
					t.Errorf("%v: the advice is %q", err, advice(err))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if claims[0].Ownership != core.OwnershipUnknown {
				t.Errorf("it is %s", claims[0].Ownership)
			}
		})
	}
	t.Run("is not installed", func(t *testing.T) {
		p, err := podman.New(podman.Options{Command: []string{"podman-that-is-not-there"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Claim(context.Background(), core.StoreInfo{}, []core.Container{podmans()}); err == nil {
			t.Error("no error")
		}
	})
	t.Run("has no service", func(t *testing.T) {
		p, err := podman.New(podman.Options{Address: "unix:" + filepath.Join(t.TempDir(), "sock")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Claim(context.Background(), core.StoreInfo{}, []core.Container{podmans()}); err == nil {
			t.Error("no error")
		}
	})
}

// TestHungPodman: its children end with it.
func TestHungPodman(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	p, err := podman.New(podman.Options{Command: fakePodman(t, "trap '' TERM; sleep 1000 & echo $$ $! >"+pids+".new; mv "+pids+".new "+pids+"; wait; sleep 1000")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		_, err := p.Claim(ctx, core.StoreInfo{}, []core.Container{podmans()})
		ended <- err
	}()
	exists(t, pids)
	began := time.Now()
	cancel()
	if err := <-ended; err == nil {
		t.Error("no error")
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	text, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(text)) {
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if exec.Command("kill", "-0", pid).Run() != nil {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("process %s lives on", pid)
			}
		}
	}
}

func TestAddress(t *testing.T) {
	for address, good := range map[string]bool{
		"unix:/run/podman/podman.sock": true, "unix:///run/podman/podman.sock": true,
		"/run/podman/podman.sock": false, "unix:podman.sock": false, "tcp:localhost:80": false, "unix:": false,
	} {
		if _, err := podman.New(podman.Options{Address: address}); (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		d, err := p.Describe(context.Background())
		if err != nil || d.Name != podman.Name || d.EngineVersion == "" || len(d.Hints) == 0 {
			t.Errorf("%+v, %v", d, err)
		}
	})
}
