package core

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// ward is a store with damage, built step by step.
type ward struct{ Examination }

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func newWard() *ward {
	return &ward{Examination{
		Snapshot:     &Snapshot{Store: StoreInfo{GraphRoot: "/g", RunRoot: "/r", GraphDriver: "overlay"}},
		Litter:       &Litter{Homes: []string{"/g/overlay"}},
		Holdings:     make(map[ContainerID]Holding),
		Observations: make(map[LayerID]Observation),
		Now:          noon, Settled: time.Hour,
	}}
}

func wardID(digits string) string { return digits + strings.Repeat("0", 64-len(digits)) }

// container adds an idle one.
func (w *ward) container(digits string, h Holding, count int, o Observation) ContainerID {
	c := Container{ID: ContainerID(wardID(digits)), LayerID: LayerID(wardID("1a" + digits))}
	c.Layer = Layer{ID: c.LayerID, Driver: "overlay", Directory: "/g/overlay/" + string(c.LayerID), MountCount: count}
	w.Snapshot.Containers = append(w.Snapshot.Containers, c)
	w.Holdings[c.ID], w.Observations[c.LayerID] = h, o
	return c.ID
}

func (w *ward) ghost(digits string, o Observation) LayerID {
	l := w.Litter.ghost("overlay", LayerID(wardID(digits)))
	w.Ghosts = append(w.Ghosts, l)
	w.Observations[l.ID] = o
	return l.ID
}

func (w *ward) engine(name string, like []ContainerID, records ...Claim) {
	w.Inventories = append(w.Inventories, Inventory{Engine: name, Like: like, Records: records})
}

var (
	idleHere = Observation{Use: UseIdle}
	mountedX = Observation{Use: UseIdle, Evidence: []Evidence{{Kind: EvidenceMount, Path: "/g/overlay/x/merged"}}}
	nobodys  = Holding{Kind: Unowned}
)

func usedByPID(pid int, cgroup string) Observation {
	return Observation{Use: UseInUse, Evidence: []Evidence{{Kind: EvidenceProcess, Process: &Process{PID: pid, StartTime: 1, Cgroup: cgroup}}}}
}

func ownedBy(owner string, use Use, state State) Holding {
	return Holding{Kind: Owned, Owners: []string{owner}, Claim: Claim{Ownership: OwnershipMine, Use: use, State: state}}
}

func recorded(digits string, state State, use Use, pid int) Claim {
	c := Claim{Container: ContainerID(wardID(digits)), Ownership: OwnershipMine, State: state, Use: use, DisplayName: "n" + digits}
	if pid != 0 {
		c.Evidence = []Evidence{{Kind: EvidenceProcess, Process: &Process{PID: pid}}}
	}
	return c
}

