package itest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// base is where all runs have their directories: a real disk, since overlay on tmpfs differs.
const base = "/var/tmp/unmoor-itest"

// The binaries under test, as built by TestMain. failpointBinary has the failpoints compiled in.
var (
	unmoorBinary    string
	failpointBinary string
)

// run is this process's directory below base, and the mark by which its processes and mounts are
// known.
var run string

func TestMain(m *testing.M) {
	if helper := os.Getenv(helperVariable); helper != "" {
		hold(helper)
	}
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) (code int) {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "note: itest: not root: the scenes with real engines are skipped")
		return m.Run()
	}
	run = filepath.Join(base, fmt.Sprintf("r%d", os.Getpid()))
	if err := sweepStale(); err != nil {
		fmt.Fprintln(os.Stderr, "itest:", err)
		return 1
	}
	if err := os.MkdirAll(run, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, "itest:", err)
		return 1
	}
	defer func() {
		if left := sweep(run); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "itest: left behind in %s:\n  %s\n", run, strings.Join(left, "\n  "))
			code = 1
		}
	}()
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, "itest:", err)
		return 1
	}
	cannot := ""
	if err := makeImages(); err != nil {
		cannot = err.Error()
	}
	findGenerations(cannot)
	return m.Run()
}

// build makes the two binaries, with the tags that stand in the Makefile. UNMOOR_BIN and
// UNMOOR_FAILPOINTS_BIN name ones that are there already.
func build() error {
	unmoorBinary, failpointBinary = os.Getenv("UNMOOR_BIN"), os.Getenv("UNMOOR_FAILPOINTS_BIN")
	tags, err := exec.Command("make", "-s", "-C", "..", "--eval=itest-tags: ; @echo $(TAGS)", "itest-tags").Output()
	if err != nil {
		return fmt.Errorf("ask make for the build tags: %w", err)
	}
	for _, b := range []struct {
		path *string
		tags string
	}{
		{&unmoorBinary, ""},
		{&failpointBinary, " failpoints"},
	} {
		to := filepath.Join(run, "unmoor"+strings.TrimSpace(b.tags))
		from := *b.path
		*b.path = to
		if from != "" {
			// A copy: whoever runs it need not be able to reach where it was built.
			content, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, content, 0o755)
			}
			if err != nil {
				return err
			}
			continue
		}
		cmd := exec.Command("go", "build", "-trimpath", "-tags", strings.TrimSpace(string(tags))+b.tags, "-o", to, "./cmd/unmoor")
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", filepath.Base(*b.path), err, out)
		}
	}
	return nil
}

// makeImages writes run/image.tar: a root file system of one static busybox. A file names it, so
// that two images differ.
func makeImages() error {
	for _, name := range []string{"image", "bystander"} {
		root := filepath.Join(run, name)
		for _, dir := range []string{"bin", "etc", "proc", "dev", "sys", "tmp", "old"} {
			if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
				return err
			}
		}
		busybox, err := os.ReadFile("/bin/busybox")
		if err != nil {
			return fmt.Errorf("no static busybox (%w): run itest/setup.sh", err)
		}
		if err := os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755); err != nil {
			return err
		}
		for _, applet := range []string{"sh", "sleep", "cat", "true", "touch", "mkdir", "umount"} {
			if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(root, "etc/name"), []byte(name+"\n"), 0o644); err != nil {
			return err
		}
		if out, err := exec.Command("tar", "-C", root, "-cf", filepath.Join(run, name+".tar"), ".").CombinedOutput(); err != nil {
			return fmt.Errorf("tar: %w: %s", err, out)
		}
	}
	return nil
}

// without says what the test goes on without, and why; in CI that is a failure.
func without(t *testing.T, what, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("without %s: %s (in CI that is a failure)", what, why)
	}
	t.Logf("note: without %s: %s", what, why)
}

// skip skips the test, saying why; in CI that is a failure.
func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s (a skip is a failure in CI)", why)
	}
	t.Skip(why)
}
