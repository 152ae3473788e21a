package crio

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// shmPath is where CRI-O mounts the shared memory of a pod with an IPC namespace of its own.
func shmPath(c core.Container) string { return filepath.Join(c.RunDirectory, "shm") }

// shmMounted is whether something is mounted there.
func shmMounted(c core.Container) (bool, error) {
	if c.RunDirectory == "" {
		return false, errors.New("the store names no run directory of it")
	}
	var above, there unix.Stat_t
	err := unix.Lstat(shmPath(c), &there)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err == nil {
		err = unix.Lstat(c.RunDirectory, &above)
	}
	if err != nil {
		return false, fmt.Errorf("look for a mount at %s: %w", shmPath(c), err)
	}
	// Another file system than the directory it is in: CRI-O mounts a tmpfs of its own.
	return above.Dev != there.Dev, nil
}

// unmountShm takes away the shared memory of a pod that CRI-O forgot, which is where nobody else
// would. It is a plain unmount: what is open in it keeps it.
func unmountShm(c core.Container) error {
	mounted, err := shmMounted(c)
	if err != nil || !mounted {
		return err
	}
	if err := unix.Unmount(shmPath(c), unix.UMOUNT_NOFOLLOW); err != nil {
		return fmt.Errorf("unmount %s: %w: %w", shmPath(c), err, core.ErrStillInUse)
	}
	return nil
}
