package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/config"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/wire"
)

// fake is a store, its owners and a kernel in memory, whose containers can be stopped and removed.
type fake struct {
	mu           sync.Mutex
	snapshot     core.Snapshot
	holdings     map[core.ContainerID]core.Holding
	observations map[core.LayerID]core.Observation
	// pins are the images that an engine pins, or may pin.
	pins      map[core.ImageID]core.Pin
	completed []core.Interrupted
	// stopping, where set, is called by a stop.
	stopping func()
	// stopErr is the owners' answer to a stop; deleteErr the store's to a deletion.
	stopErr, deleteErr error
	openErr            error
	// litter, mounted and inventories are what a doctor finds.
	litter      core.Litter
	mounted     []core.LayerID
	inventories []core.Inventory
	// building, where set, is the engine that builds images.
	building func(ctx context.Context, r core.BuildRequest, output func(string)) error
	// changes counts what was done to the store.
	changes int
	// imported is the last request, loadErr what a load comes to.
	imported core.ImportRequest
	loadErr  error
	// server is the daemon's that serves it.
	server *wire.Server
}

var epoch = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func newFake() *fake {
	return &fake{
		holdings:     make(map[core.ContainerID]core.Holding),
		observations: make(map[core.LayerID]core.Observation),
	}
}

// id makes a full ID that begins with the digits.
func id(digits string) string { return digits + strings.Repeat("0", 64-len(digits)) }

func (f *fake) image(digits string, names ...string) core.ImageID {
	f.snapshot.Images = append(f.snapshot.Images, core.Image{
		ID: core.ImageID(id(digits)), Names: names, Created: epoch, Digests: []string{"sha256:" + id("d1"+digits)},
		Layer: core.Layer{ID: core.LayerID(id("1a" + digits)), Driver: "overlay"}, Size: 4_500_000, UniqueSize: 4_400_000, LabelsKnown: true,
		LayerSizes: map[core.LayerID]int64{core.LayerID(id("1a" + digits)): 4_400_000},
	})
	return core.ImageID(id(digits))
}

// container adds one that nobody owns and nobody uses.
func (f *fake) container(digits, name string, image core.ImageID) core.ContainerID {
	c := core.Container{ID: core.ContainerID(id(digits)), Names: []string{name}, ImageID: image, Created: epoch,
		LayerID: core.LayerID(id("1b" + digits))}
	c.Layer = core.Layer{ID: c.LayerID, Driver: "overlay", Directory: "/store/overlay/" + digits}
	f.snapshot.Containers = append(f.snapshot.Containers, c)
	f.holdings[c.ID] = core.Holding{Kind: core.Unowned}
	f.observations[c.LayerID] = core.Observation{Use: core.UseIdle}
	return c.ID
}

func (f *fake) owned(digits, name string, image core.ImageID, owner string, state core.State, pids ...int) core.ContainerID {
	id := f.container(digits, name, image)
	claim := core.Claim{Container: id, Ownership: core.OwnershipMine, State: state, Use: core.UseIdle, DisplayName: name}
	if state.Live() {
		claim.Use = core.UseInUse
	}
	for _, pid := range pids {
		claim.Evidence = append(claim.Evidence, core.Evidence{Source: owner, Kind: core.EvidenceProcess, Detail: "main process",
			Process: &core.Process{PID: pid, StartTime: 9, Command: "nginx -g daemon off;"}, Time: epoch})
	}
	f.holdings[id] = core.Holding{Kind: core.Owned, Owners: []string{owner}, Claim: claim}
	return id
}

func (f *fake) use(id core.ContainerID, pid int, command, how string) {
	c, _ := f.snapshot.Container(id)
	o := f.observations[c.LayerID]
	o.Use = core.UseInUse
	o.Evidence = append(o.Evidence, core.Evidence{Source: core.SourceKernel, Kind: core.EvidenceProcess, Detail: how,
		Process: &core.Process{PID: pid, StartTime: 7, Command: command, Unit: "backup.service"}, Time: epoch})
	f.observations[c.LayerID] = o
}

func (f *fake) group(id core.ContainerID, group string) {
	h := f.holdings[id]
	h.Claim.Group = group
	f.holdings[id] = h
}

