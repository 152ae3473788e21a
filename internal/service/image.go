package service

import (
	"context"
	"slices"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Image is an image of the store.
type Image struct {
	ID      core.ImageID `json:"id"`
	Names   []string     `json:"names"`
	Digests []string     `json:"digests"`
	Created time.Time    `json:"created"`
	// Size is the bytes of all its layers, UniqueSize of those that no other image uses; -1 where the
	// store does not know.
	Size         int64        `json:"size"`
	UniqueSize   int64        `json:"uniqueSize"`
	ReadOnly     bool         `json:"readOnly"`
	Dangling     bool         `json:"dangling"`
	ManifestList bool         `json:"manifestList"`
	Parent       core.ImageID `json:"parent,omitempty"`
	// Children are the images that were built on it.
	Children   []core.ImageID     `json:"-"`
	Containers []core.ContainerID `json:"containers"`
}

// Images tells of the images, newest first, or of the one that the reference means, and ends at the first
// error of each. No engine is asked. Errors: core.ErrImageUnknown, *core.AmbiguousError, that of each, and
// what could not be found out.
func (l *Local) Images(ctx context.Context, reference string, each func(Image) error) error {
	snapshot, err := l.Engine.Store.Snapshot(ctx)
	if err != nil {
		return err
	}
	images := slices.Clone(snapshot.Images)
	if reference != "" {
		id, _, err := l.Engine.Store.ResolveImage(ctx, snapshot, reference)
		if err != nil {
			return err
		}
		images = slices.DeleteFunc(images, func(i core.Image) bool { return i.ID != id })
	}
	slices.SortStableFunc(images, func(a, b core.Image) int { return b.Created.Compare(a.Created) })
	for _, i := range images {
		if err := each(image(snapshot, i)); err != nil {
			return err
		}
	}
	return nil
}

func image(snapshot *core.Snapshot, i core.Image) Image {
	v := Image{
		ID: i.ID, Names: append([]string{}, i.Names...), Digests: append([]string{}, i.Digests...), Created: i.Created,
		Size: i.Size, UniqueSize: i.UniqueSize, ReadOnly: i.ReadOnly, Dangling: i.Dangling(),
		ManifestList: i.ManifestList, Parent: i.Parent,
		Children: append([]core.ImageID{}, snapshot.Children(i.ID)...), Containers: []core.ContainerID{},
	}
	for _, c := range snapshot.ContainersOf(i.ID) {
		v.Containers = append(v.Containers, c.ID)
	}
	return v
}
