package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/storage/pkg/reexec"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// recorded has what a real CRI-O 1.37 wrote and answered.
const recorded = "../../plugins/crio/testdata/crio-1.37/"

// The recorded containers.
const (
	recordedPod     = "bc1faf15835ad957c3a73281ef5723ce36c2a64760bffad0776cda0b8f097c03"
	recordedRunning = "0a8175395fe2483ce1cb41dace913237d3e5ce5180a670617dabea12b7130b37"
	recordedCreated = "5559a25d4ac8b096cb973ce7c00b1f0f4969fde4d9598c77dddb7be4407d5dea"
	recordedExited  = "f60c326399da37092d0afa861848792f3e35cbee77444475b2109293b25748d7"
)

func TestMain(m *testing.M) {
	if reexec.Init() {
		return
	}
	os.Exit(m.Run())
}

// scene is the recorded scene, made by the double.
type scene struct {
	*double
	pods, containers map[string]string // IDs by name
}

func newScene(t *testing.T) scene {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("this test needs root, which CI must give it")
		}
		t.Skip("this test needs root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "criodouble-")
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(dir, "rootfs.tar")
	if out, err := exec.Command("sh", "-ec", `mkdir -p $0/r/bin $0/r/dev $0/r/proc
		cp /bin/busybox $0/r/bin/; ln -s busybox $0/r/bin/sh; ln -s busybox $0/r/bin/sleep
		tar -C $0/r -cf $0/rootfs.tar .`, dir).CombinedOutput(); err != nil {
		t.Fatalf("make an image of /bin/busybox: %v: %s", err, out)
	}
	d, err := newDouble(settings{root: dir + "/root", runroot: dir + "/run", driver: "overlay", runtime: "runc", runtimeRoot: dir + "/runc",
		pause: "localhost/bb:latest", pauseCommand: "/bin/sleep 1000", pinned: list{"localhost/b*"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clear(t, d, dir) })
	if err := d.addImage("localhost/bb:latest=" + archive); err != nil {
		t.Fatal(err)
	}
	s := scene{d, make(map[string]string), make(map[string]string)}
	for _, c := range []struct{ pod, name, command string }{
		{"web", "app", "sleep 1000"}, {"job", "batch", "sleep 1000"}, {"old", "done", "exit 143"},
	} {
		r, err := d.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: &cri.PodSandboxConfig{
			Metadata:     &cri.PodSandboxMetadata{Name: c.pod, Namespace: "default", Uid: "uid-" + c.pod, Attempt: 1},
			LogDirectory: dir + "/logs", Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}}}}})
		if err != nil {
			t.Fatal(err)
		}
		made, err := d.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: r.PodSandboxId, Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: c.name, Attempt: 1}, Image: &cri.ImageSpec{Image: "localhost/bb:latest"},
			Command: []string{"/bin/sh", "-c", c.command}, LogPath: "c1.log"}, SandboxConfig: &cri.PodSandboxConfig{LogDirectory: dir + "/logs"}})
		if err != nil {
			t.Fatal(err)
		}
		s.pods[c.pod], s.containers[c.name] = r.PodSandboxId, made.ContainerId
		if c.name != "batch" {
			if _, err := d.StartContainer(t.Context(), &cri.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-d.containers[s.containers["done"]].process.ended
	return s
}

// clear ends everything and removes the directory once nothing is mounted below it.
func clear(t *testing.T, d *double, dir string) {
	if err := d.wipe(context.Background()); err != nil {
		t.Errorf("wipe: %v", err)
	}
	if _, err := d.store.Shutdown(true); err != nil {
		t.Errorf("close the store: %v", err)
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(table), " "+dir+"/") {
		t.Fatalf("%s is left, since something may be mounted there (%v)", dir, err)
	}
	if out, err := exec.Command("rm", "-rf", "--one-file-system", dir).CombinedOutput(); err != nil {
		t.Errorf("remove %s: %v: %s", dir, err, out)
	}
}

func load(t *testing.T, path string) any {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

func decode(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v: %.200s", err, text)
	}
	return v
}

func message(t *testing.T, m proto.Message) any {
	t.Helper()
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text)
}

// at walks down a decoded JSON value.
func at(v any, path ...string) any {
	for _, key := range path {
		v = v.(map[string]any)[key]
	}
	return v
}

func keys(v any) []string { return slices.Sorted(maps.Keys(v.(map[string]any))) }

