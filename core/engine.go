package core

import (
	"context"
	"time"
)

// Store is what the engine needs of a containers/storage store. It holds no lock of the store
// between two calls. Errors wrap the sentinels of this package.
type Store interface {
	Info() StoreInfo
	// Snapshot reads images, containers and layers.
	Snapshot(ctx context.Context) (*Snapshot, error)
	// ResolveImage finds the image that a name, digest, ID or unique ID prefix means, as Podman
	// does. name is the image's own name that reference stands for, empty where reference is an ID
	// or a digest. Errors: ErrImageUnknown, *AmbiguousError.
	ResolveImage(ctx context.Context, snapshot *Snapshot, reference string) (id ImageID, name string, err error)
	// DeleteContainer deletes a container's record and layer. ErrContainerUnknown where there is
	// none. The caller has made sure that no mount remains at or below the layer directory.
	DeleteContainer(ctx context.Context, id ContainerID) error
	// RemoveNames takes names away from an image and leaves the others. Names that are gone are
	// ignored. Errors: ErrImageUnknown, ErrReadOnly.
	RemoveNames(ctx context.Context, id ImageID, names []string) error
	// DeleteImage deletes an image's record and the layers that nothing else uses, and completes
	// that where an earlier process died in it. ctx ends the wait for another process's deletion, and
	// not the deletion. next is the dangling parent that goes after it, or empty: until its deletion
	// begins, a process that dies leaves word of it. Errors: ErrImageUnknown, ErrImageInUse, ErrReadOnly.
	DeleteImage(ctx context.Context, id, next ImageID) error
	// CompleteInterrupted ends image deletions that a killed process left half-done. It returns the
	// images whose record was gone and whose layers are deleted now.
	CompleteInterrupted(ctx context.Context) ([]Interrupted, error)
	// ContainerSize is the bytes on disk in a container's writable layer.
	ContainerSize(ctx context.Context, c Container) (int64, error)
}

// Interrupted is an image whose deletion an earlier process died in, and that is deleted now.
type Interrupted struct {
	// Image is the image as it was, with the names that it had.
	Image Image
	// Next is the dangling parent that was to go after it and is still there, or empty.
	Next ImageID
}

// Owners asks the engines. It never fails as a whole: what an engine could not answer is in the
// holdings and pins.
type Owners interface {
	// Claim asks every engine about the containers, in one batch each. The answer has a holding for
	// every container.
	Claim(ctx context.Context, store StoreInfo, containers []Container) map[ContainerID]Holding
	// Pins asks every engine that can pin images about these, in one batch each. The answer has a pin
	// for every image. containers are all of the store: they show whether an engine that is not on
	// this machine was.
	Pins(ctx context.Context, store StoreInfo, images []Image, containers []Container) map[ImageID]Pin
	// Stop and Remove have the named owner stop or remove its containers. There is one outcome a
	// handle.
	Stop(ctx context.Context, owner string, store StoreInfo, handles []Handle, grace time.Duration) []Outcome
	Remove(ctx context.Context, owner string, store StoreInfo, handles []Handle) []Outcome
}

// Kernel looks at processes and mounts.
type Kernel interface {
	// Observe says who uses the layers, all of them in one scan. The answer has an observation for
	// every layer. An error means that nothing could be found out.
	Observe(ctx context.Context, layers []Layer) (map[LayerID]Observation, error)
	// Release plainly (never lazily) unmounts everything at or below the layer's directory, deepest
	// first, in every mount namespace where that can be done, and then proves that nothing uses the
	// layer any more. It returns the mount points that it unmounted. The error is a *BusyError where
	// something uses the layer or that cannot be ruled out; then the layer must be kept.
	Release(ctx context.Context, layer Layer) (unmounted []string, err error)
	// Terminate ends processes: SIGTERM, the grace period, SIGKILL, each through a pidfd that is
	// checked against the start time. It returns nil once all of them are gone.
	Terminate(ctx context.Context, processes []Process, grace time.Duration) error
}

// Engine gathers the facts for a plan and carries it out.
type Engine struct {
	Store  Store
	Owners Owners
	Kernel Kernel
	// Protection is what no removal touches.
	Protection Protection
	// Progress, where set, is told of every action. It may be called from several goroutines at
	// once and must not block.
	Progress func(Progress)
	// Step, where set, is called before each step of Execute with its name. Tests kill the process
	// there.
	Step func(name string)
}