func TestDiagnose(t *testing.T) {
	for _, test := range []struct {
		scenario string
		build    func(w *ward)
		// want are damage, ID's first digits, and dead or alive.
		want []string
	}{
		{"a sound store", func(w *ward) {
			id := w.container("a1", ownedBy("podman", UseIdle, StateStopped), 0, idleHere)
			w.container("a2", nobodys, 1, mountedX)
			w.engine("podman", []ContainerID{id}, recorded("a1", StateStopped, UseIdle, 0))
		}, nil},
		{"a wreck, known by its process", func(w *ward) {
			w.ghost("1b", usedByPID(7, ""))
			w.engine("crio", nil, recorded("b1", StateRunning, UseInUse, 7))
		}, []string{"wreck b1 alive"}},
		{"a wreck, known by its control group", func(w *ward) {
			w.ghost("1b", usedByPID(7, "/machine.slice/crio-"+wardID("b1")+".scope"))
			w.engine("crio", nil, recorded("b1", StateRunning, UseInUse, 0))
		}, []string{"wreck b1 alive"}},
		{"a wreck that no engine knows any more", func(w *ward) {
			w.ghost("1b", usedByPID(7, "/libpod_parent/libpod-"+wardID("b1")))
		}, []string{"wreck b1 alive"}},
		{"a wreck of nobody", func(w *ward) { w.ghost("1b", usedByPID(7, "/user.slice")) }, []string{"wreck 1b alive"}},
		{"a ghost whose mount something may hold", func(w *ward) {
			w.ghost("1b", Observation{Use: UseUnknown, Evidence: []Evidence{{Kind: EvidenceMount, Detail: "held"}}})
		}, []string{"stray_mount 1b alive"}},
		{"a ghost that was not observed", func(w *ward) {
			w.ghost("1b", Observation{})
		}, []string{"stray_mount 1b alive"}},
		{"a ghost that is mounted and idle", func(w *ward) { w.ghost("1b", mountedX) }, []string{"stray_mount 1b dead"}},
		{"a ghost that is gone by now", func(w *ward) { w.ghost("1b", idleHere) }, nil},
		{"a record without storage", func(w *ward) {
			w.engine("podman", nil, recorded("b1", StateStopped, UseIdle, 0), recorded("b2", StateRunning, UseInUse, 9), recorded("b3", StateRunning, UseUnknown, 0))
		}, []string{"lost_storage b1 dead", "lost_storage b2 alive", "lost_storage b3 alive"}},
		{"storage that its engine claims and does not list", func(w *ward) {
			id := w.container("a1", ownedBy("crio", UseIdle, StateStopped), 0, idleHere)
			w.engine("crio", []ContainerID{id})
		}, []string{"lost_record a1 dead"}},
		{"such storage in use", func(w *ward) {
			id := w.container("a1", ownedBy("crio", UseIdle, StateStopped), 0, usedByPID(7, ""))
			w.engine("crio", []ContainerID{id})
		}, []string{"lost_record a1 alive"}},
		{"storage that looks like an engine's and is claimed by nobody", func(w *ward) {
			id := w.container("a1", nobodys, 0, idleHere)
			w.engine("podman", []ContainerID{id})
		}, []string{"lost_record a1 alive"}},
		{"storage of an engine that does not answer", func(w *ward) {
			id := w.container("a1", Holding{Owners: []string{"podman"}}, 3, idleHere)
			w.Inventories = []Inventory{{Engine: "podman", Like: []ContainerID{id}, Err: errors.New("down")}}
		}, nil},
		{"a container without its layer", func(w *ward) {
			for _, c := range []struct {
				digits string
				h      Holding
			}{{"a1", nobodys}, {"a2", ownedBy("podman", UseIdle, StateStopped)}, {"a3", Holding{}}} {
				id := w.container(c.digits, c.h, 0, idleHere)
				w.Snapshot.Containers[len(w.Snapshot.Containers)-1].Layer.Missing = true
				if c.digits == "a2" {
					w.engine("podman", []ContainerID{id}, recorded("a2", StateStopped, UseIdle, 0))
				}
			}
		}, []string{"lost_layer a1 dead", "lost_layer a2 alive", "lost_layer a3 alive"}},
		{"mount counts", func(w *ward) {
			w.container("a1", nobodys, 2, idleHere)
			w.container("a2", nobodys, 0, mountedX)
			w.container("a3", nobodys, 0, idleHere)
			w.container("a4", nobodys, 1, mountedX)
			w.container("a5", ownedBy("crio", UseInUse, StateRunning), 1, idleHere)
			w.container("a6", nobodys, 1, Observation{})
			w.engine("crio", nil, recorded("a5", StateRunning, UseInUse, 0))
		}, []string{"stale_mount_count a1 dead", "stale_mount_count a2 alive"}},
		{"directories without a container", func(w *ward) {
			for _, path := range []string{"/g/overlay-containers/d1", "/r/overlay-containers/d2", "/g/overlay-containers/d3", "/g/overlay-containers/d4"} {
				l := LitterDirectory{Container: ContainerID(path[len(path)-2:]), Path: path}
				w.Litter.Directories = append(w.Litter.Directories, l)
				w.Observations[l.place().ID] = idleHere
			}
			w.Observations["/g/overlay-containers/d3"] = mountedX
			w.Observations["/g/overlay-containers/d4"] = usedByPID(7, "")
		}, []string{"stray_mount d3 dead", "stray_directory d1 dead", "stray_directory d2 alive", "stray_directory d4 alive"}},
		{"a directory that a silent engine may have", func(w *ward) {
			l := LitterDirectory{Container: ContainerID(wardID("b1")), Path: "/g/overlay-containers/b1"}
			w.Litter.Directories = []LitterDirectory{l}
			w.Observations[l.place().ID] = idleHere
			w.Inventories = []Inventory{{Engine: "crio", Err: errors.New("down")}}
		}, []string{"stray_directory b1 alive"}},
		{"a directory that its engine will clean", func(w *ward) {
			w.Litter.Directories = []LitterDirectory{{Container: ContainerID(wardID("b1")), Path: "/g/overlay-containers/b1"}}
			w.engine("podman", nil, recorded("b1", StateStopped, UseIdle, 0))
		}, []string{"lost_storage b1 dead"}},
		{"layers that belong to nothing", func(w *ward) {
			for i, since := range []time.Duration{-2 * time.Hour, -time.Minute} {
				for kind, list := range map[string]*[]LitterLayer{"e": &w.Litter.Unreferenced, "f": &w.Litter.Unrecorded} {
					id := LayerID(wardID(kind + string(rune('0'+i))))
					*list = append(*list, LitterLayer{Layer: Layer{ID: id, Driver: "overlay"}, Since: noon.Add(since)})
					w.Observations[id] = idleHere
				}
			}
			w.Litter.Unreferenced = append(w.Litter.Unreferenced, LitterLayer{Layer: Layer{ID: LayerID(wardID("e7"))}, Since: noon.Add(-2 * time.Hour)})
		}, []string{"stray_directory f0 dead", "unreferenced_layer e0 dead", "unreferenced_layer e7 alive"}},
		{"an interrupted deletion", func(w *ward) { w.Litter.Deletions = []ImageID{ImageID(wardID("9a"))} }, []string{"interrupted_deletion 9a dead"}},
		{"an interrupted load", func(w *ward) { w.Litter.Load = &LitterLoad{Directory: "/t", Layers: []LayerID{LayerID(wardID("e7"))}} },
			[]string{"interrupted_load /t dead"}},
	} {
		t.Run(test.scenario, func(t *testing.T) {
			w := newWard()
			test.build(w)
			var got []string
			for _, f := range Diagnose(w.Examination) {
				id := f.ID()
				if len(id) > 2 {
					id = id[:2]
				}
				life := map[bool]string{true: "dead", false: "alive"}[f.Dead]
				got = append(got, string(f.Damage)+" "+id+" "+life)
				if f.Dead && f.Use != UseIdle {
					t.Errorf("dead and %s: %+v", f.Use, f)
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
