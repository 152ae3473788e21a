package crio

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// storedImages reads the store's images as core/cstore would show them, by their first names.
func (n *node) storedImages() map[string]core.Image {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.store.GraphRoot, n.driver+"-images", "images.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	var records []struct {
		ID    string   `json:"id"`
		Names []string `json:"names"`
	}
	if err := json.Unmarshal(text, &records); err != nil {
		n.t.Fatal(err)
	}
	all := make(map[string]core.Image)
	for _, r := range records {
		all[r.Names[0]] = core.Image{ID: core.ImageID(r.ID), Names: r.Names}
	}
	return all
}

func TestPins(t *testing.T) {
	n := newNode(t, "-pinned", "localhost/data*")
	archive := filepath.Join(n.dir, "rootfs.tar")
	n.stop()
	n.must(n.command("-image", "localhost/database:1="+archive, "-image", "localhost/other:1="+archive))
	n.start()
	known := n.storedImages()
	var images []core.Image
	for _, name := range []string{app, pause, "localhost/database:1", "localhost/other:1"} {
		if known[name].ID == "" {
			t.Fatalf("no image %s among %v", name, slices.Collect(maps.Keys(known)))
		}
		images = append(images, known[name])
	}
	unknown := core.Image{ID: core.ImageID(strings.Repeat("0a", 32))}
	list := images[2]
	list.ID, list.ManifestList = core.ImageID(strings.Repeat("0b", 32)), true
	images = append(images, unknown, list)
	p := n.plugin(Options{Parallel: 2})
	n.calls()
	pins, err := p.Pins(t.Context(), n.store, images)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(n.calls(), " "); got != "ImageFsInfo"+strings.Repeat(" ImageStatus", 5)+" Version" {
		t.Errorf("CRI-O was asked %s", got)
	}
	for i, want := range []core.Pinned{core.PinnedNo, core.PinnedYes, core.PinnedYes, core.PinnedNo, core.PinnedNo, core.PinnedNo} {
		pin := pins[i]
		if pin.Image != images[i].ID || pin.Pinned != want {
			t.Errorf("image %d %v: %+v", i, images[i].Names, pin)
		}
		if want == core.PinnedYes && (pin.Reason != "pinned by CRI-O" || !strings.Contains(pin.Advice, "pinned_images")) {
			t.Errorf("%+v", pin)
		}
	}

	t.Run("of another store", func(t *testing.T) {
		store := n.store
		store.GraphRoot = t.TempDir()
		pins, err := p.Pins(t.Context(), store, images)
		if err != nil || slices.ContainsFunc(pins, func(p core.Pin) bool { return p.Pinned != core.PinnedNo }) {
			t.Errorf("%+v, %v", pins, err)
		}
		if got := n.calls(); slices.Contains(got, "ImageStatus") {
			t.Errorf("CRI-O was asked %v", got)
		}
	})
	t.Run("of a store that cannot be compared", func(t *testing.T) {
		store := n.store
		store.GraphRoot = filepath.Join(t.TempDir(), "none")
		pins, err := p.Pins(t.Context(), store, images)
		if err != nil || slices.ContainsFunc(pins, func(p core.Pin) bool {
			return p.Pinned != core.PinnedUnknown || !strings.Contains(p.Reason, n.store.GraphRoot)
		}) {
			t.Errorf("%+v, %v", pins, err)
		}
	})
	t.Run("of an image that CRI-O has trouble with", func(t *testing.T) {
		n.control("fail=no_such_blob ImageStatus")
		defer n.control("")
		pins, err := p.Pins(t.Context(), n.store, images[:2])
		if err != nil || slices.ContainsFunc(pins, func(p core.Pin) bool {
			return p.Pinned != core.PinnedUnknown || !strings.Contains(p.Reason, "no such blob") || p.Advice == ""
		}) {
			t.Errorf("%+v, %v", pins, err)
		}
	})
}

