package kernel

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// crowd starts cheap processes, in mount namespaces of their own some of them, and waits for them.
func crowd(t testing.TB, processes, namespaces int) {
	t.Helper()
	needsRoot(t)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		skip(t, "busybox is not installed")
	}
	group := exec.Command(busybox, "sh", "-c", fmt.Sprintf(
		`i=0; while [ $i -lt %d ]; do %s unshare -m %s sleep 1000 & i=$((i+1)); done
		i=0; while [ $i -lt %d ]; do %s sleep 1000 & i=$((i+1)); done; echo; wait`,
		namespaces, busybox, busybox, processes-namespaces, busybox))
	group.Dir = "/"
	group.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := group.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := group.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-group.Process.Pid, unix.SIGKILL)
		_ = group.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	i := inspector(t)
	for end := time.Now().Add(3 * time.Minute); ; {
		procs, _, err := i.scanProcesses(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen := make(map[uint64]bool)
		ready := 0
		for _, p := range procs {
			seen[p.ns] = true
			ready++
		}
		if ready >= processes && len(seen) > namespaces {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d processes in %d namespaces in time", ready, len(seen))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// idleLayers makes overlay layers that are mounted nowhere.
func idleLayers(t testing.TB, n int) []core.Layer {
	t.Helper()
	dir := t.TempDir()
	layers := make([]core.Layer, n)
	for k := range layers {
		at := filepath.Join(dir, "overlay", fmt.Sprintf("%064x", k+1))
		layers[k] = core.Layer{ID: core.LayerID(filepath.Base(at)), Directory: at, Driver: "overlay",
			MountPoint: filepath.Join(at, "merged"), UpperDir: filepath.Join(at, "diff")}
		if err := os.MkdirAll(layers[k].UpperDir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return layers
}

// Every mount namespace is read once, whatever the number of processes and layers, and dear scans
// are only made where they are needed.
func TestReadsEachNamespaceOnce(t *testing.T) {
	crowd(t, 200, 10)
	for _, old := range []bool{false, true} {
		i := inspector(t)
		i.noListmount = old
		s, err := i.look(t.Context(), idleLayers(t, 20), toObserve)
		if err != nil {
			t.Fatal(err)
		}
		// A namespace may be made or end while we read: others use this machine.
		if s.tables.reads < 11 || s.tables.reads > len(s.tables.list)+2 {
			t.Errorf("%d reads of %d namespaces", s.tables.reads, len(s.tables.list))
		}
		if s.dear {
			t.Error("a dear scan that nobody needs")
		}
		for _, target := range s.targets {
			if o := s.observation(target); o.Use != core.UseIdle {
				t.Error(dump(o))
			}
		}
	}
}

func TestManyLayers(t *testing.T) {
	i := inspector(t)
	layers := idleLayers(t, 300)
	all, err := i.Observe(t.Context(), layers)
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		if o := all[layer.ID]; o.Use != core.UseIdle {
			t.Fatal(dump(o))
		}
	}
	// One of them is held, by a mount that is in no namespace: the dear scan finds it.
	for _, mode := range []string{"detached", "fd"} {
		s := newStore(t, "overlay")
		h := start(t, nil, mode, s.layer.MountPoint)
		s.do(unix.Unmount(s.layer.MountPoint, unix.MNT_DETACH))
		all, err := i.Observe(t.Context(), append(layers, s.layer))
		s.do(err)
		if o := all[s.layer.ID]; o.Use == core.UseIdle || !strings.Contains(dump(o), strconv.Itoa(h.Process.Pid)) {
			t.Errorf("%s: %s", mode, dump(o))
		}
		for _, layer := range layers {
			if o := all[layer.ID]; o.Use != core.UseIdle {
				t.Fatalf("%s: %s", mode, dump(o))
			}
		}
	}
}

func BenchmarkScan5000(b *testing.B) {
	crowd(b, 5000, 50)
	layers := idleLayers(b, 1)
	for name, old := range map[string]bool{"listmount": false, "mountinfo": true} {
		i := inspector(b)
		i.noListmount = old
		b.Run("whole/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := i.Observe(b.Context(), layers); err != nil {
					b.Fatal(err)
				}
			}
		})
		procs, _, err := i.scanProcesses(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		b.Run("tables/"+name, func(b *testing.B) {
			for b.Loop() {
				if _, err := i.readTables(procs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	i := inspector(b)
	b.Run("processes", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := i.scanProcesses(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("deep", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			s, err := i.look(b.Context(), layers, toObserve)
			if err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			if err := s.deep(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("vfs", func(b *testing.B) {
		dir := b.TempDir()
		layer := core.Layer{ID: "x", Driver: "vfs", Directory: dir, MountPoint: dir}
		for b.Loop() {
			if _, err := i.Observe(b.Context(), []core.Layer{layer}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRelease(b *testing.B) {
	needsRoot(b)
	i := inspector(b)
	layers := idleLayers(b, 1)
	for b.Loop() {
		if _, err := i.Release(b.Context(), layers[0]); err != nil {
			b.Fatal(err)
		}
	}
}
