package buildah

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/unmoor/unmoor/core"
)

func TestPlace(t *testing.T) {
	at := func(root, rootless string) *conf { return &conf{GraphRoot: root, Rootless: rootless} }
	env := func(words ...string) map[string]string {
		m := map[string]string{"HOME": "/home/me"}
		for i := 0; i < len(words); i += 2 {
			m[words[i]] = words[i+1]
		}
		return m
	}
	for name, test := range map[string]struct {
		settings settings
		want     string // "" where it cannot be told
	}{
		"root, nothing set":              {settings{env: env(), uid: "0"}, rootPlace},
		"root, the machine's":            {settings{env: env(), uid: "0", system: []*conf{at("/etc-says", ""), at("/usr-says", "")}}, "/etc-says"},
		"root, its own without XDG":      {settings{env: env(), uid: "0", own: at("/own", "")}, rootPlace},
		"root, its own with XDG":         {settings{env: env("XDG_CONFIG_HOME", "/x"), uid: "0", own: at("/own", "")}, "/own"},
		"root, named":                    {settings{env: env(), uid: "0", override: "/c", named: at("/named", ""), system: []*conf{at("/etc-says", "")}}, "/named"},
		"root, named, but not there":     {settings{env: env(), uid: "0", override: "/c"}, ""},
		"a user, nothing set":            {settings{env: env(), uid: "1000"}, "/home/me/.local/share/containers/storage"},
		"a user, data elsewhere":         {settings{env: env("XDG_DATA_HOME", "/d"), uid: "1000"}, "/d/containers/storage"},
		"a user, the machine's graph":    {settings{env: env(), uid: "1000", system: []*conf{at("/etc-says", "")}}, "/home/me/.local/share/containers/storage"},
		"a user, the machine's rootless": {settings{env: env(), uid: "1000", system: []*conf{at("/etc-says", "/u/$UID")}}, "/u/1000"},
		"a user, its own":                {settings{env: env(), uid: "1000", own: at("$HOME/s", "/no")}, "/home/me/s"},
		"a user, its own rootless":       {settings{env: env(), uid: "1000", own: at("", "/yes")}, "/yes"},
		"a user's helper":                {settings{env: env("_CONTAINERS_ROOTLESS_UID", "1000", "_CONTAINERS_USERNS_CONFIGURED", "done"), uid: "1000"}, "/home/me/.local/share/containers/storage"},
		"a helper of who knows whom":     {settings{env: env("_CONTAINERS_USERNS_CONFIGURED", "done"), uid: "0"}, ""},
		"a helper of somebody else":      {settings{env: env("_CONTAINERS_ROOTLESS_UID", "1001"), uid: "1000"}, ""},
		"no home":                        {settings{env: map[string]string{}, uid: "1000"}, ""},
		"no user":                        {settings{env: env()}, ""},
	} {
		got, ok := test.settings.place()
		if got != test.want || ok != (test.want != "") {
			t.Errorf("%s: %q, %v", name, got, ok)
		}
		// What is certain is possible.
		if ok && !slices.Contains(test.settings.places(), got) {
			t.Errorf("%s: %s is not among %v", name, got, test.settings.places())
		}
	}
}

// unnamed is a command that is told of the store by storage.conf alone.
func (h *host) unnamed(conf string, program string, args ...string) *exec.Cmd {
	c := exec.Command(program, args...)
	c.Env = append(h.command(program).Env, "CONTAINERS_STORAGE_CONF="+conf)
	c.Dir = "/"
	return c
}

// conf writes a storage.conf for a graph root of the host's.
func (h *host) conf(name, root string) string {
	h.t.Helper()
	return h.put(name, "[storage]\ndriver = \""+h.driver+"\"\ngraphroot = \""+root+"\"\nrunroot = \""+h.dir+"/run\"\n")
}

