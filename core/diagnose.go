package core

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Examination is all that a diagnosis rests on.
type Examination struct {
	Snapshot    *Snapshot
	Litter      *Litter
	Inventories []Inventory
	Holdings    map[ContainerID]Holding
	// Observations are of the containers' layers, and of all that places lists.
	Observations map[LayerID]Observation
	// Ghosts are layers with a mount somewhere that the store does not have.
	Ghosts []Layer
	Now    time.Time
	// Settled is Doctor's.
	Settled time.Duration
}

// places lists what has to be observed beside the containers' layers.
func (e *Examination) places() []Layer {
	places := slices.Clone(e.Ghosts)
	for _, l := range append(slices.Clone(e.Litter.Unreferenced), e.Litter.Unrecorded...) {
		if !slices.ContainsFunc(places, func(p Layer) bool { return p.ID == l.Layer.ID }) {
			places = append(places, l.Layer)
		}
	}
	for _, l := range e.Litter.Directories {
		places = append(places, l.place())
	}
	for _, i := range e.Snapshot.Images {
		if i.Layer.MountCount > 0 {
			places = append(places, i.Layer)
		}
	}
	return places
}

// Diagnose says what is wrong, worst first. It is pure.
func Diagnose(e Examination) []Finding {
	d := &diagnosis{Examination: e, records: make(map[ContainerID]bool), wrecked: make(map[ContainerID]bool)}
	for _, i := range e.Inventories {
		for _, r := range i.Records {
			d.records[r.Container] = true
		}
	}
	d.ghosts()
	d.lostStorage()
	d.containers()
	d.directories()
	d.layers()
	for _, i := range e.Snapshot.Images {
		d.mountCount(Finding{Image: i.ID, Name: first(i.Names)}, i.Layer, UseIdle)
	}
	for _, id := range e.Litter.Deletions {
		d.found = append(d.found, Finding{Damage: DamageDeletion, Image: id, Use: UseIdle, Dead: true,
			Detail: "an earlier run was killed while it deleted the image"})
	}
	if l := e.Litter.Load; l != nil {
		d.found = append(d.found, Finding{Damage: DamageLoad, Path: l.Directory, Use: UseIdle, Dead: true,
			Detail: fmt.Sprintf("an earlier run was killed while it loaded images, and has left %d layers", len(l.Layers))})
	}
	slices.SortStableFunc(d.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(slices.Index(damages, a.Damage), slices.Index(damages, b.Damage)), cmp.Compare(a.ID(), b.ID()))
	})
	return d.found
}

type diagnosis struct {
	Examination
	found []Finding
	// records are the containers that an engine has, wrecked those that were found as wrecks.
	records, wrecked map[ContainerID]bool
}

// ghosts judges the layers that are mounted somewhere and that the store does not have.
func (d *diagnosis) ghosts() {
	for _, layer := range d.Ghosts {
		o := d.Observations[layer.ID]
		f := Finding{Damage: DamageStrayMount, Layer: layer.ID, Path: layer.Directory, Use: o.Use, Evidence: o.Evidence, place: layer}
		switch {
		case o.Use == UseInUse:
			f.Damage = DamageWreck
			f.Detail = "runs on files that were deleted under it"
			d.identify(&f)
			d.wrecked[f.Container] = true
		case o.Use == UseIdle && !hasMount(o):
			continue // a copy that another mount namespace inherited, or gone by now
		case o.Use == UseIdle:
			f.Detail, f.Dead = "it is mounted, and the store does not have it", true
		default:
			f.Detail = "the store does not have it, and something may use its mount: " + unseen(o)
			f.Advice = adviceFor(o) + "; then"
		}
		d.found = append(d.found, f)
	}
}

// identify finds the container that a wreck was: by the process that its engine has for it, or by the
// control group of its processes, which engines name after the container.
func (d *diagnosis) identify(f *Finding) {
	users := Processes(f.Evidence)
	for _, i := range d.Inventories {
		for _, r := range i.Records {
			named := Processes(r.Evidence)
			for _, p := range users {
				same := slices.ContainsFunc(named, func(q Process) bool { return q.PID == p.PID })
				if same || strings.Contains(p.Cgroup, string(r.Container)) {
					f.adopt(i.Engine, r)
					return
				}
			}
		}
	}
	for _, p := range users {
		if id := containerIn(p.Cgroup); id != "" {
			f.Container = id
			return
		}
	}
}

// adopt notes the engine's record of a container.
func (f *Finding) adopt(engine string, r Claim) {
	f.Container, f.Owner, f.Name, f.Group, f.State, f.claim = r.Container, engine, r.DisplayName, r.Group, r.State, r
}

var idWithin = regexp.MustCompile(`[0-9a-f]{64}`)

// containerIn is the ID of the container that a control group belongs to, the innermost: libpod-ID and
// crio-ID.scope have it in their names (podman 5.4.2, CRI-O 1.37). Empty where it has none.
func containerIn(cgroup string) ContainerID {
	ids := idWithin.FindAllString(cgroup, -1)
	if len(ids) == 0 {
		return ""
	}
	return ContainerID(ids[len(ids)-1])
}

// lostStorage finds the engines' containers that the store does not have.
func (d *diagnosis) lostStorage() {
	for _, i := range d.Inventories {
		for _, r := range i.Records {
			if _, there := d.Snapshot.Container(r.Container); there || d.wrecked[r.Container] {
				continue
			}
			f := Finding{Damage: DamageLostStorage, Use: r.Use, Evidence: r.Evidence,
				Detail: fmt.Sprintf("%s has it as %s, and the store does not have it", i.Engine, r.State)}
			f.adopt(i.Engine, r)
			if claimsUse(r) {
				f.Use = UseInUse
			} else if r.Use == UseIdle {
				f.Dead = true
			}
			d.found = append(d.found, f)
		}
	}
}

