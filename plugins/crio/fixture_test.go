package crio

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// recorded has what a real CRI-O 1.37 wrote and answered.
const recorded = "testdata/crio-1.37"

// The recorded containers.
const (
	webPod   = "bc1faf15835ad957c3a73281ef5723ce36c2a64760bffad0776cda0b8f097c03"
	webApp   = "0a8175395fe2483ce1cb41dace913237d3e5ce5180a670617dabea12b7130b37"
	jobPod   = "5d5763f3dee952c2d5055bd652c691e3359117f98ece4fbd3cbfe56a28003351"
	jobBatch = "5559a25d4ac8b096cb973ce7c00b1f0f4969fde4d9598c77dddb7be4407d5dea"
	oldPod   = "758c6b51503a6cc2ee54386216de0b0118aa46822d38f59e47ab88ba01ceb10b"
	oldDone  = "f60c326399da37092d0afa861848792f3e35cbee77444475b2109293b25748d7"
)

// canned is a server with fixed answers.
type canned struct {
	cri.UnimplementedRuntimeServiceServer
	cri.UnimplementedImageServiceServer
	version    *cri.VersionResponse
	containers *cri.ListContainersResponse
	pods       *cri.ListPodSandboxResponse
	fs         *cri.ImageFsInfoResponse
}

func (c *canned) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return c.version, nil
}

func (c *canned) ListContainers(context.Context, *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	return c.containers, nil
}

func (c *canned) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	return c.pods, nil
}

func (c *canned) ImageFsInfo(context.Context, *cri.ImageFsInfoRequest) (*cri.ImageFsInfoResponse, error) {
	return c.fs, nil
}

// serve serves fixed answers and makes a plugin for them.
func (c *canned) serve(t *testing.T, o Options) *Plugin {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(server, c)
	cri.RegisterImageServiceServer(server, c)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	o.Address = "unix:" + socket
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

func fromJSON[M proto.Message](t testing.TB, file string, m M) M {
	t.Helper()
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(read(t, filepath.Join(recorded, file)), m); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return m
}

// replay is the recorded CRI-O, its store and its processes.
func replay(t *testing.T) (*canned, core.StoreInfo, []core.Container) {
	t.Helper()
	dir := t.TempDir()
	store := core.StoreInfo{GraphRoot: filepath.Join(dir, "storage"), RunRoot: filepath.Join(dir, "run"), GraphDriver: "overlay"}
	home := filepath.Join(store.GraphRoot, "overlay-containers")
	write(t, filepath.Join(home, "containers.json"), read(t, filepath.Join(recorded, "storage-containers.json")))
	write(t, filepath.Join(home, "volatile-containers.json"), read(t, filepath.Join(recorded, "storage-volatile-containers.json")))
	for _, id := range []string{webPod, webApp, jobBatch, oldDone} {
		for _, file := range []string{"state.json", "config.json"} {
			write(t, filepath.Join(home, id, "userdata", file), read(t, filepath.Join(recorded, "userdata", id, file)))
		}
	}
	c := &canned{version: &cri.VersionResponse{RuntimeName: "cri-o", RuntimeVersion: "1.37.0"},
		containers: fromJSON(t, "list-containers.json", &cri.ListContainersResponse{}),
		pods:       fromJSON(t, "list-pod-sandbox.json", &cri.ListPodSandboxResponse{}),
		fs:         at(filepath.Join(store.GraphRoot, "overlay-images"))}
	return c, store, storedIn(t, store)
}

func at(path string) *cri.ImageFsInfoResponse {
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{{FsId: &cri.FilesystemIdentifier{Mountpoint: path}}}}
}

// procWith is a proc file system with these processes.
func procWith(t *testing.T, starts map[int]uint64) processes {
	t.Helper()
	dir := t.TempDir()
	for pid, start := range starts {
		stat := fmt.Sprintf("%d (a) b) c) S 1 %s%d 0 0", pid, strings.Repeat("0 ", 17), start)
		write(t, fmt.Sprintf("%s/%d/stat", dir, pid), []byte(stat))
		write(t, fmt.Sprintf("%s/%d/cmdline", dir, pid), []byte("/bin/sleep\x001000\x00"))
	}
	return processes{dir}
}

