package podman

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
)

// The files in testdata were printed by the Podman of the version in their name, of the same scene.
var versions = []string{"4.3.1", "5.4.2"}

func recorded(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

const unknownID = core.ContainerID("0123456789012345678901234567890123456789012345678901234567890123")

func TestRecordedInspect(t *testing.T) {
	for _, v := range versions {
		t.Run(v, func(t *testing.T) {
			records, err := parseRecords(recorded(t, "inspect-"+v+".json"))
			if err != nil {
				t.Fatal(err)
			}
			byName := make(map[string]record)
			for _, r := range records {
				name := r.Name
				if r.IsInfra {
					name = "infra"
				}
				byName[name] = r
			}
			want := map[string]string{"running": "running in_use", "created": "created idle", "paused": "paused in_use",
				"exited": "stopped idle", "sharer": "running in_use", "mounter": "created idle", "infra": "running in_use",
				"member": "running in_use", "init": "running in_use"}
			states := make(map[string]string)
			for name, r := range byName {
				state, use := r.state()
				states[name] = string(state) + " " + use.String()
			}
			if diff := cmp.Diff(want, states); diff != "" {
				t.Error(diff)
			}
			if unit := byName["paused"].unit(); unit != "paused.service" {
				t.Errorf("the unit is %q", unit)
			}
			for _, name := range []string{"running", "member", "infra", "paused"} {
				if r := byName[name]; r.State.Pid == 0 || r.State.ConmonPid == 0 || r.State.StartedAt.IsZero() || r.State.CgroupPath == "" {
					t.Errorf("%s: %+v", name, r.State)
				}
			}
			if d := byName["sharer"].Dependencies; !slices.Equal(d, []core.ContainerID{byName["running"].ID}) {
				t.Errorf("the sharer needs %v", d)
			}
			mounts := byName["mounter"].Mounts
			if !slices.Contains(mounts, mount{Type: "image", Source: "localhost/bb"}) ||
				!slices.ContainsFunc(mounts, func(m mount) bool { return m.Type == "volume" && m.Name == "imgvol" }) {
				t.Errorf("the mounts are %+v", mounts)
			}
			r := relate(toMap(records))
			along := []core.ContainerID{byName["init"].ID, byName["member"].ID}
			slices.Sort(along)
			if diff := cmp.Diff(along, r.company(byName["infra"].ID)); diff != "" {
				t.Errorf("with the infra container go %s", diff)
			}
			if diff := cmp.Diff([]core.ContainerID{byName["mounter"].ID}, r.users("imgvol")); diff != "" {
				t.Errorf("users of the volume: %s", diff)
			}
			if s := byName["running"].stopSignal(); s != "15" && s != "SIGTERM" {
				t.Errorf("the stop signal is %q", s)
			}
			if byName["running"].restarts() {
				t.Error("a container without a restart policy restarts")
			}
			absent := parseAbsent(recorded(t, "inspect-"+v+".stderr"))
			if diff := cmp.Diff(map[core.ContainerID]bool{unknownID: true}, absent); diff != "" {
				t.Errorf("absent: %s", diff)
			}
		})
	}
}

func toMap(records []record) map[core.ContainerID]record {
	m := make(map[core.ContainerID]record)
	for _, r := range records {
		m[r.ID] = r
	}
	return m
}

func TestRecordedLists(t *testing.T) {
	for _, v := range versions {
		pods, err := parsePods(recorded(t, "pods-"+v+".json"))
		if err != nil || len(pods) != 1 || pods[0].Name != "web" || len(pods[0].Containers) != 3 || pods[0].InfraID == "" {
			t.Errorf("%s: pods %+v, %v", v, pods, err)
		}
		// When it was asked through the API, one of the three was gone.
		pods, err = parsePods(recorded(t, "api-pods-"+v+".json"))
		if err != nil || len(pods) != 1 || pods[0].Name != "web" || len(pods[0].Containers) != 2 {
			t.Errorf("%s: pods from the API %+v, %v", v, pods, err)
		}
		for _, name := range []string{"volumes-", "api-volumes-"} {
			volumes, err := parseVolumes(recorded(t, name+v+".json"))
			if err != nil || len(volumes) != 1 || volumes[0].Name != "imgvol" || volumes[0].StorageID == "" {
				t.Errorf("%s%s: %+v, %v", name, v, volumes, err)
			}
		}
		if _, err := parseImageID(recorded(t, "image-"+v+".txt")); err != nil {
			t.Error(err)
		}
		if removed := parseLines(recorded(t, "rm-"+v+".stdout")); len(removed) != 4 {
			t.Errorf("%s: removed %v", v, removed)
		}
		info, err := parseInfo(recorded(t, "api-info-"+v+".json"))
		if err != nil || info.Version.Version != v || info.Store.GraphRoot == "" {
			t.Errorf("%s: info %+v, %v", v, info, err)
		}
		if r, err := parseRecord(recorded(t, "api-container-"+v+".json")); err != nil || r.Name != "member" {
			t.Errorf("%s: %+v, %v", v, r, err)
		}
	}
}

func TestRecordedList(t *testing.T) {
	for _, v := range versions {
		for _, name := range []string{"list-", "api-list-"} {
			all, err := parseList(recorded(t, name+v+".json"))
			if err != nil {
				t.Fatal(err)
			}
			s := &survey{plugin: &Plugin{proc: processes{t.TempDir()}}}
			states := make(map[string]string)
			for _, l := range all {
				c := s.claimListed(l)
				called := c.DisplayName
				if strings.HasSuffix(called, "-infra") {
					called = "infra"
				}
				states[called] = string(c.State) + " " + c.Use.String() + " " + c.Group
				if live := c.State.Live(); live != (l.Pid > 0) || live != (l.StartedAt > 0 && called != "exited") {
					t.Errorf("%s%s: %s has the pid %d, started at %d", name, v, called, l.Pid, l.StartedAt)
				}
				if c.Ownership != core.OwnershipMine || c.Container != l.ID || parseRevision(c.Revision) != (revision{lost: true}) {
					t.Errorf("%s%s: %+v", name, v, c)
				}
			}
			want := map[string]string{"created": "created idle ", "running": "running in_use ", "paused": "paused in_use ",
				"exited": "stopped idle ", "infra": "running in_use web", "member": "running in_use web", "lost": "running in_use "}
			if diff := cmp.Diff(want, states); diff != "" {
				t.Errorf("%s%s: %s", name, v, diff)
			}
		}
	}
	for _, bad := range []string{"", "{}", `[{"Id":"x","State":"running"}]`, `[{"Id":"` + string(unknownID) + `"}]`, `[null]`} {
		if all, err := parseList([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, all)
		}
	}
}

// TestRecordedRefusals: every container that rm refused is blamed in the words that concern it.
func TestRecordedRefusals(t *testing.T) {
	for _, v := range versions {
		records, err := parseRecords(recorded(t, "inspect-"+v+".json"))
		if err != nil {
			t.Fatal(err)
		}
		ids := slices.Sorted(maps.Keys(toMap(records)))
		done := parseLines(recorded(t, "rm-"+v+".stdout"))
		failed := make(map[core.ContainerID]error)
		blame(failed, ids, done, &exitError{"podman rm", 2, recorded(t, "rm-"+v+".stderr")})
		if len(failed) != 5 {
			t.Errorf("%s: %d containers are blamed", v, len(failed))
		}
		for id, err := range failed {
			if !strings.Contains(err.Error(), string(id)) || strings.Contains(err.Error(), "; ") {
				t.Errorf("%s: %v", id.Short(), err)
			}
		}
	}
}

func TestRecordedAPIErrors(t *testing.T) {
	for _, v := range versions {
		var body []byte
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var e struct{ Response int }
			if json.Unmarshal(body, &e) == nil && e.Response != 0 {
				w.WriteHeader(e.Response)
			} else {
				w.WriteHeader(http.StatusNotFound)
			}
			_, _ = w.Write(body) // the client sees it
		}))
		a := &api{client: &http.Client{Transport: redirect{server.URL}}}
		inspect := func() (inspection, error) {
			return a.inspect(context.Background(), core.StoreInfo{}, []core.ContainerID{unknownID})
		}
		body = recorded(t, "api-absent-"+v+".json")
		if found, err := inspect(); err != nil || !found.absent[unknownID] {
			t.Errorf("%s: absent: %+v, %v", v, found, err)
		}
		body = []byte("404 page not found")
		if found, err := inspect(); err == nil {
			t.Errorf("a 404 of another server counts: %+v", found)
		}
		body = recorded(t, "api-refused-"+v+".json")
		_, failed := a.remove(context.Background(), core.StoreInfo{}, []core.ContainerID{unknownID})
		if err := failed[unknownID]; err == nil || !strings.Contains(err.Error(), "running or paused containers cannot be removed") {
			t.Errorf("%s: refused: %v", v, err)
		}
		server.Close()
	}
}

