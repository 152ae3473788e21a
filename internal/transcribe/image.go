package transcribe

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromImage writes an image.
func FromImage(i service.Image) removal.Image {
	return removal.Image{
		Id: string(i.ID), Names: texts[string, string](i.Names), Digests: texts[string, string](i.Digests), Created: fromTime(i.Created),
		Size: fromSize(i.Size), UniqueSize: fromSize(i.UniqueSize), ReadOnly: i.ReadOnly, Dangling: i.Dangling,
		ManifestList: i.ManifestList, Parent: text(i.Parent),
		Children: texts[core.ImageID, string](i.Children), Containers: texts[core.ContainerID, string](i.Containers),
	}
}

// ToImage reads an image.
func ToImage(i removal.Image) (service.Image, error) {
	out := service.Image{
		ID: core.ImageID(i.Id), Names: i.Names, Digests: i.Digests, ReadOnly: i.ReadOnly, Dangling: i.Dangling,
		ManifestList: i.ManifestList, Parent: core.ImageID(value(i.Parent)),
		Children: texts[string, core.ImageID](i.Children), Containers: texts[string, core.ContainerID](i.Containers),
	}
	var created, size, unique error
	out.Created, created = toTime(i.Created)
	out.Size, size = toSize(i.Size)
	out.UniqueSize, unique = toSize(i.UniqueSize)
	if err := errors.Join(created, size, unique); err != nil {
		return out, fmt.Errorf("read image %.12s: %w", i.Id, err)
	}
	return out, nil
}

// fromSize leaves a size that is not known out.
func fromSize(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func toSize(n *int64) (int64, error) {
	if n == nil {
		return -1, nil
	}
	return count(*n, "the size")
}