func TestClaimOfRecordedCRIO(t *testing.T) {
	server, store, containers := replay(t)
	p := server.serve(t, Options{})
	p.proc = procWith(t, map[int]uint64{22402: 196171, 22366: 196160, 22492: 7}) // 22492 was given to another process
	claims, err := p.Claim(t.Context(), store, containers)
	if err != nil {
		t.Fatal(err)
	}
	byID := index(t, containers, claims)
	for _, want := range []struct {
		scenario, id, name string
		group              string
		state              core.State
		use                core.Use
		along              []core.ContainerID
		pid                int
	}{
		{"a running container", webApp, "default/web/app", "pod default/web", core.StateRunning, core.UseInUse, nil, 22402},
		{"its pod", webPod, "default/web/POD", "pod default/web", core.StateRunning, core.UseInUse, []core.ContainerID{webApp}, 22366},
		{"a created container", jobBatch, "default/job/batch", "pod default/job", core.StateCreated, core.UseInUse, nil, 0},
		{"its pod", jobPod, "default/job/POD", "pod default/job", core.StateRunning, core.UseInUse, []core.ContainerID{jobBatch}, 0},
		{"an exited container", oldDone, "default/old/done", "pod default/old", core.StateStopped, core.UseIdle, nil, 0},
		{"its live pod", oldPod, "default/old/POD", "pod default/old", core.StateRunning, core.UseInUse, []core.ContainerID{oldDone}, 0},
	} {
		c := byID[want.id]
		if c.Ownership != core.OwnershipMine || c.DisplayName != want.name || c.Group != want.group || c.State != want.state ||
			c.Use != want.use || !slices.Equal(c.TakesAlong, want.along) {
			t.Errorf("%s: %+v", want.scenario, c)
		}
		var pids []int
		for _, process := range core.Processes(c.Evidence) {
			pids = append(pids, process.PID)
		}
		if want.pid != 0 && !slices.Equal(pids, []int{want.pid}) || want.pid == 0 && len(pids) > 0 {
			t.Errorf("%s: evidence of pids %v, want %d", want.scenario, pids, want.pid)
		}
		if !slices.ContainsFunc(c.Evidence, func(e core.Evidence) bool {
			return e.Kind == core.EvidencePod && strings.Contains(e.Detail, "uid uid-") && strings.Contains(e.Detail, "attempt 1")
		}) {
			t.Errorf("%s: no pod in %+v", want.scenario, c.Evidence)
		}
	}
	for _, c := range containers {
		if !c.Volatile && byID[string(c.ID)].Ownership != core.OwnershipNotMine { // Podman's
			t.Errorf("podman's %v: %+v", c.Names, byID[string(c.ID)])
		}
	}
	if got := core.Processes(byID[webApp].Evidence)[0]; got.StartTime != 196171 || got.Command != "/bin/sleep 1000" {
		t.Errorf("the process is %+v", got)
	}
}

