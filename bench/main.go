// Command bench removes the same image with unmoor, podman and buildah, whole processes side by side
// in one run, and prints the times as ratios. Every measurement starts from the same bytes: a store
// is filled once and put back before each command.
//
// It needs root and the engines; UNMOOR_BIN names the binary.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	counts := flag.String("n", "0,1,50,500", "numbers of containers")
	kinds := flag.String("kinds", "buildah,podman,unknown", "whose containers")
	rounds := flag.Int("rounds", 3, "rounds of each measurement; the median counts")
	driver := flag.String("driver", "overlay", "storage driver")
	pods := flag.Int("pods", 0, "measure this many pods of CRI-O's, and nothing else")
	ending := flag.String("ending", "0.5", "seconds that the pods' containers take to end")
	flag.Parse()
	measure := func(b *bench) error { return b.all(strings.Split(*kinds, ","), strings.Split(*counts, ","), *rounds) }
	if *pods > 0 {
		measure = func(b *bench) error { return b.pods(*pods, *rounds, *ending) }
	}
	if err := run(*driver, measure); err != nil {
		log.Fatalf("bench: %v", err)
	}
}

func run(driver string, measure func(*bench) error) error {
	dir, err := os.MkdirTemp("/var/tmp", "unmoor-bench-")
	if err != nil {
		return err
	}
	b := &bench{dir: dir, driver: driver}
	defer b.clean()
	if err := b.configure(); err != nil {
		return err
	}
	return measure(b)
}

// all measures every kind with every number of containers.
func (b *bench) all(kinds, counts []string, rounds int) error {
	fmt.Printf("%-8s %5s  %-28s %9s %9s %8s %8s %8s\n", "kind", "n", "command", "median", "ratio", "fsyncs", "locks", "renames")
	for _, kind := range kinds {
		for _, count := range counts {
			n, err := strconv.Atoi(count)
			if err != nil {
				return err
			}
			if n == 0 && kind != kinds[0] {
				continue // an image without containers is nobody's
			}
			if err := b.measure(kind, n, rounds); err != nil {
				return fmt.Errorf("%d %s containers: %w", n, kind, err)
			}
		}
	}
	return nil
}

// bench is one scratch directory with the store that is measured and the filled original of it.
type bench struct {
	dir, driver string
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

func (b *bench) configure() error {
	conf := `[containers]
default_ulimits=["nofile=1024:1024","nproc=1000:1000"]
pids_limit=0
netns="none"
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
lock_type="file"
`
	if err := os.WriteFile(b.path("containers.conf"), []byte(conf), 0o600); err != nil {
		return err
	}
	if err := os.Setenv("CONTAINERS_CONF", b.path("containers.conf")); err != nil {
		return err
	}
	rootfs := b.path("rootfs", "bin")
	if err := os.MkdirAll(rootfs, 0o755); err != nil {
		return err
	}
	box, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.Symlink("sh", filepath.Join(rootfs, "sleep")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(rootfs, "sh"), box, 0o755)
}

// clean unmounts what an engine left mounted below the scratch directory, and removes it.
func (b *bench) clean() {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		log.Printf("bench: %v; %s is left behind", err, b.dir)
		return
	}
	var below []string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], b.dir+"/") {
			below = append(below, f[4])
		}
	}
	slices.Reverse(below)
	for _, m := range below {
		if err := exec.Command("umount", m).Run(); err != nil {
			log.Printf("bench: umount %s: %v; %s is left behind", m, err, b.dir)
			return
		}
	}
	if err := os.RemoveAll(b.dir); err != nil {
		log.Print(err)
	}
}

const image = "localhost/bench:1"

// store are the options that make a command use the measured store.
func (b *bench) store(command string) []string {
	s := []string{"--root", b.path("store", "root"), "--runroot", b.path("store", "run"), "--storage-driver", b.driver}
	if command == "podman" {
		s = append(s, "--tmpdir", b.path("store", "tmp"))
	}
	return s
}

func (b *bench) command(name string, args ...string) *exec.Cmd {
	bin := name
	if name == "unmoor" {
		bin = os.Getenv("UNMOOR_BIN")
	}
	return exec.Command(bin, append(b.store(name), args...)...)
}

