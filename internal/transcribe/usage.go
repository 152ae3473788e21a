package transcribe

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromImageUsage writes what an image holds.
func FromImageUsage(i core.ImageAccount) removal.ImageUsage {
	return removal.ImageUsage{Id: string(i.ID), Names: texts[string, string](i.Names), UniqueBytes: i.UniqueBytes, SharedBytes: i.SharedBytes,
		Unmeasured: int64(i.Unmeasured), Containers: int64(i.Containers), Owners: texts[string, string](i.Owners), ReadOnly: i.ReadOnly,
		Fate: removal.Fate(i.Fate.String()), Because: list(i.Because, FromBlocker), Reason: i.Reason}
}

// ToImageUsage reads what an image holds.
func ToImageUsage(i removal.ImageUsage) (core.ImageAccount, error) {
	out := core.ImageAccount{ID: core.ImageID(i.Id), Names: i.Names, Owners: i.Owners, ReadOnly: i.ReadOnly, Reason: i.Reason}
	var because, unique, shared, unmeasured, containers error
	out.Because, because = read(i.Because, ToBlocker)
	out.UniqueBytes, unique = count(i.UniqueBytes, "uniqueBytes")
	out.SharedBytes, shared = count(i.SharedBytes, "sharedBytes")
	out.Unmeasured, unmeasured = number(i.Unmeasured, "unmeasured")
	out.Containers, containers = number(i.Containers, "containers")
	if err := errors.Join(because, unique, shared, unmeasured, containers, word(i.Fate, &out.Fate)); err != nil {
		return out, fmt.Errorf("read image %.12s: %w", i.Id, err)
	}
	return out, nil
}

// FromContainerUsage writes what a container holds.
func FromContainerUsage(c core.ContainerAccount) removal.ContainerUsage {
	return removal.ContainerUsage{Id: string(c.ID), Name: text(c.Name), Image: text(c.Image), Owners: texts[string, string](c.Owners),
		Group: text(c.Group), State: text(c.State), Use: removal.Use(c.Use.String()), Bytes: fromSize(c.Bytes),
		Fate: removal.Fate(c.Fate.String()), Because: list(c.Because, FromBlocker), Reason: c.Reason}
}

// ToContainerUsage reads what a container holds.
func ToContainerUsage(c removal.ContainerUsage) (core.ContainerAccount, error) {
	out := core.ContainerAccount{ID: core.ContainerID(c.Id), Name: value(c.Name), Image: core.ImageID(value(c.Image)), Owners: c.Owners,
		Group: value(c.Group), State: core.State(value(c.State)), Reason: c.Reason}
	var because, bytes error
	out.Because, because = read(c.Because, ToBlocker)
	out.Bytes, bytes = toSize(c.Bytes)
	if err := errors.Join(because, bytes, word(c.Use, &out.Use), word(c.Fate, &out.Fate)); err != nil {
		return out, fmt.Errorf("read container %.12s: %w", c.Id, err)
	}
	return out, nil
}

// FromLayerUsage writes what a layer holds.
func FromLayerUsage(l core.LayerAccount) removal.LayerUsage {
	return removal.LayerUsage{Id: string(l.ID), Bytes: fromSize(l.Bytes), Images: texts[core.ImageID, string](l.Images),
		Owners: texts[string, string](l.Owners), ReadOnly: l.ReadOnly, Fate: removal.Fate(l.Fate.String())}
}

// ToLayerUsage reads what a layer holds.
func ToLayerUsage(l removal.LayerUsage) (core.LayerAccount, error) {
	out := core.LayerAccount{ID: core.LayerID(l.Id), Images: texts[string, core.ImageID](l.Images), Owners: l.Owners, ReadOnly: l.ReadOnly}
	var bytes error
	out.Bytes, bytes = toSize(l.Bytes)
	if err := errors.Join(bytes, word(l.Fate, &out.Fate)); err != nil {
		return out, fmt.Errorf("read layer %.12s: %w", l.Id, err)
	}
	return out, nil
}

// FromUsageTotals writes an account without its images, containers and layers.
func FromUsageTotals(u *service.Usage) removal.UsageTotals {
	a := u.Account
	return removal.UsageTotals{GraphRoot: a.Store.GraphRoot, RunRoot: a.Store.RunRoot, GraphDriver: a.Store.GraphDriver, Time: fromTime(u.Time),
		Disk: fromDisk(u.Disk), OfImages: fromSum(a.OfImages), OfContainers: fromSum(a.OfContainers), OfNothing: fromSum(a.OfNothing),
		Total: fromSum(a.Total), ReadOnlyBytes: a.ReadOnlyBytes, Owners: list(a.Owners, func(o core.OwnerAccount) removal.OwnerUsage {
			return removal.OwnerUsage{Owners: texts[string, string](o.Owners), Images: int64(o.Images), Sum: fromSum(o.Sum)}
		})}
}

// ToUsageTotals reads an account; its images, containers and layers are empty.
func ToUsageTotals(t removal.UsageTotals) (*service.Usage, error) {
	out := &service.Usage{Account: &core.Account{Store: core.StoreInfo{GraphRoot: t.GraphRoot, RunRoot: t.RunRoot, GraphDriver: t.GraphDriver},
		Images: []core.ImageAccount{}, Containers: []core.ContainerAccount{}, Layers: []core.LayerAccount{}}}
	a := out.Account
	var at, disk, owners, readOnly error
	out.Time, at = toTime(t.Time)
	out.Disk, disk = toDisk(t.Disk)
	a.ReadOnlyBytes, readOnly = count(t.ReadOnlyBytes, "readOnlyBytes")
	a.Owners, owners = read(t.Owners, func(o removal.OwnerUsage) (core.OwnerAccount, error) {
		out := core.OwnerAccount{Owners: o.Owners}
		images, err := number(o.Images, "images")
		out.Images = images
		return out, errors.Join(err, toSum(o.Sum, &out.Sum))
	})
	if err := errors.Join(at, disk, owners, readOnly, toSum(t.OfImages, &a.OfImages), toSum(t.OfContainers, &a.OfContainers),
		toSum(t.OfNothing, &a.OfNothing), toSum(t.Total, &a.Total)); err != nil {
		return nil, fmt.Errorf("read the account of the store: %w", err)
	}
	return out, nil
}

func fromSum(s core.Sum) removal.Sum {
	return removal.Sum{Count: int64(s.Count), Active: int64(s.Active), Bytes: s.Bytes, Now: s.Now, AfterStop: s.AfterStop, Never: s.Never,
		Unmeasured: int64(s.Unmeasured)}
}

func toSum(s removal.Sum, into *core.Sum) error {
	*into = core.Sum{Bytes: s.Bytes, Now: s.Now, AfterStop: s.AfterStop, Never: s.Never}
	var all, active, unmeasured error
	into.Count, all = number(s.Count, "count")
	into.Active, active = number(s.Active, "active")
	into.Unmeasured, unmeasured = number(s.Unmeasured, "unmeasured")
	_, bytes := count(min(s.Bytes, s.Now, s.AfterStop, s.Never), "a sum")
	return errors.Join(all, active, unmeasured, bytes)
}

func number(n int64, what string) (int, error) {
	_, err := count(n, what)
	return int(n), err
}