// Whatever is the matter with CRI-O, it is an error within the time, and never "not pinned".
func TestPinsInTrouble(t *testing.T) {
	n := newNode(t)
	var images []core.Image
	for _, i := range n.storedImages() {
		images = append(images, i)
	}
	p := n.plugin(Options{Timeout: 700 * time.Millisecond})
	for _, s := range []struct {
		scenario, says string
		switches       []string
		down           bool
	}{
		{"hung", "no answer in time", []string{"hang"}, false},
		{"hung in one question", "no answer in time", []string{"hang ImageStatus"}, false},
		{"too slow", "no answer in time", []string{"slow=5s ImageFsInfo"}, false},
		{"garbage", "nonsense", []string{"garbage"}, false},
		{"another image's state", "nonsense", []string{"garbage ImageStatus"}, false},
		{"another runtime", "not of CRI-O", []string{"name=containerd"}, false},
		{"bytes that are no gRPC", "does not speak gRPC", []string{"bytes"}, false},
		{"down", "systemctl status crio", nil, true},
	} {
		t.Run(s.scenario, func(t *testing.T) {
			n.control(s.switches...)
			if s.down {
				n.stop()
				defer n.start()
			}
			defer n.control("")
			within(t, 1700*time.Millisecond, func() {
				pins, err := p.Pins(t.Context(), n.store, images)
				if err == nil || !strings.Contains(err.Error(), s.says) || errors.Is(err, core.ErrEngineAbsent) {
					t.Errorf("pins %+v, error %v", pins, err)
				}
			})
		})
	}
	t.Run("no socket", func(t *testing.T) {
		p, err := New(Options{Address: "unix:" + n.dir + "/none.sock"})
		if err != nil {
			t.Fatal(err)
		}
		if pins, err := p.Pins(t.Context(), n.store, images); !errors.Is(err, core.ErrEngineAbsent) {
			t.Errorf("%+v, %v", pins, err)
		}
	})
}

// The labels of a container are its pod's and its own.
func TestClaimLabels(t *testing.T) {
	n := newNode(t)
	config := sandboxConfig("web")
	config.Labels = map[string]string{"app": "shop", "io.kubernetes.pod.name": "web"}
	r, err := n.RunPodSandbox(t.Context(), &cri.RunPodSandboxRequest{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	c, err := n.CreateContainer(t.Context(), &cri.CreateContainerRequest{PodSandboxId: r.PodSandboxId, SandboxConfig: config,
		Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "app", Attempt: 1}, Image: &cri.ImageSpec{Image: app},
			Labels: map[string]string{"io.kubernetes.container.name": "app"}, Command: stubborn}})
	if err != nil {
		t.Fatal(err)
	}
	claims := n.claims(n.plugin())
	for id, want := range map[string]map[string]string{
		r.PodSandboxId: config.Labels,
		c.ContainerId:  {"app": "shop", "io.kubernetes.pod.name": "web", "io.kubernetes.container.name": "app"},
	} {
		for key, value := range want {
			if got := claims[id].Labels; got[key] != value {
				t.Errorf("%s: %v lacks %s=%s", claims[id].DisplayName, got, key, value)
			}
		}
	}
}

func TestForgottenLabels(t *testing.T) {
	server, store, containers := replay(t)
	server.containers, server.pods = &cri.ListContainersResponse{}, &cri.ListPodSandboxResponse{}
	claims, err := server.serve(t, Options{Settling: -1}).Claim(t.Context(), store, containers)
	if err != nil {
		t.Fatal(err)
	}
	if got := index(t, containers, claims)[webPod].Labels; got["io.kubernetes.container.name"] != "POD" {
		t.Errorf("%v", got)
	}
}

func TestStateLabels(t *testing.T) {
	for text, want := range map[string]string{
		`{"annotations":{"io.kubernetes.cri-o.Labels":"{\"a\":\"b\"}"}}`:         "map[a:b]",
		`{"annotations":{"io.kubernetes.cri-o.Labels":"{\"a\":\"b\",\"c\":1}"}}`: "map[]",
		`{"annotations":{"io.kubernetes.cri-o.Labels":"null"}}`:                  "map[]",
		`{"annotations":{"a":"b"}}`:                                              "map[]",
	} {
		if s, err := parseState("c", []byte(text)); err != nil || fmt.Sprint(s.labels) != want {
			t.Errorf("%s: %v, %v", text, s.labels, err)
		}
	}
}
