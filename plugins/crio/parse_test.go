package crio

import (
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

func TestParseMetadata(t *testing.T) {
	for _, s := range []struct {
		scenario, text string
		want           metadata
		group          string
	}{
		{"nothing", "", metadata{}, ""},
		{"no JSON", "{", metadata{}, ""},
		{"no object", `["pod-id"]`, metadata{}, ""},
		{"podman's", `{"image-name":"x","name":"y"}`, metadata{}, ""},
		{"one key", `{"pod-id":"p"}`, metadata{hinted: true, podID: "p"}, ""},
		{"no text", `{"pod-id":1,"pod-name":"n"}`, metadata{hinted: true, pod: "n"}, "n"},
		{"a pod", `{"pod-id":"c","pod-name":"k8s_web_default_u_1","metadata-name":"web"}`,
			metadata{true, true, true, "k8s_web_default_u_1", "c", "web"}, "default/web"},
		{"a container", `{"pod-id":"p","pod-name":"odd","metadata-name":"app"}`, metadata{true, true, false, "odd", "p", "app"}, "odd"},
		{"another case of letters", `{"Pod-Id":"p","POD-NAME":"n"}`, metadata{}, ""},
	} {
		m := parseMetadata("c", s.text)
		if m != s.want || m.group() != s.group {
			t.Errorf("%s: %+v, %q", s.scenario, m, m.group())
		}
	}
}

func TestParseState(t *testing.T) {
	image := "01c3403fdd92d81aa13189f5438718273123936e968fcd81bc6f3f0b30dd0f1d"
	volumes, err := json.Marshal(`[{"host_path":"/a"},{"image":{"image":"` + image + `"}},{"image":{"image":"` + image + `"}},{"image":{"image":"name"}}]`)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []struct {
		scenario, text string
		want           runtimeState
	}{
		{"running", `{"id":"c","status":"running","pid":7,"initPid":7,"initStartTime":"99"}`, runtimeState{pid: 7, start: 99}},
		{"paused", `{"status":"paused","pid":7,"initPid":7,"initStartTime":"99"}`, runtimeState{paused: true, pid: 7, start: 99}},
		{"stopped", `{"status":"stopped","initPid":7,"initStartTime":"99"}`, runtimeState{}},
		{"no start time", `{"status":"running","pid":7,"initPid":7}`, runtimeState{}},
		{"a negative pid", `{"status":"running","pid":-1,"initPid":-1,"initStartTime":"99"}`, runtimeState{}},
		{"image volumes", `{"annotations":{"` + volumesAnnotation + `":` + string(volumes) + `}}`, runtimeState{volumes: []core.ImageID{core.ImageID(image)}}},
	} {
		got, err := parseState("c", []byte(s.text))
		if err != nil || !reflect.DeepEqual(got, s.want) {
			t.Errorf("%s: %+v, %v", s.scenario, got, err)
		}
	}
	if s, err := parseState("c", []byte(`{"id":"d"}`)); err == nil {
		t.Errorf("another container's: %+v", s)
	}
}

func TestRevision(t *testing.T) {
	for _, k := range []kind{kindContainer, kindSandbox, kindForgottenContainer, kindForgottenSandbox} {
		r := revision{k, "pod"}
		if got := parseRevision(r.String()); got != r {
			t.Errorf("%s becomes %+v", r, got)
		}
	}
	for _, text := range []string{"", "container", "podman:1", ":pod"} {
		if r := parseRevision(text); r.kind != "" && r.pod != "" {
			t.Errorf("%q becomes %+v", text, r)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add(`{"pod-id":"c","pod-name":"k8s_web_default_u_1","metadata-name":"web"}`)
	f.Add(`{"pod-id":null,"pod-name":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		m := parseMetadata("c", text)
		if (m.own || m.sandbox) && !m.hinted || m.sandbox && !m.own {
			t.Errorf("%+v", m)
		}
		if !utf8.ValidString(m.group()) {
			t.Errorf("group %q", m.group())
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add(read(f, recorded+"/userdata/"+webApp+"/state.json"))
	f.Add(read(f, recorded+"/userdata/"+oldDone+"/state.json"))
	f.Add(read(f, recorded+"/userdata/"+webApp+"/config.json"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseState(webApp, text)
		if err != nil && (s.pid != 0 || s.volumes != nil) {
			t.Errorf("%+v with %v", s, err)
		}
		if s.pid < 0 || s.pid > 0 && s.start == 0 {
			t.Errorf("%+v", s)
		}
		for _, v := range s.volumes {
			if !fullID.MatchString(string(v)) {
				t.Errorf("volume %q", v)
			}
		}
	})
}

func FuzzStat(f *testing.F) {
	f.Add([]byte("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := parseStat(text); err != nil && s.start != 0 {
			t.Errorf("%+v with %v", s, err)
		}
	})
}

// FuzzView: whatever CRI-O lists, it is refused, or every pod's containers are listed ones.
func FuzzView(f *testing.F) {
	seed := func(containers *cri.ListContainersResponse, pods *cri.ListPodSandboxResponse, fs *cri.ImageFsInfoResponse) {
		a, _ := proto.Marshal(containers)
		b, _ := proto.Marshal(pods)
		c, _ := proto.Marshal(fs)
		f.Add(a, b, c)
	}
	seed(fromJSON(f, "list-containers.json", &cri.ListContainersResponse{}), fromJSON(f, "list-pod-sandbox.json", &cri.ListPodSandboxResponse{}), at("/s/overlay-images"))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		var containers cri.ListContainersResponse
		var pods cri.ListPodSandboxResponse
		var fs cri.ImageFsInfoResponse
		if proto.Unmarshal(a, &containers) != nil || proto.Unmarshal(b, &pods) != nil || proto.Unmarshal(c, &fs) != nil {
			return
		}
		if root, _, err := graphRoot(&fs); err == nil && (root == "" || root[0] != '/') {
			t.Errorf("root %q", root)
		}
		v, err := newView(containers.Containers, pods.Items)
		if err != nil {
			return
		}
		p := &Plugin{}
		v.site = siteSame
		j := judge{Plugin: p, view: v}
		for id := range v.sandboxes {
			claim := j.claim(core.Container{ID: id}, metadata{})
			for _, along := range claim.TakesAlong {
				if v.containers[along] == nil {
					t.Errorf("pod %s takes %s along, which is not listed", id, along)
				}
			}
			if claim.Use == core.UseIdle && claim.State.Live() {
				t.Errorf("%+v", claim)
			}
		}
		for id, listed := range v.containers {
			claim := j.claim(core.Container{ID: id}, metadata{})
			if claim.Use == core.UseIdle && listed.GetState() != cri.ContainerState_CONTAINER_EXITED {
				t.Errorf("%s is idle", listed.GetState())
			}
		}
	})
}
