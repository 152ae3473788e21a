package cstore_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// engine is a podman with a store of its own.
type engine struct {
	*storetest.Fixture
	t       *testing.T
	program string
	policy  string
	env     []string
}

// engines are the podmans of this machine: its own, and the next one as itest/setup.sh makes it.
func engines(t *testing.T, driver string) map[string]*engine {
	t.Helper()
	return map[string]*engine{"host": newEngine(t, driver, "podman"), "trixie": newEngine(t, driver, trixiePodman())}
}

func trixiePodman() string {
	cache := os.Getenv("UNMOOR_CACHE")
	if cache == "" {
		cache = "/var/cache/unmoor-itest"
	}
	return filepath.Join(cache, "trixie-native/podman")
}

func newEngine(t *testing.T, driver, program string) *engine {
	t.Helper()
	needed(t, program)
	return &engine{Fixture: storetest.New(t, driver), t: t, program: program,
		policy: fileWith(t, "policy.json", []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`)),
		env:    append(os.Environ(), "PODMAN_IGNORE_CGROUPSV1_WARNING=1", "LC_ALL=C")}
}

// needed skips a test without a program, and fails it in CI.
func needed(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: run itest/setup.sh", program)
	}
	t.Skipf("%s is not installed: run itest/setup.sh", program)
}

// podman runs a command on the engine's store, and returns what it prints.
func (e *engine) podman(args ...string) string {
	e.t.Helper()
	out, err := e.try(args...)
	if err != nil {
		e.t.Fatalf("podman %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (e *engine) try(args ...string) (string, error) {
	o := e.Options
	return run(e.env, e.program, append([]string{"--root", o.GraphRoot, "--runroot", o.RunRoot, "--storage-driver", o.Driver}, args...)...)
}

func run(env []string, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Env = env
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, complaint.String())
	}
	return string(out), err
}

// contentsOf are what the images of a store are made of, by name or ID.
func contentsOf(f *storetest.Fixture) map[string]string {
	all := make(map[string]string)
	for _, i := range f.Snapshot().Images {
		config, layers := f.Content(i.ID)
		for _, name := range append(slices.Clone(i.Names), string(i.ID)) {
			all[name] = fmt.Sprintf("%s\n%s\n%v", i.ID, config, layers)
		}
	}
	return all
}

// Whatever the engines' tools write is loaded as podman loads it: names, configuration, layers.
func TestLoadAsPodman(t *testing.T) {
	if testing.Short() {
		t.Skip("runs podman dozens of times")
	}
	l := newLoader(t, "overlay")
	podmans := engines(t, "overlay")
	needed(t, "skopeo")
	needed(t, "buildah")
	maker := newEngine(t, "overlay", trixiePodman())
	root := fileWith(t, "root.tar", tarOf(t, file("etc/name", "root")))
	maker.podman("import", "-q", "-c", "CMD /bin/true", root, "localhost/base:1")
	base := maker.AddImage(storetest.Image{Names: []string{"registry.example/team/app:2"}, Files: map[string]string{"app": "app"},
		Base: maker.Snapshot().Images[0].ID, Label: "app"})
	maker.podman("tag", string(base), "localhost/app:latest")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for format, path := range map[string]string{"docker-archive": "docker.tar", "oci-archive": "oci.tar", "oci-dir": "oci", "docker-dir": "dir"} {
		maker.podman("save", "-q", "--format", format, "-o", at(path), "localhost/app:latest")
	}
	maker.podman("save", "-q", "--format", "docker-archive", "-o", at("id.tar"), string(base))
	maker.podman("save", "-q", "--format", "oci-archive", "-o", at("id.oci"), string(base))
	maker.podman("save", "-q", "-m", "-o", at("two.tar"), "localhost/app:latest", "localhost/base:1", "registry.example/team/app:2")
	store := fmt.Sprintf("containers-storage:[overlay@%s+%s]", maker.Options.GraphRoot, maker.Options.RunRoot)
	for _, to := range []string{
		"docker-archive:" + at("skopeo.tar") + ":app:from-skopeo", "docker-archive:" + at("bare.tar"), "oci-archive:" + at("skopeo.oci") + ":app:from-skopeo",
		"oci:" + at("skopeo") + ":tagged", "dir:" + at("skopeo-dir"),
	} {
		if _, err := run(maker.env, "skopeo", "copy", "-q", "--policy", maker.policy, store+"localhost/app:latest", to); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{"docker-archive:" + at("buildah.tar") + ":app:from-buildah", "oci-archive:" + at("buildah.oci") + ":app:from-buildah", "oci:" + at("buildah")} {
		o := maker.Options
		_, err := run(maker.env, "buildah", "--root", o.GraphRoot, "--runroot", o.RunRoot, "--storage-driver", "overlay", "push", "-q",
			"--signature-policy", maker.policy, "localhost/app:latest", to)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, plain := range []string{"docker.tar", "oci.tar"} {
		for suffix, program := range map[string]string{".gz": "gzip", ".xz": "xz", ".bz2": "bzip2"} {
			out, err := run(nil, program, "-c", at(plain))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(at(plain+suffix), []byte(out), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	archives := entriesOf(t, dir)
	if len(archives) != 21 {
		t.Fatalf("the archives are %v", archives)
	}
	for _, archive := range archives {
		images, err := l.Load(t.Context(), l.request(at(archive)))
		if err != nil {
			t.Fatalf("%s: %v", archive, err)
		}
		var printed strings.Builder
		for _, i := range images {
			for _, name := range i.Names {
				fmt.Fprintf(&printed, "Loaded image: %s\n", name)
			}
			if len(i.Names) == 0 {
				fmt.Fprintf(&printed, "Loaded image: sha256:%s\n", i.ID)
			}
		}
		for name, p := range podmans {
			// Podman 4.3.1 names what is in an OCI layout by its path, and takes no Docker archive by gzip.
			if name == "host" && slices.Contains([]string{"oci", "skopeo", "buildah", "docker.tar.gz"}, archive) {
				continue
			}
			want, err := p.try("load", "-q", "--signature-policy", p.policy, "-i", at(archive))
			if err != nil || printed.String() != want {
				t.Errorf("%s: printed\n%sand podman of %s, %v\n%s", archive, &printed, name, err, want)
			}
		}
	}
	ours := contentsOf(l.Fixture)
	for name, p := range podmans {
		theirs := contentsOf(p.Fixture)
		for image, content := range ours {
			if theirs[image] != content {
				t.Errorf("%s of podman of %s is\n%s\nand ours\n%s", image, name, theirs[image], content)
			}
		}
		if len(theirs) != len(ours) {
			t.Errorf("podman of %s has %d images and names, and ours %d", name, len(theirs), len(ours))
		}
	}
	if len(ours) < 7 {
		t.Errorf("loaded were %v", ours)
	}
	l.tidy(t)
	l.Clean()
}

// Every instruction makes of a root file system what podman import makes of it.
func TestImportAsPodman(t *testing.T) {
	if testing.Short() {
		t.Skip("runs podman dozens of times")
	}
	l := newLoader(t, "overlay")
	podmans := engines(t, "overlay")
	data := tarOf(t, file("etc/name", "root"), file("bin/sh", "shell"))
	root := fileWith(t, "root.tar", data)
	packed := fileWith(t, "root.tar.gz", gzipped(data))
	changes := []string{
		"CMD /bin/sh -c true", `CMD ["/bin/sh","-c","true"]`, "CMD=/bin/sh", "CMD ", "cmd  /bin/sh ",
		"ENTRYPOINT /bin/run it", `ENTRYPOINT ["/bin/run"]`, "ENTRYPOINT ", "ENTRYPOINT []",
		"ENV A=b", `ENV A="b c"`, `ENV "A"=b`, "ENV A", "ENV A=b=c", "ENV=A=b", "ENV A b", `ENV A="`,
		"EXPOSE 80", "EXPOSE 53/udp", "EXPOSE 80/TCP", "EXPOSE 8080/tcp",
		"LABEL a=b", `LABEL "a b"="c d"`, "LABEL a=", "LABEL a=b=c",
		"STOPSIGNAL SIGTERM", "STOPSIGNAL term", "STOPSIGNAL 9", "STOPSIGNAL RTMIN+3", "STOPSIGNAL 99",
		"USER nobody", "USER 1:2", "VOLUME /data", `VOLUME ["/a","/b"]`, "VOLUME /a /b",
		"WORKDIR /srv", "ONBUILD RUN true",
	}
	bad := []string{
		"CMD", "RUN true", "", "ENV =b", "ENV ", "EXPOSE http", "EXPOSE 0", "EXPOSE 65536", "EXPOSE 80/sctp", "EXPOSE 1/2/3", "LABEL a", "LABEL =b",
		`LABEL ""=b`, "STOPSIGNAL NONE", "STOPSIGNAL 0", "USER ", "VOLUME ", "VOLUME /a  /b", "VOLUME []", "WORKDIR ", "ONBUILD ", "CMD=/bin/sh -c x", "MAINTAINER me",
	}
	together := []string{"WORKDIR /a", "WORKDIR b", "WORKDIR ../c", "ENV A=1", "ENV B=2", "LABEL a=1", "LABEL a=2", "CMD one", "CMD two", "EXPOSE 1", "EXPOSE 2", "VOLUME /x", "VOLUME /y"}
	copies := core.CopyOptions{SignaturePolicy: l.policy}
	p := podmans["trixie"]
	for i, change := range changes {
		// One process for all would be one image for all; a name each, and one comparison at the end.
		name := fmt.Sprintf("localhost/change:%d", i)
		r := core.ImportRequest{Source: core.ImageSource{Path: root}, Name: name, Changes: []string{change}, Copy: copies}
		if _, err := l.Import(t.Context(), r); err != nil {
			t.Errorf("%q: %v", change, err)
		}
		p.podman("import", "-q", "-c", change, root, name)
	}
	for _, change := range bad {
		if _, err := l.Import(t.Context(), core.ImportRequest{Source: core.ImageSource{Path: root}, Changes: []string{change}, Copy: copies}); err == nil {
			t.Errorf("%q is taken", change)
		}
		if out, err := p.try("import", "-q", "-c", change, root); err == nil {
			t.Errorf("%q is taken by podman: %s", change, out)
		}
	}
	for name, p := range podmans {
		for _, r := range []core.ImportRequest{
			{Source: core.ImageSource{Path: root}, Name: "together", Changes: together},
			{Source: core.ImageSource{Path: packed}, Name: "packed:1", Message: "as it was"},
			{Source: core.ImageSource{Path: root}, Name: "registry.example/other:1", OS: "linux", Architecture: "arm64", Variant: "v8"}, // written in another order by Podman 4.3.1
			{Source: core.ImageSource{Path: root}},
		} {
			if name == "host" && r.Variant != "" {
				continue
			}
			args := []string{"import", "-q"}
			for _, c := range r.Changes {
				args = append(args, "-c", c)
			}
			for flag, value := range map[string]string{"--message": r.Message, "--os": r.OS, "--arch": r.Architecture, "--variant": r.Variant} {
				if value != "" {
					args = append(args, flag, value)
				}
			}
			r.Copy = copies
			image, err := l.Import(t.Context(), r)
			args = append(args, r.Source.Path)
			if r.Name != "" {
				args = append(args, r.Name)
			}
			if out := p.podman(args...); err != nil || strings.TrimSpace(out) != "sha256:"+string(image.ID) {
				t.Errorf("podman of %s, %v: %s and ours %s, %v", name, args, out, image.ID, err)
			}
		}
	}
	ours, theirs := contentsOf(l.Fixture), contentsOf(p.Fixture)
	for image, content := range ours {
		if theirs[image] != content {
			t.Errorf("%s of podman is\n%s\nand ours\n%s", image, theirs[image], content)
		}
	}
	if len(ours) != len(theirs) || len(ours) < len(changes) {
		t.Errorf("podman has %d images and names, and ours %d", len(theirs), len(ours))
	}
	l.tidy(t)
	l.Clean()
}
