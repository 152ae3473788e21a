package core

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// world is a double of store, owners and kernel together: a small machine whose containers can be
// started, stopped and deleted, so that Execute meets consequences and not recorded answers.
type world struct {
	mu         sync.Mutex
	images     []Image
	containers []Container
	// layers are such as belong to no image and no container.
	layers []StoredLayer
	// owners says whose a container is; running and procs what uses it.
	owner   map[ContainerID]string
	claims  map[ContainerID]Claim
	running map[ContainerID]bool
	procs   map[ContainerID][]Process
	// stubborn processes survive a stop through the owner.
	stubborn map[ContainerID][]Process
	// down owners answer nothing.
	down map[string]bool
	// pins are the images that are pinned, or of which that is not known; the others are not.
	pins map[ImageID]Pin
	// asked are the images that somebody was asked about.
	asked []ImageID
	// protection is the operator's.
	protection Protection
	// deaf owners say nothing of the outcome of a stop or a removal.
	deaf map[string]bool
	// blind is whether the kernel cannot tell of a container.
	blind map[ContainerID]bool
	// interrupted is what an earlier process died in.
	interrupted []Interrupted
	// lost are what was in use when it went.
	lost []string
	// at is run before the named step.
	at  map[string]func()
	log []string
}

func newWorld() *world {
	return &world{
		owner: map[ContainerID]string{}, claims: map[ContainerID]Claim{}, running: map[ContainerID]bool{},
		procs: map[ContainerID][]Process{}, stubborn: map[ContainerID][]Process{}, down: map[string]bool{},
		deaf: map[string]bool{}, blind: map[ContainerID]bool{},
		at: map[string]func(){}, pins: map[ImageID]Pin{},
	}
}

func (w *world) engine() *Engine {
	return &Engine{Store: w, Owners: w, Kernel: w, Protection: w.protection, Step: func(name string) {
		w.mu.Lock()
		f := w.at[name]
		delete(w.at, name)
		w.mu.Unlock()
		if f != nil {
			f()
		}
	}}
}

func (w *world) image(id string, names ...string) ImageID {
	i := Image{ID: ImageID(id), Names: names, Layer: Layer{ID: LayerID("layer-" + id), Driver: "overlay"}, UniqueSize: 100, LabelsKnown: true}
	i.LayerSizes = map[LayerID]int64{i.Layer.ID: 100}
	w.images = append(w.images, i)
	return i.ID
}

func (w *world) child(id string, parent ImageID, names ...string) ImageID {
	w.image(id, names...)
	i := &w.images[len(w.images)-1]
	i.Parent = parent
	for _, p := range w.images {
		if p.ID == parent {
			maps.Copy(i.LayerSizes, p.LayerSizes)
		}
	}
	return ImageID(id)
}

// container adds one; owner "" is nobody's.
func (w *world) container(id string, image ImageID, owner string) ContainerID {
	c := Container{ID: ContainerID(id), ImageID: image, LayerID: LayerID("layer-" + id),
		Layer: Layer{ID: LayerID("layer-" + id), Driver: "overlay"}}
	w.containers = append(w.containers, c)
	w.owner[c.ID] = owner
	return c.ID
}

func (w *world) start(id ContainerID, pid int) {
	w.running[id] = true
	w.procs[id] = []Process{{PID: pid, StartTime: 1, Command: "app"}}
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) has(id ContainerID) bool {
	return slices.ContainsFunc(w.containers, func(c Container) bool { return c.ID == id })
}

func (w *world) hasImage(id ImageID) bool {
	return slices.ContainsFunc(w.images, func(i Image) bool { return i.ID == id })
}

func (w *world) Info() StoreInfo { return StoreInfo{GraphDriver: "overlay"} }

func (w *world) Snapshot(context.Context) (*Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := &Snapshot{Images: slices.Clone(w.images), Containers: slices.Clone(w.containers), Layers: slices.Clone(w.layers)}
	listed := make(map[LayerID]bool)
	for _, i := range s.Images {
		for _, id := range slices.Sorted(maps.Keys(i.LayerSizes)) {
			if !listed[id] {
				listed[id] = true
				s.Layers = append(s.Layers, StoredLayer{ID: id, Bytes: i.LayerSizes[id]})
			}
		}
	}
	for _, c := range s.Containers {
		s.Layers = append(s.Layers, StoredLayer{ID: c.LayerID, Bytes: -1})
	}
	return s, nil
}

func (w *world) ResolveImage(_ context.Context, s *Snapshot, reference string) (ImageID, string, error) {
	return "", "", ErrImageUnknown
}

func (w *world) DeleteContainer(_ context.Context, c Container) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, ok := (&Snapshot{Containers: w.containers}).Container(c.ID)
	switch {
	case !ok:
		return ErrContainerUnknown
	case now.Layer.MountCount > c.Layer.MountCount:
		return ErrStillInUse
	}
	w.note("delete %s", c.ID)
	w.drop(c.ID)
	return nil
}

// drop takes a container away, and notes it where it was in use.
func (w *world) drop(id ContainerID) {
	if w.running[id] || len(w.procs[id]) > 0 || w.blind[id] {
		w.lost = append(w.lost, "container "+string(id))
	}
	w.containers = slices.DeleteFunc(slices.Clone(w.containers), func(c Container) bool { return c.ID == id })
}

func (w *world) RemoveNames(_ context.Context, id ImageID, names []string) error {
	for i := range w.images {
		if w.images[i].ID == id {
			w.note("untag %s %s", id, strings.Join(names, " "))
			w.images[i].Names = slices.DeleteFunc(slices.Clone(w.images[i].Names), func(n string) bool { return slices.Contains(names, n) })
		}
	}
	return nil
}