// redirect sends every request to a test server.
type redirect struct{ to string }

func (r redirect) RoundTrip(q *http.Request) (*http.Response, error) {
	q = q.Clone(q.Context())
	q.URL.Host = strings.TrimPrefix(r.to, "http://")
	return http.DefaultTransport.RoundTrip(q)
}

func TestStates(t *testing.T) {
	for word, want := range map[string]string{
		"created": "created idle", "configured": "created idle", "initialized": "running in_use", "running": "running in_use",
		"stopping": "running in_use", "paused": "paused in_use", "stopped": "stopped idle", "exited": "stopped idle",
		"removing": "removing idle", "unknown": "running unknown", "bogus": "running unknown", "": "running unknown",
		"Running": "running unknown",
	} {
		var r record
		r.State.Status = word
		state, use := r.state()
		if got := string(state) + " " + use.String(); got != want {
			t.Errorf("%q is %s, not %s", word, got, want)
		}
	}
}

func TestDatabases(t *testing.T) {
	sqlite, both, bolt := databases{sqlite: true}, databases{true, true}, databases{bolt: true}
	for version, reads := range map[string]bool{"4.3.1": false, "4.7.2": false, "3.9": false, "4.8.0": true, "4.10.0": true, "5.4.2": true,
		"v6.0.0-rc1": true, "99999999999999999999.1": true, "": true, "nonsense": true} {
		if sqlite.reads(version) != reads {
			t.Errorf("%q reads SQLite: %v", version, !reads)
		}
		if !both.reads(version) || !bolt.reads(version) || !(databases{}).reads(version) {
			t.Errorf("%q does not read BoltDB", version)
		}
	}
}

