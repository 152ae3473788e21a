package cstore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// blockSize is the unit of stat's block count, whatever the file system.
const blockSize = 512

// ContainerSize is the bytes on disk in a container's writable layer: the blocks of its files, each
// file once, without what is mounted there. With vfs a container has a full copy of its image. It is
// 0 where there is no layer.
func (s *Store) ContainerSize(ctx context.Context, c core.Container) (int64, error) {
	directory := c.Layer.UpperDir
	if directory == "" {
		directory = c.Layer.Directory
	}
	if directory == "" {
		return 0, fmt.Errorf("measure container %s: the directory of a layer of driver %s is not known", c.ID.Short(), c.Layer.Driver)
	}
	bytes, err := measure(ctx, directory)
	if err != nil {
		return 0, fmt.Errorf("measure container %s: %w", c.ID.Short(), err)
	}
	return bytes, nil
}

// measure sums up a tree that may change meanwhile. It opens only directories, each through its
// parent and never through a link, so that nothing leads it out of the tree.
func measure(ctx context.Context, directory string) (int64, error) {
	fd, err := unix.Open(directory, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: directory, Err: err}
	}
	defer unix.Close(fd)
	top, err := status(fd, "")
	if err != nil {
		return 0, &os.PathError{Op: "stat", Path: directory, Err: err}
	}
	t := &tree{ctx: ctx, top: top, seen: make(map[uint64]bool), bytes: int64(top.Blocks) * blockSize}
	if err := t.walk(fd, ".", directory); err != nil {
		return 0, err
	}
	return t.bytes, nil
}

type tree struct {
	ctx context.Context
	top unix.Statx_t
	// seen are the files with several links.
	seen  map[uint64]bool
	bytes int64
}

// walk adds up the directory name below parent.
func (t *tree) walk(parent int, name, path string) error {
	if err := t.ctx.Err(); err != nil {
		return err
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.ctx.Err(); err != nil {
			return err
		}
		file, err := status(fd, name)
		if gone(err) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "stat", Path: path + "/" + name, Err: err}
		}
		if t.elsewhere(file) || t.counted(file) {
			continue
		}
		t.bytes += int64(file.Blocks) * blockSize
		if file.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := t.walk(fd, name, path+"/"+name); err != nil {
				return err
			}
		}
	}
	return nil
}

// elsewhere is whether a file belongs to something mounted in the tree. The number of the mount
// tells a bind mount of the same file system too (Linux 5.8).
func (t *tree) elsewhere(file unix.Statx_t) bool {
	if file.Mask&t.top.Mask&unix.STATX_MNT_ID != 0 && file.Mnt_id != t.top.Mnt_id {
		return true
	}
	return file.Dev_major != t.top.Dev_major || file.Dev_minor != t.top.Dev_minor
}

// counted is whether a file with several links was met before.
func (t *tree) counted(file unix.Statx_t) bool {
	if file.Nlink < 2 || file.Mode&unix.S_IFMT == unix.S_IFDIR {
		return false
	}
	before := t.seen[file.Ino]
	t.seen[file.Ino] = true
	return before
}

func status(fd int, name string) (unix.Statx_t, error) {
	var file unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	err := unix.Statx(fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &file)
	return file, err
}

// gone is whether a file was removed, or replaced by one of another kind, since it was listed.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
