package transcribe

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromContainer writes a container.
func FromContainer(c service.Container) removal.Container {
	return removal.Container{
		Id: string(c.ID), Names: texts[string, string](c.Names), DisplayName: text(c.DisplayName),
		ImageId: string(c.ImageID), Image: text(c.Image), LayerId: string(c.LayerID), Created: fromTime(c.Created),
		Ownership: removal.Ownership(c.Holding.String()), Owners: texts[string, string](c.Owners), State: text(c.State),
		Use: removal.Use(c.Use.String()), Reason: c.Reason, Advice: text(c.Advice), Group: text(c.Group),
		MountCount: int64(c.Mounts), Size: c.Size, Evidence: list(c.Evidence, FromEvidence),
	}
}

// ToContainer reads a container.
func ToContainer(c removal.Container) (service.Container, error) {
	out := service.Container{
		ID: core.ContainerID(c.Id), Names: c.Names, DisplayName: value(c.DisplayName),
		ImageID: core.ImageID(c.ImageId), Image: value(c.Image), LayerID: core.LayerID(c.LayerId),
		Owners: c.Owners, State: core.State(value(c.State)), Reason: c.Reason, Advice: value(c.Advice), Group: value(c.Group),
		Mounts: int(c.MountCount), Size: c.Size,
	}
	var created, evidence error
	out.Created, created = toTime(c.Created)
	out.Evidence, evidence = read(c.Evidence, ToEvidence)
	_, size := count(value(c.Size), "the size")
	if err := errors.Join(created, evidence, size, word(c.Ownership, &out.Holding), word(c.Use, &out.Use)); err != nil {
		return out, fmt.Errorf("read container %.12s: %w", c.Id, err)
	}
	return out, nil
}