func (w *world) BeginDeletion(_ context.Context, chain []ImageID) (Deletion, error) {
	return worldDeletion{w}, nil
}

type worldDeletion struct{ *world }

func (w worldDeletion) Delete(_ context.Context, image Image) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, ok := (&Snapshot{Images: w.images}).Image(image.ID)
	switch {
	case !ok:
		return ErrImageUnknown
	case slices.ContainsFunc(w.containers, func(c Container) bool { return c.ImageID == image.ID }):
		return ErrImageInUse
	case !slices.Equal(now.Names, image.Names):
		return ErrPlanStale
	case now.Layer.MountCount > image.Layer.MountCount:
		return ErrStillInUse
	}
	w.note("delete image %s", image.ID)
	for _, l := range image.layers() {
		if w.observation(l).Use != UseIdle {
			w.lost = append(w.lost, "image "+string(image.ID))
		}
	}
	for _, c := range w.containers {
		if slices.Contains(w.claims[c.ID].ImageVolumes, image.ID) {
			w.lost = append(w.lost, "the image volume of "+string(c.ID))
		}
	}
	w.images = slices.DeleteFunc(slices.Clone(w.images), func(i Image) bool { return i.ID == image.ID })
	return nil
}

func (w worldDeletion) End(context.Context) error { return nil }

func (w *world) CompleteInterrupted(context.Context) ([]Interrupted, error) {
	return w.interrupted, nil
}

func (w *world) Conclude(_ context.Context, id ImageID) error {
	w.interrupted = slices.DeleteFunc(w.interrupted, func(i Interrupted) bool { return i.Image.ID == id })
	return nil
}

// ContainerSize never ends for a container named large.
func (w *world) ContainerSize(ctx context.Context, c Container) (int64, error) {
	if c.ID == "large" {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return 7, nil
}

func (w *world) Claim(_ context.Context, _ StoreInfo, containers []Container) map[ContainerID]Holding {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[ContainerID]Holding)
	for _, c := range containers {
		owner := w.owner[c.ID]
		switch {
		case owner == "":
			all[c.ID] = Holding{Kind: Unowned}
		case w.down[owner]:
			all[c.ID] = Holding{Kind: Undetermined, Owners: []string{owner}, Reason: owner + " does not answer"}
		default:
			claim := w.claims[c.ID]
			claim.Container, claim.Ownership = c.ID, OwnershipMine
			claim.State, claim.Use = StateStopped, UseIdle
			if w.running[c.ID] {
				claim.State, claim.Use = StateRunning, UseInUse
			}
			all[c.ID] = Holding{Kind: Owned, Owners: []string{owner}, Claim: claim}
		}
	}
	return all
}

func (w *world) Pins(_ context.Context, _ StoreInfo, images []Image, _ []Container) map[ImageID]Pin {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[ImageID]Pin)
	for _, i := range images {
		w.asked = append(w.asked, i.ID)
		pin, ok := w.pins[i.ID]
		if !ok {
			pin.Pinned = PinnedNo
		}
		all[i.ID] = pin
	}
	return all
}

func (w *world) Stop(_ context.Context, owner string, _ StoreInfo, handles []Handle, _ time.Duration) []Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Outcome
	for _, h := range handles {
		w.note("stop %s by %s", h.Container.ID, owner)
		w.running[h.Container.ID] = false
		w.procs[h.Container.ID] = w.stubborn[h.Container.ID]
		if w.deaf[owner] {
			continue
		}
		out = append(out, Outcome{Container: h.Container.ID})
	}
	return out
}

func (w *world) Remove(ctx context.Context, owner string, _ StoreInfo, handles []Handle) []Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.at["within the removal"]; f != nil {
		f()
	}
	var out []Outcome
	for _, h := range handles {
		id := h.Container.ID
		o := Outcome{Container: id}
		switch {
		case ctx.Err() != nil:
			o.Err = ctx.Err()
		case w.running[id]:
			o.Err = fmt.Errorf("%s is running: %w", id, ErrStillInUse)
		case owner == "records": // an engine whose own removal leaves the storage to us
		default:
			w.note("remove %s by %s", id, owner)
			w.drop(id)
			o.StorageRemoved = true
		}
		out = append(out, o)
	}
	return out
}

func (w *world) Observe(_ context.Context, layers []Layer) (map[LayerID]Observation, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[LayerID]Observation)
	for _, l := range layers {
		all[l.ID] = w.observation(l)
	}
	return all, nil
}

func (w *world) observation(l Layer) Observation {
	o := Observation{Use: UseIdle}
	id := ContainerID(strings.TrimPrefix(string(l.ID), "layer-"))
	if w.blind[id] {
		return Observation{}
	}
	for _, p := range w.procs[id] {
		o.Use = UseInUse
		o.Evidence = append(o.Evidence, Evidence{Source: SourceKernel, Kind: EvidenceProcess, Process: &p})
	}
	return o
}

func (w *world) Release(_ context.Context, layers ...Layer) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range layers {
		if o := w.observation(l); o.Use != UseIdle {
			return nil, &BusyError{Observation: o, Reason: "busy"}
		}
	}
	return nil, nil
}

func (w *world) Terminate(_ context.Context, processes []Process, _ time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range processes {
		if p.PID == 1 {
			return errors.New("pid 1 is never ended")
		}
		w.note("kill %d", p.PID)
		for id, all := range w.procs {
			w.procs[id] = slices.DeleteFunc(slices.Clone(all), func(q Process) bool { return q.PID == p.PID })
		}
	}
	return nil
}
