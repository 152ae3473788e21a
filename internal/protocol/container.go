package protocol

import (
	"cmp"
	"fmt"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// FromContainer makes a container for the wire.
func FromContainer(c core.Container) (iounmoorplugin.Container, error) {
	w := iounmoorplugin.Container{
		Id: string(c.ID), Names: texts(c.Names), ImageId: string(c.ImageID), LayerId: string(c.LayerID),
		Created: fromTime(c.Created), Metadata: c.Metadata, BigDataNames: texts(c.BigDataNames),
		Volatile: c.Volatile, Directory: c.Directory, RunDirectory: c.RunDirectory,
		Layer: iounmoorplugin.Layer{
			Id: string(c.Layer.ID), Missing: c.Layer.Missing, MountCount: int64(c.Layer.MountCount),
			Directory: c.Layer.Directory, MountPoint: c.Layer.MountPoint, UpperDir: optional(c.Layer.UpperDir),
			Driver: c.Layer.Driver,
		},
	}
	return w, checkContainer(w)
}

// ToContainer reads a container.
func ToContainer(w iounmoorplugin.Container) (core.Container, error) {
	created, err := toTime("creation time", w.Created)
	if err := cmp.Or(err, checkContainer(w)); err != nil {
		return core.Container{}, err
	}
	return core.Container{
		ID: core.ContainerID(w.Id), Names: typed[string](w.Names), ImageID: core.ImageID(w.ImageId),
		LayerID: core.LayerID(w.LayerId), Created: created, Metadata: w.Metadata,
		BigDataNames: typed[string](w.BigDataNames), Volatile: w.Volatile, Directory: w.Directory,
		RunDirectory: w.RunDirectory,
		Layer: core.Layer{
			ID: core.LayerID(w.Layer.Id), Missing: w.Layer.Missing, MountCount: int(w.Layer.MountCount),
			Directory: w.Layer.Directory, MountPoint: w.Layer.MountPoint, UpperDir: value(w.Layer.UpperDir),
			Driver: w.Layer.Driver,
		},
	}, nil
}

func checkContainer(w iounmoorplugin.Container) error {
	err := cmp.Or(checkID("container", w.Id), checkOptionalID("image", w.ImageId),
		checkOptionalID("layer", w.LayerId), checkOptionalID("layer", w.Layer.Id),
		checkTexts("name", w.Names), checkText("metadata", w.Metadata), checkTexts("big data name", w.BigDataNames),
		checkOptionalPath("directory", w.Directory), checkOptionalPath("run directory", w.RunDirectory),
		checkOptionalPath("layer directory", w.Layer.Directory), checkOptionalPath("mount point", w.Layer.MountPoint),
		checkOptionalPath("upper directory", value(w.Layer.UpperDir)), checkText("driver", w.Layer.Driver))
	if err != nil {
		return fmt.Errorf("container %.12q: %w", w.Id, err)
	}
	return nil
}

// FromImage makes an image for the wire.
func FromImage(i core.Image) (iounmoorplugin.Image, error) {
	w := iounmoorplugin.Image{Id: string(i.ID), Names: texts(i.Names), Digests: texts(i.Digests), ManifestList: i.ManifestList}
	return w, checkImage(w)
}

// ToImage reads an image; it has what crosses, and no more.
func ToImage(w iounmoorplugin.Image) (core.Image, error) {
	if err := checkImage(w); err != nil {
		return core.Image{}, err
	}
	return core.Image{ID: core.ImageID(w.Id), Names: typed[string](w.Names), Digests: typed[string](w.Digests),
		ManifestList: w.ManifestList}, nil
}

func checkImage(w iounmoorplugin.Image) error {
	err := cmp.Or(checkID("image", w.Id), checkTexts("name", w.Names), checkTexts("digest", w.Digests))
	if err != nil {
		return fmt.Errorf("image %.12q: %w", w.Id, err)
	}
	return nil
}