func TestRevision(t *testing.T) {
	pod := strings.Repeat("a", 64)
	for _, r := range []revision{{incarnation: "running/1/2"}, {pod: pod, incarnation: "running/1/2"}, {volume: "data"}, {lost: true}} {
		if back := parseRevision(r.String()); back != r {
			t.Errorf("%+v came back as %+v", r, back)
		}
	}
	if r := parseRevision("pod short running/1/2"); r.pod != "" {
		t.Errorf("took %+v for a pod", r)
	}
}

func TestCompanyOfCircles(t *testing.T) {
	a, b, c := core.ContainerID("a"), core.ContainerID("b"), core.ContainerID("c")
	r := relate(map[core.ContainerID]record{
		a: {ID: a, Dependencies: []core.ContainerID{b}},
		b: {ID: b, Dependencies: []core.ContainerID{a}},
		c: {ID: c},
	})
	if diff := cmp.Diff([]core.ContainerID{b}, r.company(a)); diff != "" {
		t.Error(diff)
	}
	if along := r.company(c); along != nil {
		t.Errorf("with c goes %v", along)
	}
}

func TestProcesses(t *testing.T) {
	p := processes{"/proc"}
	us := p.find(os.Getpid(), time.Now())
	if us == nil || us.StartTime == 0 || us.Command == "" || us.UID != os.Getuid() {
		t.Errorf("we are %+v", us)
	}
	if recycled := p.find(os.Getpid(), time.Now().Add(-24*time.Hour)); recycled != nil {
		t.Errorf("a process younger than its container: %+v", recycled)
	}
	for _, pid := range []int{0, -1, 1 << 30} {
		if found := p.find(pid, time.Now()); found != nil {
			t.Errorf("pid %d is %+v", pid, found)
		}
	}
}

func TestParseStat(t *testing.T) {
	s, err := parseStat([]byte("12 (a) R (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"))
	if err != nil || s.comm != "a) R (b)" || s.startTime != 4242 || s.zombie {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", ")(", "1 (x) S 1", "1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"} {
		if s, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q is %+v", bad, s)
		}
	}
}

func TestStoreOptions(t *testing.T) {
	store := core.StoreInfo{GraphRoot: "/g", RunRoot: "/r", GraphDriver: "overlay", GraphOptions: []string{"overlay.mountopt=nodev", "x=y"}}
	named := []string{"--root", "/g", "--runroot", "/r", "--storage-driver", "overlay",
		"--storage-opt", "overlay.mountopt=nodev", "--storage-opt", "x=y", "--tmpdir", "/t", "--extra"}
	c := newCLI(Options{TmpDir: "/t", ExtraArgs: []string{"--extra"}})
	if diff := cmp.Diff(named, c.options(store)); diff != "" {
		t.Error(diff)
	}
	store.Default = true
	if diff := cmp.Diff([]string{"--tmpdir", "/t", "--extra"}, c.options(store)); diff != "" {
		t.Errorf("the default store: %s", diff)
	}
}

