package podman_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/podman"
)

// pretending is a fake podman that knows every container, and does as told when it is to inspect one
// of those in bad.
func pretending(t *testing.T, bad []core.ContainerID, then, otherwise string) *podman.Plugin {
	t.Helper()
	var patterns []string
	for _, id := range bad {
		patterns = append(patterns, string(id))
	}
	script := `
case "$*" in *volume*) echo '[]'; exit 0;; *inspect*) ;; *) ` + otherwise + ` exit 0;; esac
sep=; out=; code=0
for id; do
	case $id in
	` + strings.Join(append(patterns, "nothing"), "|") + `) ` + then + `;;
	` + strings.Repeat("0", 64) + `) echo "Error: no such container $id" >&2; code=125;;
	????????????????????????????????????????????????????????????????)
		out="$out$sep{\"Id\":\"$id\",\"State\":{\"Status\":\"${STATE:-exited}\"}}"; sep=,;;
	esac
done
echo "[$out]"
exit $code`
	p, err := podman.New(podman.Options{Command: fakePodman(t, script)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// many are containers like Podman's.
func many(n int) (all []core.Container, ids []core.ContainerID) {
	for i := range n {
		c := podmans()
		c.ID = core.ContainerID(fmt.Sprintf("%064x", i+1))
		all, ids = append(all, c), append(ids, c.ID)
	}
	return all, ids
}

// TestBrokenContainers: what Podman fails at costs no other container its claim.
func TestBrokenContainers(t *testing.T) {
	const damaged = `echo 'Error: layer not known' >&2; exit 125`
	containers, ids := many(60)
	for _, test := range []struct {
		name, then string
		bad        []core.ContainerID
		// words in what is said of the bad ones
		says []string
		fail bool
	}{
		{"one is damaged", damaged, ids[17:18], []string{"layer not known", "podman rm -f " + ids[17].Short()}, false},
		{"some are damaged", damaged, []core.ContainerID{ids[0], ids[8], ids[9], ids[59]}, []string{"layer not known"}, false},
		{"one is locked", "sleep 1000", ids[41:42], []string{"locked"}, false},
		{"many are damaged", damaged, ids[20:40], nil, true},
		{"all are damaged", damaged, ids, nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), claimTime)
			defer cancel()
			claims, err := pretending(t, test.bad, test.then, "").Claim(ctx, core.StoreInfo{}, containers)
			if test.fail {
				if err == nil {
					t.Error("no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			bad := make(map[core.ContainerID]bool)
			for _, id := range test.bad {
				bad[id] = true
			}
			for _, c := range claims {
				want := core.OwnershipMine
				if bad[c.Container] {
					want = core.OwnershipUnknown
					for _, said := range test.says {
						if len(c.Evidence) == 0 || !strings.Contains(c.Evidence[0].Detail, said) {
							t.Errorf("%+v: without %q", c, said)
						}
					}
				}
				if c.Ownership != want {
					t.Errorf("%s is %s", c.Container.Short(), c.Ownership)
				}
			}
		})
	}
	t.Run("a batch of one", func(t *testing.T) {
		claims, err := pretending(t, ids[:1], damaged, "").Claim(t.Context(), core.StoreInfo{}, containers[:1])
		if err != nil || claims[0].Ownership != core.OwnershipUnknown {
			t.Errorf("%+v, %v", claims, err)
		}
	})
}

// claimTime is less than what the framework gives a claim.
const claimTime = 12 * time.Second

// TestLostStorage: a container whose storage is gone is in Podman's way, be it in the batch or beside
// it, and in nobody else's.
func TestLostStorage(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		good := s.create("--name", "good", "localhost/bb", "true")
		lost := s.create("--name", "lost", "localhost/bb", "true")
		containers := s.containers()
		s.lose(lost)
		claims, err := p.Claim(context.Background(), s.store, containers)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range claims {
			switch c.Container {
			case good:
				if c.Ownership != core.OwnershipMine {
					t.Errorf("a sound one: %+v", c)
				}
			case lost:
				if c.Ownership != core.OwnershipUnknown || !strings.Contains(c.Evidence[0].Detail, "podman rm -f "+lost.Short()) {
					t.Errorf("a lost one: %+v", c)
				}
			}
		}
		// Its directory alone is left.
		directory := filepath.Join(s.store.GraphRoot, s.store.GraphDriver+"-containers", string(lost))
		if err := os.MkdirAll(directory, 0o700); err != nil {
			t.Fatal(err)
		}
		s.succeeded(p.Remove(context.Background(), s.store, s.handles(p, good)), 1)
	})
}

// TestNotBrokenOff: the end of the waiting is not the end of what Podman does.
func TestNotBrokenOff(t *testing.T) {
	dir := t.TempDir()
	began, done := filepath.Join(dir, "began"), filepath.Join(dir, "done")
	containers, ids := many(1)
	t.Setenv("STATE", "running")
	script := "trap 'exit 1' TERM; touch " + began + "; while [ -e " + began + " ]; do sleep 0.05; done; echo it did; echo it did >&2; touch " + done + ";"
	p := pretending(t, nil, "", script)
	handles := []core.Handle{{Container: containers[0], Claim: core.Claim{Container: ids[0]}}}
	for verb, act := range map[string]func(context.Context) []core.Outcome{
		"stop":   func(ctx context.Context) []core.Outcome { return p.Stop(ctx, core.StoreInfo{}, handles, 0) },
		"remove": func(ctx context.Context) []core.Outcome { return p.Remove(ctx, core.StoreInfo{}, handles) },
	} {
		t.Run(verb, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan []core.Outcome)
			go func() { ended <- act(ctx) }()
			exists(t, began)
			cancel()
			o := (<-ended)[0]
			if !errors.Is(o.Err, context.Canceled) || !strings.Contains(o.Err.Error(), "goes on") {
				t.Errorf("%v", o.Err)
			}
			if err := os.Remove(began); err != nil {
				t.Fatal(err)
			}
			exists(t, done)
			if err := os.Remove(done); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// exists waits for a file.
func exists(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", path)
		}
	}
}

// TestAbsent: where there is no Podman, it is known nonetheless what its containers look like.
func TestAbsent(t *testing.T) {
	for name, options := range map[string]podman.Options{
		"no command":  {Command: []string{"no-podman-here"}},
		"no file":     {Command: []string{filepath.Join(t.TempDir(), "podman")}},
		"no socket":   {Address: "unix:" + filepath.Join(t.TempDir(), "podman.sock")},
		"not allowed": {Command: []string{t.TempDir()}},
	} {
		p, err := podman.New(options)
		if err != nil {
			t.Fatal(err)
		}
		d, err := p.Describe(t.Context())
		if err == nil || d.Name != podman.Name || len(d.Hints) == 0 || d.EngineVersion != "" {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if absent := errors.Is(err, core.ErrEngineAbsent); absent != (name != "not allowed") {
			t.Errorf("%s: absent is %t: %v", name, absent, err)
		}
	}
}
