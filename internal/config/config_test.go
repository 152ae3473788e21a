package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const shipped = "../../config.toml"

func TestShippedFileEqualsDefault(t *testing.T) {
	text, err := os.ReadFile(shipped)
	if err != nil {
		t.Fatal(err)
	}
	uncommented := regexp.MustCompile(`(?m)^# ([a-z_]+ = )`).ReplaceAllString(string(text), "$1")
	for name, text := range map[string]string{"as shipped": string(text), "every key set": uncommented} {
		c, err := Parse("config.toml", text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := Default()
		if diff := cmp.Diff(want, c, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-default +file):\n%s", name, diff)
		}
	}
	c := Default()
	table := ""
	keys := make(map[string]bool)
	for line := range strings.Lines(uncommented) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[]")
		} else if key, _, ok := strings.Cut(line, " = "); ok && !strings.HasPrefix(line, "#") {
			keys[table+"."+key] = true
		}
	}
	for _, s := range c.settings() {
		if !keys[s.key] {
			t.Errorf("%s is not in config.toml", s.key)
		}
	}
}

func TestParse(t *testing.T) {
	c, err := Parse("f", `
[store]
root = "/srv/store"
options = ["a=b"]
[removal]
grace_period = "1m30s"
[protect]
images = ["docker.io/library/*"]
labels = ["keep", "tier=db"]
[prune]
enabled = true
high = "90%"
low = "0%"
min_age = "0s"
[access]
read = ["*"]
write = ["alice", "1000", "@ops", "@1000", 'EXAMPLE\bob', "carol@example.org"]
[service]
socket = "/run/x"
mode = "0660"
[audit]
enabled = false
max_size = "1GiB"
keep = 10
[plugin]
podman.command = ["/opt/podman", "--tmpdir", "/x"]
colima = { command = ["/usr/libexec/unmoor-colima", "-v"], claim_timeout = "5s" }
off.enabled = false
[plugins]
directory = "/srv/plugins"
[plugin.buildah]
when_unavailable = "ignore"
socket = "unix:/run/buildah.sock"
[plugin.lima]
address = "unix:/run/lima.sock"
required = true
[log]
level = "debug"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Store.Root, want.Store.Options = "/srv/store", []string{"a=b"}
	want.Removal.GracePeriod = Duration(90 * time.Second)
	want.Protect = Protect{Images: []string{"docker.io/library/*"}, Labels: []string{"keep", "tier=db"}}
	want.Prune.Enabled, want.Prune.High, want.Prune.Low, want.Prune.MinAge = true, 90, 0, 0
	want.Access.Read = []string{"*"}
	want.Access.Write = []string{"alice", "1000", "@ops", "@1000", `EXAMPLE\bob`, "carol@example.org"}
	want.Service = Service{Socket: "/run/x", Mode: 0o660}
	want.Audit = Audit{MaxSize: 1 << 30, Keep: 10}
	want.Podman.Command = []string{"/opt/podman", "--tmpdir", "/x"}
	want.Buildah.WhenUnavailable, want.Buildah.Socket = Ignore, "unix:/run/buildah.sock"
	want.Plugins.Directory = "/srv/plugins"
	lima, colima, off := defaultPlugin(), defaultPlugin(), defaultPlugin()
	lima.Required, colima.ClaimTimeout, off.Enabled = true, Duration(5*time.Second), false
	want.External = []External{
		{Name: "colima", Plugin: colima, Command: []string{"/usr/libexec/unmoor-colima", "-v"}},
		{Name: "lima", Plugin: lima, Address: "unix:/run/lima.sock"},
		{Name: "off", Plugin: off},
	}
	want.Log.Level = "debug"
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsNameFileLineAndKey(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"an unknown key":             {"[store]\n\ngraph = 1\n", "f:3: store.graph: no such key"},
		"a key in the wrong case":    {"[store]\nRoot = \"/x\"\n", "f:2: store.Root: no such key"},
		"an unknown section":         {"[stores]\nroot = 1\n", "f:1: stores: no such key"},
		"an unknown plugin":          {"[log]\n[plugin.docker]\nenabled = true\n", "f:2: plugin.docker: no such plugin; there are buildah, crio, podman; one that is not built in wants address or command"},
		"a plugin that is a value":   {"[plugin]\nlima = 3\n", "f:2: plugin.lima: no such plugin; there are"},
		"a plugin in dotted keys":    {"[plugin]\n\nlima.enabled = true\n", "f:3: plugin.lima: no such plugin; there are"},
		"a list of plugins":          {"[[plugin.lima]]\naddress = \"unix:/x\"\n", "f:1: plugin.lima: no such plugin; there are"},
		"a plugin's name":            {"[plugin.Lima]\naddress = \"unix:/x\"\n", "f:1: plugin.Lima: is no name of a plugin: lower case"},
		"a plugin's name in quotes":  {"[plugin.\"a.b\"]\naddress = \"unix:/x\"\n", `f:1: plugin."a.b": is no name of a plugin: lower case`},
		"the kernel's name":          {"[plugin.kernel]\naddress = \"unix:/x\"\n", "f:1: plugin.kernel: is no name of a plugin: lower case letters, digits and -, and neither kernel nor none"},
		"nobody's name":              {"[plugin.none]\naddress = \"unix:/x\"\n", "f:1: plugin.none: is no name of a plugin"},
		"a key of another plugin":    {"[plugin.lima]\naddress = \"unix:/x\"\nsocket = \"unix:/x\"\n", "f:3: plugin.lima.socket: no such key"},
		"an address that is none":    {"[plugin.lima]\naddress = \"unix:@x\"\n", `f:2: plugin.lima.address: wants a socket such as "unix:/run/unmoor/plugins/lima.sock", not "unix:@x"`},
		"an address with parameters": {"[plugin.lima]\naddress = \"unix:/x;mode=0600\"\n", `f:2: plugin.lima.address: wants a socket`},
		"an address and a command":   {"[plugin.lima]\naddress = \"unix:/x\"\ncommand = [\"x\"]\n", "f:3: plugin.lima.command: is set, and so is address: choose one"},
		"an empty command":           {"[plugin.lima]\ncommand = []\n", "f:1: plugin.lima: no such plugin"},
		"a command without name":     {"[plugin.lima]\ncommand = [\"\", \"x\"]\n", `f:2: plugin.lima.command: wants a program, such as ["/usr/libexec/unmoor-lima"]`},
		"a socket that is none":      {"[plugin.crio]\nsocket = \"/run/x\"\n", `f:2: plugin.crio.socket: wants a socket such as "unix:/run/unmoor/plugins/crio.sock", not "/run/x"`},
		"another one is required":    {"[plugin.lima]\nenabled = false\nrequired = true\n", "f:3: plugin.lima.required: is true, but the plugin is not enabled"},
		"another one has no time":    {"[plugin.lima]\naddress = \"unix:/x\"\nclaim_timeout = \"0s\"\n", "f:3: plugin.lima.claim_timeout: wants more than 0"},
		"a relative directory":       {"[plugins]\ndirectory = \"x\"\n", `f:2: plugins.directory: wants an absolute path, not "x"`},
		"a value of another type":    {"[store]\nroot = 3\n", "f:2: store.root: wants a string"},
		"a word for a boolean":       {"[plugin.podman]\nenabled = \"yes\"\n", "f:2: plugin.podman.enabled: wants true or false"},
		"a list of numbers":          {"[store]\noptions = [1]\n", "f:2: store.options: wants a list of strings"},
		"a number for a duration":    {"[removal]\ngrace_period = 10\n", `f:2: removal.grace_period: wants a length of time such as "10s" or "1m30s", not "10"`},
		"a negative duration":        {"[removal]\ngrace_period = \"-1s\"\n", `f:2: removal.grace_period: wants a length of time such as "10s" or "1m30s", not "-1s"`},
		"a table for a duration":     {"[removal]\ngrace_period.x = 1\n", "f:2: removal.grace_period.x: no such key"},
		"an unknown word":            {"[plugin.podman]\nwhen_unavailable = \"maybe\"\n", `f:2: plugin.podman.when_unavailable: is "block" or "ignore", not "maybe"`},
		"an unknown level":           {"\n\n[log]\nlevel = \"loud\"\n", `f:4: log.level: is one of "debug", "info", "warn" and "error", not "loud"`},
		"no time to answer":          {"[plugin.buildah]\nclaim_timeout = \"0s\"\n", "f:2: plugin.buildah.claim_timeout: wants more than 0: without an answer nothing could be removed"},
		"a required disabled plugin": {"[plugin.buildah]\nenabled = false\nrequired = true\n", "f:3: plugin.buildah.required: is true, but the plugin is not enabled"},
		"no command":                 {"[plugin.podman]\ncommand = []\n", `f:2: plugin.podman.command: wants a program, such as ["podman"]`},
		"an address of no kind":      {"[plugin.podman]\naddress = \"tcp://x\"\n", `f:2: plugin.podman.address: wants a socket such as "unix:///run/podman/podman.sock", not "tcp://x"`},
		"a relative root":            {"[store]\nroot = \"x\"\n", `f:2: store.root: wants an absolute path, not "x"`},
		"an empty pattern":           {"[protect]\nimages = [\"a\", \" \"]\n", `f:2: protect.images: wants patterns that are not empty, such as "docker.io/library/*"`},
		"an empty name":              {"[protect]\ncontainers = [\"\"]\n", "f:2: protect.containers: wants patterns that are not empty"},
		"a label without a key":      {"[protect]\n\nlabels = [\"keep\", \"=yes\"]\n", `f:3: protect.labels: wants KEY or KEY=VALUE, not "=yes"`},
		"an empty label":             {"[protect]\nlabels = [\"\"]\n", `f:2: protect.labels: wants KEY or KEY=VALUE, not ""`},
		"a pattern for a list":       {"[protect]\nimages = \"*\"\n", "f:2: protect.images: wants a list of strings"},
		"a value for a section":      {"store = 3\n", "f:1: store: is a section: write [store]"},
		"a list of sections":         {"[[log]]\nlevel = \"info\"\n", "f:1: log: is a section: write [log]"},
		"nobody":                     {"[access]\nread = [\"alice\", \"\"]\n", `f:2: access.read: wants users such as "alice" or "1000", or groups such as "@ops", not ""`},
		"a group without a name":     {"[access]\nwrite = [\"@\"]\n", `f:2: access.write: wants users such as "alice" or "1000", or groups such as "@ops", not "@"`},
		"a pattern of users":         {"[access]\nread = [\"al*\"]\n", `f:2: access.read: wants users such as "alice" or "1000", or groups such as "@ops", not "al*"`},
		"any group":                  {"[access]\nread = [\"@*\"]\n", `f:2: access.read: wants users such as "alice" or "1000", or groups such as "@ops", not "@*"`},
		"two users in one":           {"[access]\nread = [\"alice, bob\"]\n", `f:2: access.read: wants users such as "alice" or "1000", or groups such as "@ops", not "alice, bob"`},
		"a uid that is none":         {"[access]\nread = [\"4294967295\"]\n", `f:2: access.read: there is no ID 4294967295`},
		"a negative uid":             {"[access]\nread = [\"-1\"]\n", `f:2: access.read: wants users such as "alice" or "1000", or groups such as "@ops", not "-1"`},
		"anybody may remove":         {"[access]\nread = [\"*\"]\nwrite = [\"*\"]\n", `f:3: access.write: "*" would let anybody remove anything: name users or groups`},
		"a relative socket":          {"[service]\nsocket = \"unmoor\"\n", `f:2: service.socket: wants an absolute path, not "unmoor"`},
		"a mode that is decimal":     {"[service]\nmode = \"0999\"\n", `f:2: service.mode: wants the permissions in octal, such as "0666", not "0999"`},
		"a mode that is more":        {"[service]\nmode = \"4755\"\n", `f:2: service.mode: wants the permissions in octal, such as "0666", not "4755"`},
		"a mode that is a number":    {"[service]\nmode = 0o666\n", `f:2: service.mode: wants the permissions in octal, such as "0666", not "438"`},
		"a size without sense":       {"[audit]\nmax_size = \"16 MB\"\n", `f:2: audit.max_size: wants a size such as "16MiB", not "16 MB"`},
		"a size beyond all":          {"[audit]\nmax_size = \"17592186044416MiB\"\n", `f:2: audit.max_size: wants a size such as "16MiB", not "17592186044416MiB"`},
		"a size too small":           {"[audit]\nmax_size = \"1KiB\"\n", `f:2: audit.max_size: wants no less than "64KiB"`},
		"a word for a number":        {"[audit]\nkeep = \"four\"\n", `f:2: audit.keep: wants a number`},
		"a negative number":          {"[audit]\nkeep = -1\n", `f:2: audit.keep: wants a number from 0 to 1000`},
		"a part without its sign":    {"[prune]\nhigh = \"85\"\n", `f:2: prune.high: wants a part of a hundred such as "85%", not "85"`},
		"more than a hundred":        {"[prune]\nhigh = \"101%\"\n", `f:2: prune.high: wants a part of a hundred such as "85%", not "101%"`},
		"a part that is a number":    {"[prune]\nlow = 80\n", `f:2: prune.low: wants a part of a hundred such as "85%", not "80"`},
		"low above high":             {"[prune]\nhigh = \"80%\"\nlow = \"80%\"\n", `f:3: prune.low: wants less than high`},
		"no interval":                {"[prune]\ninterval = \"0s\"\n", `f:2: prune.interval: wants no less than "1s"`},
		"no TOML":                    {"[log]\nlevel\n", "f:2: expected"},
		"a key twice":                {"[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "f:3: "},
		"all that is wrong":          {"x = 1\ny = 2\n", "f:1: x: no such key\nf:2: y: no such key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("f", tt.text)
			if err == nil {
				t.Fatal("no error")
			}
			if got := err.Error(); !strings.HasPrefix(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.toml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte("[log]\nlvl = \"info\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	var key *KeyError
	if !errors.As(err, &key) || key.File != path || key.Line != 2 || key.Key != "log.lvl" {
		t.Errorf("got %v", err)
	}
}

func TestValidate(t *testing.T) {
	c := Default()
	if err := c.Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	c.Podman.Command = nil
	if err := c.Validate(); err == nil || err.Error() != `plugin.podman.command: wants a program, such as ["podman"]` {
		t.Errorf("got %v", err)
	}
}

func TestTOMLReadsBack(t *testing.T) {
	c := Default()
	c.Store.Root, c.Store.Options = `/a "b"`, []string{"x=y", "z"}
	c.Protect.Containers = []string{`a"b*`, "?"}
	c.External = []External{{Name: "a-b", Plugin: defaultPlugin(), Address: "unix:/x"}, {Name: "c", Plugin: defaultPlugin(), Command: []string{`a "b"`}}}
	c.Access.Read, c.Service.Mode, c.Audit.MaxSize, c.Audit.Keep = []string{"*"}, 0o60, 100_000, 0
	text, err := c.TOML()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse("shown", text)
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	if diff := cmp.Diff(c, back, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s in:\n%s", diff, text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[store]\nroot = \"/x\"\n")
	f.Add("[plugin.podman]\ncommand = [\"a\"]\nclaim_timeout = \"1s\"")
	f.Add("plugin = [[1], {a = 2}]\n[[log]]\nlevel = 1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", text)
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("read, but not valid: %v", err)
		}
	})
}