func TestSeconds(t *testing.T) {
	for grace, want := range map[time.Duration]int{-time.Second: 0, 0: 0, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2} {
		if got := seconds(grace); got != want {
			t.Errorf("%s is %d seconds, not %d", grace, got, want)
		}
	}
}

func FuzzRecords(f *testing.F) {
	// Short ones: the fuzzer gets nowhere with the hundred kilobytes of a whole inspection.
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	f.Add([]byte(`[{"Id":"` + a + `","Name":"n","Pod":"` + b + `","IsInfra":true,"State":{"Status":"running","Pid":1,"ConmonPid":2,` +
		`"StartedAt":"2026-11-24T02:50:46.420941402Z"},"Mounts":[{"Type":"image","Source":"x"}],"Config":{"StopSignal":15}},` +
		`{"Id":"` + b + `","State":{"Status":"created","StartedAt":"0001-01-01T00:00:00Z"},"Dependencies":["` + a + `"],` +
		`"Config":{"StopSignal":"SIGTERM","Labels":{"PODMAN_SYSTEMD_UNIT":"u"}},"HostConfig":{"RestartPolicy":{"Name":"no"}}}]`))
	f.Add([]byte(`[{"Id":"x"}]`))
	f.Add([]byte(`[null]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, err := parseRecords(text)
		if err != nil {
			return
		}
		r := relate(toMap(records))
		for _, c := range records {
			if !isID(string(c.ID)) {
				t.Errorf("%q passed for an ID", c.ID)
			}
			state, use := c.state()
			if state == core.StateNone || (state.Live() && use == core.UseIdle) {
				t.Errorf("%q is %s and %s", c.State.Status, state, use)
			}
			along := r.company(c.ID)
			if slices.Contains(along, c.ID) || slices.Contains(along, "") {
				t.Errorf("%s takes along %v", c.ID, along)
			}
			if back := parseRevision(revision{incarnation: string(state) + "/" + c.incarnation()}.String()); back.start() != c.incarnation() {
				t.Errorf("%q came back as %q", c.incarnation(), back.start())
			}
			_, _, _ = c.stopSignal(), c.restarts(), c.unit()
		}
	})
}

func FuzzLists(f *testing.F) {
	for _, v := range versions {
		for _, name := range []string{"pods-", "api-pods-", "volumes-", "api-volumes-", "api-info-", "api-absent-", "list-", "api-list-"} {
			f.Add(recorded(f, name+v+".json"))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if volumes, err := parseVolumes(text); err == nil {
			for _, v := range volumes {
				if v.Name == "" || strings.HasPrefix(v.Name, "-") || (v.StorageID != "" && !isID(string(v.StorageID))) {
					t.Errorf("volume %+v passed", v)
				}
			}
		}
		if pods, err := parsePods(text); err == nil {
			for _, p := range pods {
				if !isID(p.ID) {
					t.Errorf("pod %+v passed", p)
				}
			}
		}
		if all, err := parseList(text); err == nil {
			s := &survey{plugin: &Plugin{proc: processes{"/nowhere"}}}
			for _, l := range all {
				c := s.claimListed(l)
				if !isID(string(c.Container)) || c.State == core.StateNone || (c.State.Live() && c.Use == core.UseIdle) {
					t.Errorf("container %+v passed", c)
				}
			}
		}
		_, _ = parseInfo(text)
	})
}

func FuzzLines(f *testing.F) {
	for _, v := range versions {
		f.Add(recorded(f, "inspect-"+v+".stderr"))
		f.Add(recorded(f, "rm-"+v+".stderr"))
		f.Add(recorded(f, "rm-"+v+".stdout"))
		f.Add(recorded(f, "image-"+v+".txt"))
	}
	f.Add([]byte("12 (a) R (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, ids := range []map[core.ContainerID]bool{parseLines(text), parseAbsent(text)} {
			for id := range ids {
				if !isID(string(id)) || !strings.Contains(string(text), string(id)) {
					t.Errorf("%q passed for an ID", id)
				}
			}
		}
		if id, err := parseImageID(text); err == nil && !isID(string(id)) {
			t.Errorf("%q passed for an image ID", id)
		}
		if len(complaint(text)) > 1100 {
			t.Error("a complaint without end")
		}
		_, _ = parseStat(text)
		_, _ = commandLine(text), parseUID(text)
		looksLikePodmans(core.Container{Metadata: string(text)})
	})
}