func (f *fake) Info() core.StoreInfo {
	return core.StoreInfo{GraphRoot: "/store", GraphDriver: "overlay"}
}

func (f *fake) Snapshot(ctx context.Context) (*core.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &core.Snapshot{Store: f.Info(), Images: slices.Clone(f.snapshot.Images), Containers: slices.Clone(f.snapshot.Containers),
		Layers: slices.Clone(f.snapshot.Layers)}
	listed := make(map[core.LayerID]bool)
	for _, i := range s.Images {
		for id, bytes := range i.LayerSizes {
			if !listed[id] {
				listed[id] = true
				s.Layers = append(s.Layers, core.StoredLayer{ID: id, Bytes: bytes})
			}
		}
	}
	for _, c := range s.Containers {
		s.Layers = append(s.Layers, core.StoredLayer{ID: c.LayerID, Bytes: -1})
	}
	return s, nil
}

func (f *fake) ResolveImage(_ context.Context, s *core.Snapshot, reference string) (core.ImageID, string, error) {
	var candidates []string
	var found core.ImageID
	for _, i := range s.Images {
		for _, n := range i.Names {
			if n == reference || n == "localhost/"+reference || n == "localhost/"+reference+":latest" {
				return i.ID, n, nil
			}
		}
		if strings.HasPrefix(string(i.ID), reference) {
			candidates, found = append(candidates, i.ID.Short()), i.ID
		}
	}
	switch len(candidates) {
	case 0:
		return "", "", fmt.Errorf("look up %s: %w", reference, core.ErrImageUnknown)
	case 1:
		return found, "", nil
	}
	return "", "", &core.AmbiguousError{Reference: reference, Candidates: candidates}
}

func (f *fake) DeleteContainer(_ context.Context, deleted core.Container) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deleteErr != nil {
		return f.deleteErr
	}
	f.changes++
	f.snapshot.Containers = slices.DeleteFunc(f.snapshot.Containers, func(c core.Container) bool { return c.ID == deleted.ID })
	return nil
}

func (f *fake) RemoveNames(_ context.Context, id core.ImageID, names []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
	for n, i := range f.snapshot.Images {
		if i.ID == id {
			f.snapshot.Images[n].Names = slices.DeleteFunc(slices.Clone(i.Names), func(s string) bool { return slices.Contains(names, s) })
		}
	}
	return nil
}

func (f *fake) BeginDeletion(context.Context, []core.ImageID) (core.Deletion, error) {
	return fakeDeletion{f}, nil
}

type fakeDeletion struct{ *fake }

func (f fakeDeletion) End(context.Context) error { return nil }

func (f fakeDeletion) Delete(_ context.Context, image core.Image) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.deleteErr != nil {
		return f.deleteErr
	}
	f.changes++
	f.snapshot.Images = slices.DeleteFunc(f.snapshot.Images, func(i core.Image) bool { return i.ID == image.ID })
	return nil
}

func (f *fake) CompleteInterrupted(context.Context) ([]core.Interrupted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.completed), nil
}

func (f *fake) Conclude(_ context.Context, id core.ImageID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.completed = slices.DeleteFunc(f.completed, func(c core.Interrupted) bool { return c.Image.ID == id })
	return nil
}

func (f *fake) ContainerSize(context.Context, core.Container) (int64, error) { return 1_500_000, nil }

func (f *fake) Claim(_ context.Context, _ core.StoreInfo, containers []core.Container) map[core.ContainerID]core.Holding {
	all := make(map[core.ContainerID]core.Holding)
	for _, c := range containers {
		all[c.ID] = f.holdings[c.ID]
	}
	return all
}

func (f *fake) Pins(_ context.Context, _ core.StoreInfo, images []core.Image, _ []core.Container) map[core.ImageID]core.Pin {
	all := make(map[core.ImageID]core.Pin)
	for _, i := range images {
		pin, ok := f.pins[i.ID]
		if !ok {
			pin.Pinned = core.PinnedNo
		}
		all[i.ID] = pin
	}
	return all
}