// containers looks at what the store has.
func (d *diagnosis) containers() {
	for _, c := range d.Snapshot.Containers {
		h, o := d.Holdings[c.ID], d.Observations[c.Layer.ID]
		use, _ := Judge(h, o)
		f := Finding{Container: c.ID, Layer: c.LayerID, Path: c.Layer.Directory, Name: displayName(c, h), Owner: h.Owner(),
			Group: h.Claim.Group, State: h.Claim.State, Use: use, Evidence: slices.Concat(h.Claim.Evidence, o.Evidence), place: c.Layer}
		engine := d.forgottenBy(c.ID)
		switch {
		case c.Layer.Missing:
			f.Damage, f.Detail = DamageLostLayer, "the store has its record and not its layer"
			f.Dead = use == UseIdle && (h.Kind == Unowned || engine == h.Owner())
			d.found = append(d.found, f)
			continue
		case engine != "" && (h.Kind == Unowned || h.Owner() == engine):
			f.Damage, f.Detail = DamageLostRecord, fmt.Sprintf("it looks like %s's, and %s does not know it", engine, engine)
			// What an engine claims though it lists it no more is its own leftover. What it does not claim
			// may be that of another instance, with another database.
			f.Dead = use == UseIdle && h.Owner() == engine
			f.Owner = engine
			d.found = append(d.found, f)
			continue
		}
		if h.Kind == Owned || h.Kind == Unowned {
			d.mountCount(f, c.Layer, use)
		}
	}
}

// forgottenBy is the engine that a container looks like, and that answers and does not list it.
func (d *diagnosis) forgottenBy(id ContainerID) string {
	if d.records[id] {
		return ""
	}
	for _, i := range d.Inventories {
		if i.Err == nil && slices.Contains(i.Like, id) {
			return i.Engine
		}
	}
	return ""
}

// mountCount compares a count with what is mounted. The vfs driver counts and mounts nothing.
func (d *diagnosis) mountCount(f Finding, layer Layer, use Use) {
	o, seen := d.Observations[layer.ID]
	if layer.Driver != "overlay" || !seen || use != UseIdle || o.Use != UseIdle {
		return // an engine that uses it has its own count
	}
	f.Damage, f.Layer, f.Path, f.place = DamageMountCount, layer.ID, layer.MountPoint, layer
	mounted := slices.ContainsFunc(o.Evidence, func(e Evidence) bool { return e.Kind == EvidenceMount })
	switch {
	case layer.MountCount > 0 && !mounted:
		f.Detail = fmt.Sprintf("the store counts %d, and it is mounted nowhere", layer.MountCount)
		f.Dead = true
	case layer.MountCount == 0 && mounted:
		f.Detail = fmt.Sprintf("the store counts none, and it is mounted: the mount was left behind, or its engine has another run root than %s",
			d.Snapshot.Store.RunRoot)
	default:
		return
	}
	d.found = append(d.found, f)
}

// directories judges what belongs to no container. What an engine still has is its own to clean.
func (d *diagnosis) directories() {
	for _, l := range d.Litter.Directories {
		if d.records[l.Container] || d.wrecked[l.Container] {
			continue
		}
		place := l.place()
		o := d.Observations[place.ID]
		f := Finding{Damage: DamageStrayDirectory, Container: l.Container, Path: l.Path, Use: o.Use, Evidence: o.Evidence, place: place,
			Detail: "the store has no container for it"}
		if hasMount(o) {
			f.Damage, f.Detail = DamageStrayMount, "something is mounted in it, and the store has no container for it"
		}
		switch silent := d.silent(); {
		case o.Use != UseIdle:
		case silent != "":
			f.Advice = silent + ", which may have it, did not answer; where it has not"
		case !strings.HasPrefix(l.Path, d.Snapshot.Store.GraphRoot+"/"):
			// Stores with graph roots of their own may share a run root.
			f.Advice = "where no other store has this run root"
		default:
			f.Dead = true
		}
		d.found = append(d.found, f)
	}
}

// silent is an engine whose records are not known; empty where there is none.
func (d *diagnosis) silent() string {
	for _, i := range d.Inventories {
		if i.Err != nil {
			return i.Engine
		}
	}
	return ""
}

// layers judges what belongs to no image and no container.
func (d *diagnosis) layers() {
	judge := func(kind Damage, l LitterLayer, detail string) {
		age := d.Now.Sub(l.Since)
		if age < d.Settled || slices.ContainsFunc(d.Ghosts, func(g Layer) bool { return g.ID == l.Layer.ID }) {
			return
		}
		o := d.Observations[l.Layer.ID]
		d.found = append(d.found, Finding{Damage: kind, Layer: l.Layer.ID, Path: l.Layer.Directory, Use: o.Use, Evidence: o.Evidence,
			Detail: detail, Dead: o.Use == UseIdle && l.Layer.MountCount == 0, place: l.Layer})
	}
	for _, l := range d.Litter.Unreferenced {
		judge(DamageUnreferencedLayer, l, "no image and no container refers to it")
	}
	for _, l := range d.Litter.Unrecorded {
		judge(DamageStrayDirectory, l, "the store has no layer for it")
	}
}
