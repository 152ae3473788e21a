package storetest

import (
	"maps"
	"slices"

	"github.com/containers/storage"

	"github.com/unmoor/unmoor/core"
)

// Container describes a container to make.
type Container struct {
	// ID is chosen by the library where it is empty.
	ID    core.ContainerID
	Names []string
	// Metadata is the text that its maker keeps with the record.
	Metadata string
	Volatile bool
	// BigData are items of the record, Files those of its directory in the graph root.
	BigData map[string]string
	Files   map[string]string
}

// AddContainer makes a container of an image, or one without image where that is empty.
func (f *Fixture) AddContainer(image core.ImageID, c Container) core.ContainerID {
	f.t.Helper()
	options := &storage.ContainerOptions{Volatile: c.Volatile}
	for _, key := range slices.Sorted(maps.Keys(c.BigData)) {
		options.BigData = append(options.BigData, storage.ContainerBigDataOption{Key: key, Data: []byte(c.BigData[key])})
	}
	record, err := f.lib.CreateContainer(string(c.ID), c.Names, string(image), "", c.Metadata, options)
	f.must(err)
	for file, data := range c.Files {
		f.must(f.lib.SetContainerDirectoryFile(record.ID, file, []byte(data)))
	}
	return core.ContainerID(record.ID)
}

// Mount mounts a container as an engine does, and returns where.
func (f *Fixture) Mount(id core.ContainerID) string {
	f.t.Helper()
	path, err := f.lib.Mount(string(id), "")
	f.must(err)
	return path
}

// Unmount takes back one Mount.
func (f *Fixture) Unmount(id core.ContainerID) {
	f.t.Helper()
	_, err := f.lib.Unmount(string(id), false)
	f.must(err)
}

// MountImage mounts an image read-only, as an engine does for a volume, and returns where.
func (f *Fixture) MountImage(id core.ImageID) string {
	f.t.Helper()
	path, err := f.lib.MountImage(string(id), nil, "")
	f.must(err)
	return path
}
