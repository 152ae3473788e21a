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
	// DeleteContainer deletes a container's record and layer. c is the container as it was last looked
	// at; the caller has made sure since that no mount remains at or below the layer directory. Errors:
	// ErrContainerUnknown, ErrStillInUse where it is mounted more often than c says.
	DeleteContainer(ctx context.Context, c Container) error
	// RemoveNames takes names away from an image and leaves the others. Names that are gone are
	// ignored. Errors: ErrImageUnknown, ErrReadOnly.
	RemoveNames(ctx context.Context, id ImageID, names []string) error
	// BeginDeletion announces the deletion of an image and of the dangling parents that go after it, in
	// this order, so that a process that dies leaves word of all of them. It waits until no other process
	// deletes images, which ctx ends, and completes what one died in that concerns these. Those that are
	// gone are left out. No engine's stop or removal is to be waited for before its end.
	BeginDeletion(ctx context.Context, chain []ImageID) (Deletion, error)
	// CompleteInterrupted ends image deletions that a killed process left half-done. Each is returned again
	// until Conclude is called for its first image, so that the same request is answered in the same way.
	CompleteInterrupted(ctx context.Context) ([]Interrupted, error)
	Conclude(ctx context.Context, first ImageID) error
	// ContainerSize is the bytes on disk in a container's writable layer.
	ContainerSize(ctx context.Context, c Container) (int64, error)
}

// Deletion is the announced deletion of a chain of images. It ends with End or with the process.
type Deletion interface {
	// Delete deletes the record of one of the images and the layers that nothing else uses. image is the
	// image as it was last looked at; the caller has made sure since that nothing uses its own layers and
	// that no mount remains there. Errors: ErrImageUnknown, ErrImageInUse, ErrReadOnly, and, where it is
	// not as it was looked at, ErrPlanStale and ErrStillInUse. Once begun it is not broken off.
	Delete(ctx context.Context, image Image) error
	// End drops the announcement. Where ctx has ended, what is left of the chain is kept announced.
	End(ctx context.Context) error
}

// Interrupted is a deletion that an earlier process died in, and that is completed now.
type Interrupted struct {
	// Image is the first of the chain as it was, with the names that it had.
	Image Image
	// Deleted are the images whose records were gone and whose layers are deleted now, as they were. It is
	// empty where that was done before.
	Deleted []Image
	// Rest are the dangling parents that were to go after them, that are still there and dangle.
	Rest []ImageID
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
	// Release plainly (never lazily) unmounts everything at or below the directories of the layers,
	// deepest first, in every mount namespace where that can be done, and then proves that nothing uses
	// them any more. It returns the mount points that it unmounted. The error is a *BusyError where
	// something uses one of the layers or that cannot be ruled out; then all of them must be kept.
	Release(ctx context.Context, layers ...Layer) (unmounted []string, err error)
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