// TestStorageConf: a builder without --root is on the store that its storage.conf names, and on no
// other one.
func TestStorageConf(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	apart()
	fifo := filepath.Join(h.dir, "held")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// A build that waits for its file of instructions.
	build := h.start(h.unnamed(h.conf("here.conf", h.dir+"/root"), "buildah", "build", "-f", fifo, h.dir+"/image"))
	elsewhere := filepath.Join(h.dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(elsewhere+"/overlay", 0) }) // an error means that it is not mounted
	other := h.start(h.unnamed(h.conf("other.conf", elsewhere), "buildah", "build", "-f", fifo, h.dir+"/image"))
	h.must(h.buildah("from", "--name", "c", "localhost/bb"))
	c := h.claims()["c"]
	want(t, c, core.OwnershipMine, core.UseUnknown, core.StateBuilding)
	if !names(build.Process.Pid, c) || names(other.Process.Pid, c) {
		t.Errorf("%+v", c)
	}
	build.Process.Kill()
	<-build.done
	want(t, h.claims()["c"], core.OwnershipMine, core.UseIdle, core.StateStopped)
}

// TestWorkerOnSomeStore: a command is sure to work in the container that it names where its store is
// sure to be this one; else it may, and is never signalled.
func TestWorkerOnSomeStore(t *testing.T) {
	needRoot(t, "sh")
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(shell)
	if err != nil {
		t.Fatal(err)
	}
	good := testdata(t, "buildah-1.39.3.json")
	r, err := parseRecord(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		uid  uint32
		env  func(dir string) string
		args func(graph string) []string
		use  core.Use
	}{
		"its storage.conf names the store": {0, func(dir string) string { return "CONTAINERS_STORAGE_CONF=" + dir + "/here.conf" }, nil, core.UseInUse},
		"its storage.conf names another":   {0, func(dir string) string { return "CONTAINERS_STORAGE_CONF=" + dir + "/there.conf" }, nil, core.UseIdle},
		"a user on the user's store":       {65534, func(dir string) string { return "XDG_DATA_HOME=" + dir }, nil, core.UseInUse},
		"root, which has another one":      {0, func(dir string) string { return "XDG_DATA_HOME=" + dir }, nil, core.UseUnknown},
		"a later word names the store": {0, func(dir string) string { return "A=B" },
			func(graph string) []string { return []string{"--root", graph} }, core.UseUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			// Not t.TempDir, which another user cannot look into.
			dir, err := os.MkdirTemp("/var/tmp", "unmoor-buildah")
			if err != nil || os.Chmod(dir, 0o755) != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) }) // small
			graph := filepath.Join(dir, "containers/storage")
			for path, text := range map[string]string{
				"buildah": string(binary), "copy": "while :; do sleep 0.1; done\n",
				"containers/storage/c/buildah.json": string(good),
				"here.conf":                         "[storage]\ngraphroot = \"" + graph + "\"\n",
				"there.conf":                        "[storage]\ngraphroot = \"" + dir + "\"\n",
			} {
				path = filepath.Join(dir, path)
				if os.MkdirAll(filepath.Dir(path), 0o755) != nil || os.WriteFile(path, []byte(text), 0o755) != nil {
					t.Fatal(path)
				}
			}
			// A shell that runs the script "copy" looks like a buildah copy.
			cmd := exec.Command(filepath.Join(dir, "buildah"), "copy")
			if test.args != nil {
				cmd.Args = append(cmd.Args, test.args(graph)...)
			}
			cmd.Args = append(cmd.Args, "web", "x", "/")
			cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/bin:/bin", "HOME=" + dir + "/home", test.env(dir)}
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: test.uid, Gid: test.uid}}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				cmd.Process.Kill()
				cmd.Wait() // killed
			})
			p := New(Options{})
			store := core.StoreInfo{GraphRoot: graph}
			c := core.Container{ID: core.ContainerID(r.ContainerID), LayerID: "layer", Names: []string{"web"}, Directory: filepath.Join(graph, "c")}
			claims, err := p.Claim(t.Context(), store, []core.Container{c})
			if err != nil {
				t.Fatal(err)
			}
			if claims[0].Use != test.use || names(cmd.Process.Pid, claims[0]) != (test.use != core.UseIdle) {
				t.Errorf("%+v", claims[0])
			}
			if test.use == core.UseInUse {
				return
			}
			p.Stop(t.Context(), store, []core.Handle{{Container: c, Claim: claims[0]}}, 0)
			if s, err := readStat(cmd.Process.Pid); err != nil || s.dead() {
				t.Error("it was ended")
			}
		})
	}
}
