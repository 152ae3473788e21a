package podman

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os/exec"
	"time"

	"github.com/unmoor/unmoor/core"
)

// engine is a way to talk to Podman. Where a call takes several IDs, an error concerns the whole
// call, and a map what became of each.
type engine interface {
	version(ctx context.Context) (string, error)
	// serves makes sure that Podman's store is the one in question.
	serves(ctx context.Context, store core.StoreInfo) error
	// inspect has an error where Podman could not answer, be it for the sake of a single container.
	inspect(ctx context.Context, store core.StoreInfo, ids []core.ContainerID) (inspection, error)
	// imageID finds the image that a name means. errNoImage where there is none.
	imageID(ctx context.Context, store core.StoreInfo, name string) (core.ImageID, error)
	// imageVolumes lists the volumes of the image driver.
	imageVolumes(ctx context.Context, store core.StoreInfo) ([]volume, error)
	pods(ctx context.Context, store core.StoreInfo) ([]pod, error)
	// list lists all containers, those without storage too.
	list(ctx context.Context, store core.StoreInfo) ([]listed, error)
	// unpause goes as far as it can; stop then says what is wrong.
	unpause(ctx context.Context, store core.StoreInfo, ids []core.ContainerID)
	// What changes something, from here on, is not broken off: the end of ctx ends the waiting for it.
	// stop and remove have an error for every container that may not be stopped or gone. removed
	// are the containers that this very call took away.
	stop(ctx context.Context, store core.StoreInfo, records []record, grace time.Duration) (failed map[core.ContainerID]error)
	remove(ctx context.Context, store core.StoreInfo, ids []core.ContainerID) (removed map[core.ContainerID]bool, failed map[core.ContainerID]error)
	// removePod and removeVolume count what is not there as removed.
	removePod(ctx context.Context, store core.StoreInfo, id string) error
	removeVolume(ctx context.Context, store core.StoreInfo, name string) error
}

// errNoImage: no image has that name.
var errNoImage = errors.New("no such image")

// seconds is a grace period as Podman counts it, rounded up.
func seconds(grace time.Duration) int {
	return int(math.Ceil(max(grace, 0).Seconds()))
}

// absentError says that there is no Podman here; it is core.ErrEngineAbsent without adding words.
type absentError struct{ cause error }

func (e absentError) Error() string   { return e.cause.Error() }
func (e absentError) Unwrap() []error { return []error{e.cause, core.ErrEngineAbsent} }

// absentOr makes an absentError of one that comes from a command or a socket that is not there.
func absentOr(err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return absentError{err}
	}
	return err
}
