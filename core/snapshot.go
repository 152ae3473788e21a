package core

import (
	"slices"
	"time"
)

// StoreInfo says which store is meant, as an engine would name it.
type StoreInfo struct {
	GraphRoot   string `json:"graphRoot"`
	RunRoot     string `json:"runRoot"`
	GraphDriver string `json:"graphDriver"`
	// GraphOptions are the driver's options as on an engine's command line (--storage-opt).
	GraphOptions []string `json:"graphOptions,omitempty"`
	// Default is whether the store is the one that an engine opens when it is given no store
	// options.
	Default bool `json:"default"`
}

// Container is a storage container, as containers/storage records it.
type Container struct {
	ID           ContainerID `json:"id"`
	Names        []string    `json:"names"`
	ImageID      ImageID     `json:"imageId"`
	LayerID      LayerID     `json:"layerId"`
	Created      time.Time   `json:"created"`
	Metadata     string      `json:"metadata"`
	BigDataNames []string    `json:"bigDataNames"`
	// Volatile is the library's flag of the same name: the record does not survive a reboot.
	Volatile bool `json:"volatile"`
	// Directory and RunDirectory are the container's own directories in the graph root and the run
	// root. They need not exist.
	Directory    string `json:"directory"`
	RunDirectory string `json:"runDirectory"`
	Layer        Layer  `json:"layer"`
}

// Layer is where the driver keeps a container's writable layer or an image's top layer.
type Layer struct {
	ID LayerID `json:"id"`
	// Missing is whether the store has a record of the container and none of this layer, as a
	// removal leaves it that was killed half-way.
	Missing bool `json:"missing,omitempty"`
	// MountCount is the store's own count in this run root. Above 0 it may protect; 0 proves
	// nothing (containers/storage v1.59.1, layers.go: mountpoints.json lies in the run root).
	MountCount int `json:"mountCount"`
	// Directory holds all of the layer (overlay: GRAPHROOT/overlay/ID, vfs: GRAPHROOT/vfs/dir/ID).
	Directory string `json:"directory"`
	// MountPoint is where the driver mounts the layer (overlay: Directory/merged; vfs: Directory,
	// which is never a mount).
	MountPoint string `json:"mountPoint"`
	// UpperDir is the writable directory of an overlay layer; empty for other drivers and for
	// layers of images.
	UpperDir string `json:"upperDir,omitempty"`
	// Orphan is whether no record of the store says what may stand on the layer: it belongs to nothing, and
	// may have been an image's, whether or not it has an UpperDir.
	Orphan bool `json:"orphan,omitempty"`
	// Driver is overlay or vfs; another driver's layers are kept, since their use cannot be told.
	Driver string `json:"driver"`
}

// Image is an image or a manifest list of the store.
type Image struct {
	ID      ImageID   `json:"id"`
	Names   []string  `json:"names"`
	Digests []string  `json:"digests"`
	Created time.Time `json:"created"`
	// Layer is the top layer; its ID is empty for a manifest list or an image without layers.
	Layer Layer `json:"layer"`
	// OwnLayers are the layers that go with the image and its containers, since no other image uses
	// them; children before parents.
	OwnLayers []Layer `json:"ownLayers,omitempty"`
	// ReadOnly is whether the record lies in an additional image store.
	ReadOnly bool `json:"readOnly"`
	// ManifestList is whether the record is a list of images, Instances the images of this store
	// that it lists.
	ManifestList bool      `json:"manifestList"`
	Instances    []ImageID `json:"instances,omitempty"`
	// Parent is the image that this one was built on, by layers and history as Podman's image tree
	// tells it; empty where the store has none.
	Parent ImageID `json:"parent,omitempty"`
	// Stored is when its top layer came into the store; zero where it has none, or that is not known.
	Stored time.Time `json:"stored"`
	// Labels are those of the image's configuration. LabelsKnown is whether they were read: where they were
	// not, no label is known to be missing.
	Labels      map[string]string `json:"labels,omitempty"`
	LabelsKnown bool              `json:"labelsKnown,omitempty"`
	// Size is the bytes of all its layers, UniqueSize of those that no other image uses, both as
	// recorded, uncompressed; -1 where the store does not know.
	Size       int64 `json:"size"`
	UniqueSize int64 `json:"uniqueSize"`
	// LayerSizes are the bytes of each of its layers, likewise, copies for other ID mappings included.
	LayerSizes map[LayerID]int64 `json:"-"`
}

// layers are the top layer and the layers that go with the image, each once.
func (i Image) layers() []Layer {
	var all []Layer
	for _, l := range append([]Layer{i.Layer}, i.OwnLayers...) {
		if l.ID != "" && !slices.ContainsFunc(all, func(x Layer) bool { return x.ID == l.ID }) {
			all = append(all, l)
		}
	}
	return all
}

// Dangling is whether an image has no name left.
func (i Image) Dangling() bool { return len(i.Names) == 0 }

// Snapshot is the store at one instant.
type Snapshot struct {
	Store StoreInfo `json:"store"`
	// Changed is when a layer was made or deleted last, by the directories that hold them, before the rest
	// was read; zero where that is not known. A container comes and goes with a layer.
	Changed    time.Time   `json:"changed"`
	Images     []Image     `json:"images"`
	Containers []Container `json:"containers"`
	// Layers are all layers, containers' among them.
	Layers []StoredLayer `json:"-"`
}

// StoredLayer is the record of a layer.
type StoredLayer struct {
	ID LayerID
	// Bytes are as recorded, uncompressed; -1 where the store does not know, as of a container's.
	Bytes int64
	// ReadOnly is whether it lies in an additional store.
	ReadOnly bool
}

// Image finds an image by its full ID.
func (s *Snapshot) Image(id ImageID) (Image, bool) {
	for _, i := range s.Images {
		if i.ID == id {
			return i, true
		}
	}
	return Image{}, false
}

// Container finds a container by its full ID.
func (s *Snapshot) Container(id ContainerID) (Container, bool) {
	for _, c := range s.Containers {
		if c.ID == id {
			return c, true
		}
	}
	return Container{}, false
}

// Children lists the images whose Parent is id.
func (s *Snapshot) Children(id ImageID) []ImageID {
	var children []ImageID
	for _, i := range s.Images {
		if i.Parent == id {
			children = append(children, i.ID)
		}
	}
	return children
}

// ContainersOf lists the containers whose image is id.
func (s *Snapshot) ContainersOf(id ImageID) []Container {
	var of []Container
	for _, c := range s.Containers {
		if c.ImageID == id {
			of = append(of, c)
		}
	}
	return of
}

// ListsWith lists the manifest lists that hold id.
func (s *Snapshot) ListsWith(id ImageID) []ImageID {
	var lists []ImageID
	for _, i := range s.Images {
		for _, instance := range i.Instances {
			if instance == id && i.ID != id {
				lists = append(lists, i.ID)
				break
			}
		}
	}
	return lists
}