// shape compares the fields of two objects, and of the objects in them, but for those left out.
func shape(t *testing.T, what string, got, want any, without ...string) {
	t.Helper()
	g, isObject := got.(map[string]any)
	w, wantObject := want.(map[string]any)
	if !isObject || !wantObject {
		if fmt.Sprintf("%T", got) != fmt.Sprintf("%T", want) && got != nil && want != nil {
			t.Errorf("%s is %v, recorded %v", what, got, want)
		}
		return
	}
	for _, key := range slices.Compact(slices.Sorted(slices.Values(append(keys(g), keys(w)...)))) {
		if slices.Contains(without, key) {
			continue
		}
		// What is not set is null here, and left out in the records.
		_, has := g[key]
		_, had := w[key]
		if has != had && (g[key] != nil || w[key] != nil) {
			t.Errorf("%s: field %s: %v, recorded %v", what, key, has, had)
			continue
		}
		shape(t, what+"."+key, g[key], w[key], without...)
	}
}

// hide replaces what differs from run to run.
func hide(text string) string {
	text = regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(text, "ID")
	return regexp.MustCompile(`"created-at":\d+`).ReplaceAllString(text, `"created-at":N`)
}

func TestStorageAsRecorded(t *testing.T) {
	s := newScene(t)
	var want []string
	for _, r := range load(t, recorded+"storage-volatile-containers.json").([]any) {
		names := fmt.Sprint(at(r, "names"))
		// The recorded pods were made privileged.
		text := strings.Replace(at(r, "metadata").(string), `,"privileged":true`, "", 1)
		want = append(want, names+" "+hide(text))
	}
	var got []string
	records, err := s.store.Containers()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		got = append(got, fmt.Sprint(r.Names)+" "+hide(r.Metadata))
		if r.Flags["Volatile"] != true {
			t.Errorf("%v is not volatile: %v", r.Names, r.Flags)
		}
		layer, err := s.store.Layer(r.LayerID)
		if err != nil || !slices.Equal(layer.Names, []string{r.Names[0] + "-layer"}) {
			t.Errorf("%v has the layer %v, %v", r.Names, layer, err)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nrecorded\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFilesAsRecorded(t *testing.T) {
	s := newScene(t)
	d := s.double
	for _, c := range []struct {
		recorded string
		got      *container
	}{
		{recordedPod, d.pods[s.pods["web"]].infra}, {recordedRunning, d.containers[s.containers["app"]]},
		{recordedCreated, d.containers[s.containers["batch"]]}, {recordedExited, d.containers[s.containers["done"]]},
	} {
		want, got := load(t, recorded+"userdata/"+c.recorded+"/state.json"), load(t, c.got.dir+"/state.json")
		shape(t, c.got.name+" state.json", got, want)
		for _, field := range []string{"status", "ociVersion", "exitCode"} {
			if g, w := at(got, field), at(want, field); g != w {
				t.Errorf("%s: %s is %v, recorded %v", c.got.name, field, g, w)
			}
		}
		want, got = load(t, recorded+"userdata/"+c.recorded+"/config.json"), load(t, c.got.dir+"/config.json")
		shape(t, c.got.name+" config.json annotations", at(got, "annotations"), at(want, "annotations"))
		for _, path := range []string{c.got.dir, c.got.runDir} {
			if filepath.Base(path) != "userdata" {
				t.Errorf("%s keeps its files in %s", c.got.name, path)
			}
		}
	}
}

func TestListsAsRecorded(t *testing.T) {
	s := newScene(t)
	containers, err := s.ListContainers(t.Context(), &cri.ListContainersRequest{})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := s.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{})
	if err != nil {
		t.Fatal(err)
	}
	byName := func(list any) map[string]any {
		m := make(map[string]any)
		for _, item := range list.([]any) {
			m[at(item, "metadata", "name").(string)] = item
		}
		return m
	}
	got := byName(at(message(t, containers), "containers"))
	maps.Copy(got, byName(at(message(t, pods), "items")))
	want := byName(at(load(t, recorded+"list-containers.json"), "containers"))
	maps.Copy(want, byName(at(load(t, recorded+"list-pod-sandbox.json"), "items")))
	if len(got) != 6 {
		t.Errorf("%d containers and pods", len(got))
	}
	for name, item := range got {
		shape(t, name, item, want[name])
		if g, w := at(item, "state"), at(want[name], "state"); g != w {
			t.Errorf("%s is %v, recorded %v", name, g, w)
		}
		if _, isPod := s.pods[name]; isPod && fmt.Sprint(at(item, "labels"), at(item, "metadata")) != fmt.Sprint(at(want[name], "labels"), at(want[name], "metadata")) {
			t.Errorf("%s is %v, recorded %v", name, item, want[name])
		}
	}
}

func TestStatusAsRecorded(t *testing.T) {
	s := newScene(t)
	for name, id := range map[string]string{"app": recordedRunning, "batch": recordedCreated, "done": recordedExited} {
		r, err := s.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: s.containers[name], Verbose: true})
		if err != nil {
			t.Fatal(err)
		}
		want, got := load(t, recorded+"container-status-"+id+".json"), message(t, r.Status)
		shape(t, name, got, at(want, "status"))
		for _, field := range []string{"state", "exitCode", "reason", "message"} {
			if g, w := at(got, field), at(want, "status", field); g != w {
				t.Errorf("%s: %s is %v, recorded %v", name, field, g, w)
			}
		}
		if g, w := keys(decode(t, []byte(r.Info["info"]))), keys(at(want, "info")); !slices.Equal(g, w) {
			t.Errorf("%s: info has %v, recorded %v", name, g, w)
		}
	}
	r, err := s.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: s.pods["web"], Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	want := load(t, recorded+"pod-sandbox-status-"+recordedPod+".json")
	shape(t, "web", message(t, r.Status), at(want, "status"))
	if g, w := keys(decode(t, []byte(r.Info["info"]))), keys(at(want, "info")); !slices.Equal(g, w) {
		t.Errorf("info has %v, recorded %v", g, w)
	}
}