func (f *fake) Stop(_ context.Context, _ string, _ core.StoreInfo, handles []core.Handle, _ time.Duration) []core.Outcome {
	if f.stopping != nil {
		f.stopping()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []core.Outcome
	for _, h := range handles {
		all = append(all, core.Outcome{Container: h.Container.ID, Err: f.stopErr})
		if f.stopErr == nil {
			f.changes++
			holding := f.holdings[h.Container.ID]
			holding.Claim.State, holding.Claim.Use = core.StateStopped, core.UseIdle
			f.holdings[h.Container.ID] = holding
		}
	}
	return all
}

func (f *fake) Remove(ctx context.Context, _ string, _ core.StoreInfo, handles []core.Handle) []core.Outcome {
	var all []core.Outcome
	for _, h := range handles {
		all = append(all, core.Outcome{Container: h.Container.ID, Err: f.DeleteContainer(ctx, h.Container), StorageRemoved: true})
	}
	return all
}

// Build makes the image 77aa, as an engine that does as building says.
func (f *fake) Build(ctx context.Context, _ core.StoreInfo, r core.BuildRequest, output func(string)) (core.ImageID, error) {
	if f.building == nil {
		return "", errors.New("no engine builds images here")
	}
	if err := f.building(ctx, r, output); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.image("77aa", r.Names...), nil
}

func (f *fake) Observe(_ context.Context, layers []core.Layer) (map[core.LayerID]core.Observation, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[core.LayerID]core.Observation)
	for _, l := range layers {
		o, ok := f.observations[l.ID]
		if !ok {
			o.Use = core.UseIdle
		}
		all[l.ID] = o
	}
	return all, nil
}

func (f *fake) Release(context.Context, ...core.Layer) ([]string, error) { return nil, nil }

func (f *fake) Terminate(_ context.Context, processes []core.Process, _ time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for layer, o := range f.observations {
		for _, p := range core.Processes(o.Evidence) {
			if slices.ContainsFunc(processes, func(q core.Process) bool { return p.PID == q.PID }) {
				f.observations[layer] = core.Observation{Use: core.UseIdle}
			}
		}
	}
	return nil
}

// call is what a command line came to.
type call struct {
	stdout, stderr string
	code           int
}

// call runs a command line on the fake, in this process.
func (f *fake) call(t *testing.T, args ...string) call {
	t.Helper()
	return caller{fake: f}.call(t, args...)
}

// caller runs command lines on a fake.
type caller struct {
	fake *fake
	// socket is the daemon's; empty is in this process.
	socket  string
	dialing client.Options
}

func (c caller) call(t *testing.T, args ...string) call {
	t.Helper()
	var stdout, stderr bytes.Buffer
	app := c.app(t, &stdout, &stderr)
	c.settle()
	code := app.run(t.Context(), args)
	c.settle()
	return call{stdout.String(), stderr.String(), code}
}

// settle has the daemon see what the test did to the fake, and the test what the daemon did: nothing else
// orders what they do for the race detector.
func (c caller) settle() {
	if c.fake != nil {
		c.fake.mu.Lock()
		defer c.fake.mu.Unlock()
	}
}

func (c caller) app(t *testing.T, stdout, stderr io.Writer) *app {
	t.Helper()
	for _, v := range append(storeVariables, "UNMOOR_URL") {
		t.Setenv(v, "")
	}
	t.Setenv("TZ", "UTC")
	return &app{out: newOutput(stdout), err: stderr, socket: c.socket, dialing: c.dialing,
		open: func(context.Context, config.Config) (*machine, error) {
			f := c.fake
			if c.socket != "" {
				t.Error("the store was opened beside the daemon")
			}
			if f.openErr != nil {
				return nil, f.openErr
			}
			engine := &core.Engine{Store: f, Owners: f, Kernel: f}
			return &machine{engine: engine, doctor: &core.Doctor{Engine: engine, Store: f, Owners: f, Kernel: f}, builder: f, loader: f, close: func() {}}, nil
		},
		plugins: func(context.Context, config.Config) ([]service.Plugin, error) { return somePlugins, nil },
	}
}

var errBoom = errors.New("the engine said\nno")
