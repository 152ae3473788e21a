package podman_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/podman"
)

// TestList: a container whose storage was deleted while it runs is in the list with its process, and
// the list's claim is enough to end it and to have Podman forget it.
func TestList(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scene, p *podman.Plugin) {
		s.podman("volume", "create", "--driver", "image", "--opt", "image=localhost/bb", "data")
		mounter := s.create("--name", "mounter", "-v", "data:/data", "localhost/bb", "true")
		lost := s.run(append([]string{"--name", "lost"}, deaf...)...)
		dead := s.create("--name", "dead", "localhost/bb", "true")
		stored := s.containers()
		s.lose(lost)
		s.lose(dead)

		list := func() map[core.ContainerID]core.Claim {
			t.Helper()
			claims, err := p.List(context.Background(), s.store)
			if err != nil {
				t.Fatal(err)
			}
			byID := make(map[core.ContainerID]core.Claim)
			for _, c := range claims {
				if c.Ownership != core.OwnershipMine {
					t.Errorf("%+v", c)
				}
				byID[c.Container] = c
			}
			return byID
		}
		claims := list()
		if len(claims) != len(stored) {
			t.Errorf("%d of %d containers, the volume's among them", len(claims), len(stored))
		}
		for _, c := range stored {
			if _, there := claims[c.ID]; !there {
				t.Errorf("%s %v is missing", c.ID.Short(), c.Names)
			}
		}
		c := claims[lost]
		processes := core.Processes(c.Evidence)
		if c.State != core.StateRunning || c.Use != core.UseInUse || c.DisplayName != "lost" || len(processes) != 1 || processes[0].PID <= 0 {
			t.Fatalf("%+v", c)
		}
		if c := claims[dead]; c.State != core.StateCreated || c.Use != core.UseIdle {
			t.Errorf("%+v", c)
		}

		handles := []core.Handle{{Container: core.Container{ID: lost}, Claim: c}, {Container: core.Container{ID: dead}, Claim: claims[dead]}}
		for _, o := range p.Remove(context.Background(), s.store, handles[:1]) {
			if o.Err == nil {
				t.Error("removed while it runs")
			}
		}
		s.succeeded(p.Stop(context.Background(), s.store, handles, time.Second), 2)
		if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(processes[0].PID))); err == nil {
			t.Error("its process lives on")
		}
		s.succeeded(p.Remove(context.Background(), s.store, handles), 2)
		claims = list()
		if len(claims) != 2 || claims[mounter].DisplayName != "mounter" {
			t.Errorf("left are %v", claims)
		}
		// Again, as after a crash.
		s.succeeded(p.Stop(context.Background(), s.store, handles, 0), 2)
		s.succeeded(p.Remove(context.Background(), s.store, handles), 2)
	})
}

// TestListWithoutDatabase: Podman is not run on a store that it never saw.
func TestListWithoutDatabase(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	p, err := podman.New(podman.Options{Command: fakePodman(t, "touch "+ran)})
	if err != nil {
		t.Fatal(err)
	}
	if claims, err := p.List(t.Context(), core.StoreInfo{GraphRoot: t.TempDir()}); err != nil || len(claims) > 0 {
		t.Errorf("%v, %v", claims, err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("podman was run")
	}
	// Where it cannot be told whether there is one, that is an error.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if claims, err := p.List(t.Context(), core.StoreInfo{GraphRoot: file}); err == nil {
		t.Errorf("%v", claims)
	}
}