func (b *bench) must(name string, args ...string) error {
	if out, err := b.command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// fill makes a store with one image and n containers of it, and keeps it as the original.
func (b *bench) fill(kind string, n int) error {
	if err := b.empty(); err != nil {
		return err
	}
	tar, err := exec.Command("tar", "-C", b.path("rootfs"), "-c", ".").Output()
	if err != nil {
		return err
	}
	imp := b.command("podman", "import", "-", image)
	imp.Stdin = bytes.NewReader(tar)
	if out, err := imp.CombinedOutput(); err != nil {
		return fmt.Errorf("podman import: %w\n%s", err, out)
	}
	for range n {
		switch kind {
		case "buildah":
			err = b.must("buildah", "from", "--pull-never", image)
		case "podman":
			err = b.must("podman", "create", image, "sh")
		case "unknown":
			cs := exec.Command("containers-storage", "--graph", b.path("store", "root"), "--run", b.path("store", "run"),
				"--storage-driver", b.driver, "create-container", image)
			if out, e := cs.CombinedOutput(); e != nil {
				err = fmt.Errorf("containers-storage create-container: %w\n%s", e, out)
			}
		default:
			err = fmt.Errorf("unknown kind %q", kind)
		}
		if err != nil {
			return err
		}
	}
	// The driver's home is a mount of its own, made by the library; the copy is of files alone.
	return exec.Command("cp", "-a", b.path("store"), b.path("original")).Run()
}

func (b *bench) empty() error {
	b.unmount()
	for _, d := range []string{"store", "original"} {
		if err := os.RemoveAll(b.path(d)); err != nil {
			return err
		}
	}
	return os.MkdirAll(b.path("store", "tmp"), 0o755)
}

// restore puts the filled store back, on disk, so that no write of the copy is paid for later.
func (b *bench) restore() error {
	b.unmount()
	if err := os.RemoveAll(b.path("store")); err != nil {
		return err
	}
	if err := exec.Command("cp", "-a", b.path("original"), b.path("store")).Run(); err != nil {
		return err
	}
	return exec.Command("sync").Run()
}

// unmount takes away the bind mount that the driver makes of its home.
func (b *bench) unmount() {
	home := b.path("store", "root", b.driver)
	for exec.Command("mountpoint", "-q", home).Run() == nil {
		if exec.Command("umount", home).Run() != nil {
			return
		}
	}
}

// contest is one way to do the job: commands run one after the other.
type contest struct {
	name  string
	steps [][]string
}

func (b *bench) measure(kind string, n, rounds int) error {
	if err := b.fill(kind, n); err != nil {
		return err
	}
	contests := []contest{
		{"unmoor rmi -f", [][]string{{"unmoor", "rmi", "-f", image}}},
		{"podman rmi -f", [][]string{{"podman", "rmi", "-f", image}}},
	}
	switch kind {
	case "buildah":
		contests = append(contests, contest{"buildah rm --all; rmi", [][]string{{"buildah", "rm", "--all"}, {"buildah", "rmi", image}}})
		if n == 0 {
			contests[2].steps = contests[2].steps[1:]
		}
	case "podman":
		contests = append(contests, contest{"podman rm --all; rmi", [][]string{{"podman", "rm", "--all"}, {"podman", "rmi", image}}})
	}
	times := make([][]time.Duration, len(contests))
	for range rounds {
		for i, c := range contests { // side by side, so that a slow moment hits all
			d, err := b.once(c)
			if err != nil {
				return err
			}
			times[i] = append(times[i], d)
		}
	}
	base := median(times[1])
	for i, c := range contests {
		calls, err := b.count(c)
		if err != nil {
			return err
		}
		m := median(times[i])
		fmt.Printf("%-8s %5d  %-28s %7dms %8.2fx %8d %8d %8d\n", kind, n, c.name, m.Milliseconds(),
			float64(m)/float64(base), calls["fsync"]+calls["fdatasync"], calls["fcntl"], calls["renameat"]+calls["rename"]+calls["renameat2"])
	}
	return nil
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

// once times one contest, and makes sure that the image is gone.
func (b *bench) once(c contest) (time.Duration, error) {
	if err := b.restore(); err != nil {
		return 0, err
	}
	var total time.Duration
	for _, s := range c.steps {
		cmd := b.command(s[0], s[1:]...)
		start := time.Now()
		out, err := cmd.CombinedOutput()
		total += time.Since(start)
		if err != nil {
			return 0, fmt.Errorf("%s: %w\n%s", c.name, err, out)
		}
	}
	left, err := b.command("podman", "images", "-q").Output()
	if err != nil {
		return 0, err
	}
	if len(bytes.TrimSpace(left)) > 0 {
		return 0, fmt.Errorf("%s left the image", c.name)
	}
	return total, nil
}

// count runs a contest once more under strace, and adds up the calls that cost.
func (b *bench) count(c contest) (map[string]int, error) {
	if err := b.restore(); err != nil {
		return nil, err
	}
	calls := make(map[string]int)
	for _, s := range c.steps {
		cmd := b.command(s[0], s[1:]...)
		report := b.path("strace")
		traced := exec.Command("strace", append([]string{"-f", "-c", "-o", report,
			"-e", "trace=fsync,fdatasync,fcntl,rename,renameat,renameat2"}, cmd.Args...)...)
		if out, err := traced.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("strace %s: %w\n%s", c.name, err, out)
		}
		text, err := os.ReadFile(report)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 5 {
				continue
			}
			if n, err := strconv.Atoi(f[3]); err == nil {
				calls[f[len(f)-1]] += n
			}
		}
	}
	return calls, nil
}