// In the recorded store nothing is listed by this CRI-O.
func TestClaimOfWhatIsNotListed(t *testing.T) {
	empty := func(c *canned) { c.containers, c.pods = &cri.ListContainersResponse{}, &cri.ListPodSandboxResponse{} }
	other := t.TempDir()
	for _, s := range []struct {
		scenario  string
		change    func(*canned)
		now       time.Duration // after the containers were made
		ownership core.Ownership
		use       core.Use
		err       string
	}{
		{"forgotten long ago", empty, time.Hour, core.OwnershipMine, core.UseIdle, ""},
		{"perhaps still being created", empty, time.Minute, core.OwnershipUnknown, core.UseUnknown, ""},
		{"made in the future", empty, -time.Hour, core.OwnershipUnknown, core.UseUnknown, ""},
		{"another store", func(c *canned) { empty(c); c.fs = at(other + "/overlay-images") }, time.Hour, core.OwnershipNotMine, core.UseUnknown, ""},
		{"another driver", func(c *canned) {
			empty(c)
			c.fs.ImageFilesystems[0].FsId.Mountpoint = strings.Replace(c.fs.ImageFilesystems[0].FsId.Mountpoint, "overlay-", "vfs-", 1)
		}, time.Hour, core.OwnershipNotMine, core.UseUnknown, ""},
		{"a store that cannot be seen", func(c *canned) { empty(c); c.fs = at("/nowhere/at/all/overlay-images") }, time.Hour, core.OwnershipUnknown, core.UseUnknown, ""},
		{"listed, but by a CRI-O on another store", func(c *canned) { c.fs = at(other + "/overlay-images") }, time.Hour, core.OwnershipUnknown, core.UseUnknown, ""},
		{"another runtime's socket", func(c *canned) { empty(c); c.version.RuntimeName = "containerd" }, time.Hour, 0, 0, "[plugin.crio] address"},
		{"no store at all", func(c *canned) { c.fs = &cri.ImageFsInfoResponse{} }, time.Hour, 0, 0, "nonsense"},
		{"a store at a relative path", func(c *canned) { c.fs = at("overlay-images") }, time.Hour, 0, 0, "nonsense"},
		{"a container twice", func(c *canned) { c.containers.Containers = append(c.containers.Containers, c.containers.Containers[0]) }, time.Hour, 0, 0, "nonsense"},
		{"a container that is a pod", func(c *canned) { c.containers.Containers[0].Id = webPod }, time.Hour, 0, 0, "nonsense"},
		{"an ID that is none", func(c *canned) { c.pods.Items[0].Id = "../x" }, time.Hour, 0, 0, "nonsense"},
	} {
		t.Run(s.scenario, func(t *testing.T) {
			server, store, containers := replay(t)
			s.change(server)
			p := server.serve(t, Options{})
			made := time.Date(2026, 11, 23, 18, 37, 27, 0, time.UTC)
			p.now = func() time.Time { return made.Add(s.now) }
			claims, err := p.Claim(t.Context(), store, containers)
			if s.err != "" {
				if err == nil || !strings.Contains(err.Error(), s.err) {
					t.Fatalf("error %v, want %q", err, s.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			byID := index(t, containers, claims)
			for _, id := range []string{webPod, webApp, jobPod, jobBatch, oldPod, oldDone} {
				c := byID[id]
				if c.Ownership != s.ownership || c.Use != s.use {
					t.Errorf("%s: %+v", c.DisplayName, c)
				}
				if c.Ownership != core.OwnershipNotMine && len(c.Evidence) == 0 {
					t.Errorf("%.12s: no evidence", id)
				}
			}
		})
	}
}

// A container that only has one of CRI-O's keys is kept while CRI-O is down, and nobody's otherwise.
func TestClaimOfHalfTheMetadata(t *testing.T) {
	server, store, _ := replay(t)
	p := server.serve(t, Options{})
	for _, text := range []string{`{"pod-id":"x"}`, `{"pod-name":"x"}`, `{"pod-name":"","pod-id":""}`, `{"pod-name":7,"pod-id":[]}`} {
		claims, err := p.Claim(t.Context(), store, []core.Container{{ID: "c", Metadata: text}})
		if err != nil || claims[0].Ownership != core.OwnershipNotMine {
			t.Errorf("%s: %+v, %v", text, claims, err)
		}
	}
}

// CRI-O is not asked about what cannot be its own.
func TestClaimOfOthers(t *testing.T) {
	p, err := New(Options{Address: "unix:///nowhere/crio.sock"})
	if err != nil {
		t.Fatal(err)
	}
	others := []core.Container{{ID: "a"}, {ID: "b", Metadata: `{"image-name":"x","name":"y"}`}, {ID: "c", Metadata: "no JSON"}}
	claims, err := p.Claim(t.Context(), core.StoreInfo{}, others)
	if err != nil {
		t.Fatal(err)
	}
	for id, c := range index(t, others, claims) {
		if c.Ownership != core.OwnershipNotMine {
			t.Errorf("%s: %+v", id, c)
		}
	}
}

func TestNew(t *testing.T) {
	for _, address := range []string{"tcp://127.0.0.1:1", "/run/crio/crio.sock", "unix:crio.sock", "unix://"} {
		if _, err := New(Options{Address: address}); err == nil {
			t.Errorf("address %q is accepted", address)
		}
	}
	p, err := New(Options{})
	if err != nil || p.socket != "/run/crio/crio.sock" {
		t.Errorf("socket %q, %v", p.socket, err)
	}
}

// Everything of a store's may be gone or of another kind.
func TestStateFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/big/state.json", make([]byte, maxState+1))
	write(t, dir+"/other/state.json", []byte(`{"id":"another"}`))
	write(t, dir+"/broken/state.json", []byte(`{`))
	if err := os.MkdirAll(dir+"/dir/state.json", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/link", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../other/state.json", dir+"/link/state.json"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"big", "other", "broken", "dir", "link", "none"} {
		if s, err := readState("c", filepath.Join(dir, name)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if _, err := readState("c", ""); err == nil {
		t.Error("a container without a directory has a state")
	}
}
