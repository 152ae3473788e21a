package cstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// TestOptions opens stores as Podman's flags would. What Podman 4.3.1 makes of the same flags was
// asked of it with "podman info".
func TestOptions(t *testing.T) {
	storetest.Root(t)
	dir := t.TempDir()
	conf := filepath.Join(dir, "storage.conf")
	text := fmt.Sprintf("[storage]\ndriver=\"overlay\"\nrunroot=%q\ngraphroot=%q\n[storage.options.overlay]\nmountopt=\"nodev\"\n",
		filepath.Join(dir, "run"), filepath.Join(dir, "graph"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "graph"), link); err != nil {
		t.Fatal(err)
	}
	storetest.At(t, dir, "overlay") // For its unmounting.
	vfs := storetest.New(t, "vfs")
	vfs.AddImage(storetest.Image{Files: map[string]string{"a": "1"}})
	other := storetest.New(t, "overlay")
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name    string
		options []string // graph root, run root, driver, options
		env     string
		want    string
	}{
		{"none", []string{"", "", ""}, "", "true " + in("graph") + " " + in("run") + " overlay [overlay.mountopt=nodev]"},
		{"the same roots named", []string{in("graph"), in("run"), ""}, "", "true " + in("graph") + " " + in("run") + " overlay []"},
		{"the same root by a link", []string{link, "", ""}, "", "true " + link + " " + in("run") + " overlay []"},
		{"root alone", []string{other.Options.GraphRoot, "", ""}, "", "false " + other.Options.GraphRoot + " " + in("run") + " overlay []"},
		{"run root alone", []string{"", other.Options.RunRoot, ""}, "", "false " + in("graph") + " " + other.Options.RunRoot + " overlay [overlay.mountopt=nodev]"},
		{"an option", []string{"", "", "", "overlay.mountopt=noexec"}, "", "true " + in("graph") + " " + in("run") + " overlay [overlay.mountopt=noexec]"},
		{"another driver", []string{"", "", "vfs"}, "", "false " + in("graph") + " " + in("run") + " vfs []"},
		{"the driver of a root's records", []string{vfs.Options.GraphRoot, vfs.Options.RunRoot, ""}, "", "false " + vfs.Options.GraphRoot + " " + vfs.Options.RunRoot + " vfs []"},
		{"STORAGE_DRIVER", []string{other.Options.GraphRoot, other.Options.RunRoot, ""}, "STORAGE_DRIVER=vfs", "false " + other.Options.GraphRoot + " " + other.Options.RunRoot + " vfs []"},
		{"STORAGE_OPTS", []string{"", "", ""}, "STORAGE_OPTS=overlay.mountopt=nosuid", "true " + in("graph") + " " + in("run") + " overlay [overlay.mountopt=nosuid]"},
		{"STORAGE_OPTS and root", []string{other.Options.GraphRoot, other.Options.RunRoot, ""}, "STORAGE_OPTS=overlay.mountopt=nosuid", "false " + other.Options.GraphRoot + " " + other.Options.RunRoot + " overlay []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := cstore.Options{GraphRoot: c.options[0], RunRoot: c.options[1], Driver: c.options[2], DriverOptions: c.options[3:]}
			cmd := childCommand(t, o, "info")
			// Blanks part the arguments of a child; "-" is an empty one.
			words := []string{"info"}
			for _, w := range append(c.options[:3:3], strings.Join(c.options[3:], ",")) {
				if w == "" {
					w = "-"
				}
				words = append(words, w)
			}
			cmd.Env = append(cmd.Env, childVar+"="+strings.Join(words, " "), "CONTAINERS_STORAGE_CONF="+conf, c.env)
			out, err := cmd.CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
				t.Errorf("%v:\n%s, want\n%s", err, got, c.want)
			}
		})
	}
}
