package cstore_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

const registries = `unqualified-search-registries = ["example.com", "quay.io"]
[aliases]
"tool" = "quay.io/tools/tool"
`

// TestResolveImage asks for images by many references, and Podman, where it is installed, for the
// same.
func TestResolveImage(t *testing.T) {
	ctx := context.Background()
	conf := filepath.Join(t.TempDir(), "registries.conf")
	if err := os.WriteFile(conf, []byte(registries), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", conf)
	f := storetest.New(t, "vfs")
	made := make(map[string]core.ImageID)
	add := func(key string, names ...string) {
		made[key] = f.AddImage(storetest.Image{Names: names, Files: map[string]string{key: key}, Label: key})
	}
	add("local", "localhost/app:latest", "localhost/app:1")
	add("docker", "docker.io/library/busy:latest")
	add("docker2", "docker.io/library/app:latest")
	add("search", "example.com/found:v2")
	add("quay", "quay.io/found:v2", "quay.io/found:v3")
	add("alias", "quay.io/tools/tool:latest")
	add("deep", "registry.test:5000/team/project/deep:latest")
	add("twin1", "a.test/x/twin:latest")
	add("twin2", "b.test/x/twin:latest")
	add("digest", "c.test/y/digest:latest")
	add("dangling")
	add("slash", "d.test/team/bench:latest")
	snapshot := f.Snapshot()
	digestOf := func(key string) string { return mustImage(t, snapshot, made[key]).Digests[0] }
	prefix := func(key string) string {
		id := string(made[key])
		for n := 1; ; n++ {
			fits := slices.DeleteFunc(slices.Clone(snapshot.Images), func(i core.Image) bool { return !strings.HasPrefix(string(i.ID), id[:n]) })
			if len(fits) == 1 {
				return id[:n]
			}
		}
	}
	// With more than 16 images, some first digit stands before two IDs.
	for i := range 8 {
		f.AddImage(storetest.Image{Files: map[string]string{"filler": strings.Repeat("x", i)}, Label: strings.Repeat("x", i)})
	}
	snapshot = f.Snapshot()
	shared := ""
	for _, digit := range "0123456789abcdef" {
		if slices.ContainsFunc(snapshot.Images, func(i core.Image) bool {
			return i.ID[0] == byte(digit) && slices.ContainsFunc(snapshot.Images, func(j core.Image) bool { return i.ID != j.ID && j.ID[0] == byte(digit) })
		}) {
			shared = string(digit)
			break
		}
	}

	s := f.Open()
	podman := podmanFor(t, f)
	for _, c := range []struct {
		name, ref string
		// want is the key of an image, "" for none, "?" for several.
		want, named string
		// differs says why Podman's word is another one.
		differs string
	}{
		{name: "full name", ref: "localhost/app:1", want: "local", named: "localhost/app:1"},
		{name: "name without tag", ref: "localhost/app", want: "local", named: "localhost/app:latest"},
		{name: "short name: localhost comes first", ref: "app", want: "local", named: "localhost/app:latest"},
		{name: "short name with tag", ref: "app:1", want: "local", named: "localhost/app:1"},
		{name: "unknown tag", ref: "localhost/app:2"},
		{name: "docker.io/library", ref: "busy", want: "docker", named: "docker.io/library/busy:latest"},
		{name: "docker.io without library", ref: "docker.io/busy", want: "docker", named: "docker.io/library/busy:latest"},
		{name: "library alone", ref: "library/busy", want: "docker", named: "docker.io/library/busy:latest"},
		{name: "first search registry", ref: "found:v2", want: "search", named: "example.com/found:v2"},
		{name: "second search registry", ref: "found:v3", want: "quay", named: "quay.io/found:v3"},
		{name: "no such tag in the registries", ref: "found"},
		{name: "alias", ref: "tool", want: "alias", named: "quay.io/tools/tool:latest"},
		{name: "end of a name", ref: "deep", want: "deep", named: "registry.test:5000/team/project/deep:latest"},
		{name: "end of a name, two parts", ref: "project/deep", want: "deep", named: "registry.test:5000/team/project/deep:latest"},
		{name: "end of a name with tag", ref: "deep:latest", want: "deep", named: "registry.test:5000/team/project/deep:latest"},
		{name: "end of a name, other tag", ref: "deep:1"},
		{name: "end of a word is no end of a name", ref: "eep"},
		{name: "registry without the project", ref: "registry.test:5000/deep"},
		{name: "end of two names", ref: "twin", want: "?", differs: "it takes the first"},
		{name: "full ID", ref: string(made["local"]), want: "local"},
		{name: "full ID with algorithm", ref: "sha256:" + string(made["local"]), want: "local"},
		{name: "unknown full ID", ref: strings.Repeat("0", 64)},
		{name: "unknown full ID with algorithm", ref: "sha256:" + strings.Repeat("0", 64)},
		{name: "prefix with algorithm", ref: "sha256:" + string(made["local"][:12])},
		{name: "unique prefix", ref: prefix("dangling") + string(made["dangling"][len(prefix("dangling")):12]), want: "dangling"},
		{name: "prefix of several", ref: shared, want: "?", differs: "it says that there is none"},
		{name: "name and digest", ref: "c.test/y/digest@" + digestOf("digest"), want: "digest"},
		{name: "name and another image's digest", ref: "c.test/y/digest@" + digestOf("local"), differs: "4.3.1 goes by the digest alone"},
		{name: "short name and digest", ref: "busy@" + digestOf("docker"), want: "docker"},
		{name: "end of a name and digest", ref: "digest@" + digestOf("digest"), want: "digest"},
		{name: "a manifest's digest", ref: digestOf("digest"), want: "digest", differs: "it knows IDs only"},
		{name: "upper case", ref: "APP"},
		{name: "empty", ref: ""},
		{name: "a blank", ref: " "},
		{name: "a path", ref: "../app"},
		{name: "transport", ref: "docker://localhost/app"},
		{name: "only a tag", ref: ":latest"},
		{name: "hex name of no ID", ref: "be" + "ef" + strings.Repeat("0", 6)},
		{name: "two parts", ref: "team/bench", want: "slash", named: "d.test/team/bench:latest"},
		{name: "a comma", ref: "a,b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, name, err := s.ResolveImage(ctx, snapshot, c.ref)
			var ambiguous *core.AmbiguousError
			switch {
			case c.want == "?":
				if !errors.As(err, &ambiguous) || len(ambiguous.Candidates) < 2 {
					t.Errorf("%q: %s, %v", c.ref, id, err)
				}
			case c.want == "":
				if !errors.Is(err, core.ErrImageUnknown) || strings.Count(err.Error(), c.ref) != 1 && len(c.ref) > 3 {
					t.Errorf("%q: %s, %v", c.ref, id, err)
				}
			case err != nil || id != made[c.want] || name != c.named:
				t.Errorf("%q is %s %q, %v; want %s %q", c.ref, id.Short(), name, err, made[c.want].Short(), c.named)
			}
			if podman == nil || c.ref == "" || c.ref == " " {
				return
			}
			if theirs := podman(c.ref); theirs != string(id) && c.differs == "" {
				t.Errorf("%q: Podman says %q, we %q", c.ref, theirs, id)
			}
		})
	}
	t.Run("list", func(t *testing.T) {
		list := f.AddList("localhost/list:latest", made["local"])
		if id, name, err := s.ResolveImage(ctx, f.Snapshot(), "list"); id != list || name != "localhost/list:latest" || err != nil {
			t.Errorf("%s %q %v", id, name, err)
		}
	})
	t.Run("broken registries.conf", func(t *testing.T) {
		if err := os.WriteFile(conf, []byte("not toml"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("CONTAINERS_REGISTRIES_CONF", filepath.Dir(conf)+"/./registries.conf") // Not cached yet.
		if id, _, err := s.ResolveImage(ctx, snapshot, "busy"); err == nil || errors.Is(err, core.ErrImageUnknown) {
			t.Errorf("a short name: %s, %v", id, err)
		}
		for _, ref := range []string{"localhost/app:1", string(made["local"])} {
			if id, _, err := s.ResolveImage(ctx, snapshot, ref); id != made["local"] || err != nil {
				t.Errorf("%s: %s, %v", ref, id, err)
			}
		}
	})
}

// podmanFor asks the installed podman for an image's ID in a fixture's store; "" where it has none.
func podmanFor(t *testing.T, f *storetest.Fixture) func(ref string) string {
	t.Helper()
	podman, err := exec.LookPath("podman")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI must have podman")
		}
		t.Log("no podman to compare with")
		return nil
	}
	temporary := t.TempDir()
	return func(ref string) string {
		t.Helper()
		cmd := exec.Command(podman, "--root", f.Options.GraphRoot, "--runroot", f.Options.RunRoot, "--storage-driver", f.Options.Driver,
			"--tmpdir", temporary, "--events-backend", "file", "image", "inspect", "--format", "{{.Id}}", ref)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if err != nil && testing.Verbose() {
			lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
			t.Logf("podman: %s", lines[len(lines)-1])
		}
		return strings.TrimSpace(string(out))
	}
}
