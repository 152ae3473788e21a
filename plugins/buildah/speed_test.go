package buildah

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

// BenchmarkClaim500 claims 500 idle working containers, with all the processes of the machine.
func BenchmarkClaim500(b *testing.B) {
	dir := b.TempDir()
	model := string(testdata(b, "buildah-1.39.3.json"))
	r, err := parseRecord([]byte(model))
	if err != nil {
		b.Fatal(err)
	}
	var all []core.Container
	for i := range 500 {
		id := fmt.Sprintf("%064x", i)
		home := filepath.Join(dir, id)
		if err := os.Mkdir(home, 0o700); err != nil {
			b.Fatal(err)
		}
		record := strings.ReplaceAll(model, r.ContainerID, id)
		if err := os.WriteFile(filepath.Join(home, stateFile), []byte(record), 0o600); err != nil {
			b.Fatal(err)
		}
		all = append(all, core.Container{ID: core.ContainerID(id), LayerID: core.LayerID(id), Names: []string{"c" + id[60:]},
			Created: time.Now(), Volatile: true, Directory: home})
	}
	p := New(Options{})
	for b.Loop() {
		if _, err := p.Claim(b.Context(), core.StoreInfo{GraphRoot: dir}, all); err != nil {
			b.Fatal(err)
		}
	}
	running, _ := pids()
	b.ReportMetric(float64(len(running)), "processes")
}

// BenchmarkLook is the look at the processes alone, without a builder and with one.
func BenchmarkLook(b *testing.B) {
	store := core.StoreInfo{GraphRoot: b.TempDir()}
	sleep := exec.Command("sleep", "100")
	if err := sleep.Start(); err != nil {
		b.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	for name, p := range map[string]*Plugin{
		"idle":    New(Options{RuntimeDirs: []string{b.TempDir()}}),
		"builder": New(Options{RuntimeDirs: []string{state(b, sleep.Process.Pid)}}),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := p.look(store, nil); err != nil {
					b.Fatal(err)
				}
			}
			running, _ := pids()
			b.ReportMetric(float64(len(running)), "processes")
		})
	}
}

// state makes a runtime's directory with one container in it.
func state(b *testing.B, pid int) string {
	dir := b.TempDir()
	home := filepath.Join(dir, runtimePrefix+"1")
	if err := os.Mkdir(home, 0o700); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "status"), fmt.Appendf(nil, `{"pid":%d}`, pid), 0o600); err != nil {
		b.Fatal(err)
	}
	return dir
}