func TestErrorsAsRecorded(t *testing.T) {
	s := newScene(t)
	text, err := os.ReadFile(recorded + "errors.txt")
	if err != nil {
		t.Fatal(err)
	}
	none := strings.Repeat("0", 64)
	_, err = s.ContainerStatus(t.Context(), &cri.ContainerStatusRequest{ContainerId: none})
	if status.Code(err) != codes.NotFound || !strings.Contains(strings.ReplaceAll(string(text), `\"`, `"`), err.Error()) {
		t.Errorf("%v is not recorded", err)
	}
	_, err = s.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: none})
	if status.Code(err) != codes.NotFound || !strings.Contains(strings.ReplaceAll(string(text), `\"`, `"`), err.Error()) {
		t.Errorf("%v is not recorded", err)
	}
	_, stop := s.StopContainer(t.Context(), &cri.StopContainerRequest{ContainerId: none})
	_, remove := s.RemoveContainer(t.Context(), &cri.RemoveContainerRequest{ContainerId: none})
	_, stopPod := s.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: none})
	_, removePod := s.RemovePodSandbox(t.Context(), &cri.RemovePodSandboxRequest{PodSandboxId: none})
	if stop != nil || remove != nil || stopPod != nil || removePod != nil {
		t.Errorf("of what there is not: %v, %v, %v, %v", stop, remove, stopPod, removePod)
	}
	v, err := s.Version(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprintf("Version:  %s\nRuntimeName:  %s\nRuntimeVersion:  %s\nRuntimeApiVersion:  %s\n", v.Version, v.RuntimeName, v.RuntimeVersion, v.RuntimeApiVersion)
	if want, err := os.ReadFile(recorded + "version.txt"); err != nil || strings.TrimSpace(string(want)) != strings.TrimSpace(said) {
		t.Errorf("%s, recorded %s, %v", said, want, err)
	}
}

// What the records do not have: a running container is stopped by its removal; a pod that is stopped
// takes no more containers; a container whose storage is gone cannot be stopped.
func TestLifeOfAPod(t *testing.T) {
	s := newScene(t)
	short, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if _, err := s.RemoveContainer(short, &cri.RemoveContainerRequest{ContainerId: s.containers["batch"]}); err != nil {
		t.Error(err)
	}
	if err := s.wreck([]string{s.containers["app"]}); err != nil {
		t.Fatal(err)
	}
	short, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := s.StopContainer(short, &cri.StopContainerRequest{ContainerId: s.containers["app"]}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the stop of a wreck: %v", err)
	}
	short, cancel = context.WithTimeout(t.Context(), 1900*time.Millisecond)
	defer cancel()
	if _, err := s.StopPodSandbox(short, &cri.StopPodSandboxRequest{PodSandboxId: s.pods["job"]}); err != nil {
		t.Error(err)
	}
	if _, err := s.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: s.pods["job"]}); err == nil {
		t.Error("a stopped pod takes a container")
	}
	if image, err := (imageService{double: s.double}).ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: "bb"}}); err != nil || !image.Image.Pinned {
		t.Errorf("%v, %v", image, err)
	}
}
