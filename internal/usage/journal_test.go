package usage

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/unmoor/unmoor/core"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func at(hours float64) time.Time { return noon.Add(time.Duration(hours * float64(time.Hour))) }

// store makes a snapshot; what a container stands on is given by its image.
func store(changed float64, images []core.Image, containers ...core.ImageID) *core.Snapshot {
	s := &core.Snapshot{Changed: at(changed), Images: images}
	for n, id := range containers {
		s.Containers = append(s.Containers, core.Container{ID: core.ContainerID(fmt.Sprint("c", n)), ImageID: id})
	}
	return s
}

func named(ids ...core.ImageID) []core.Image {
	var images []core.Image
	for _, id := range ids {
		images = append(images, core.Image{ID: id})
	}
	return images
}

func check(t *testing.T, j *Journal, id core.ImageID, used, seen, unused float64) {
	t.Helper()
	want := core.Past{Seen: at(seen), Unused: at(unused)}
	if used != never {
		want.Used = at(used)
	}
	if got := j.Past()[id]; !got.Used.Equal(want.Used) || !got.Seen.Equal(want.Seen) || !got.Unused.Equal(want.Unused) {
		t.Errorf("%s: %+v, want %+v", id, got, want)
	}
}

const never = -1e6

func TestWatch(t *testing.T) {
	var j Journal
	look := func(hours float64, s *core.Snapshot) { j.Note(Look{Snapshot: s, At: at(hours), From: at(0)}) }
	look(0, store(-5, named("a", "b"), "b"))
	check(t, &j, "a", never, -5, -5)
	check(t, &j, "b", 0, -5, 0)
	look(1, store(0.5, named("a", "b", "c"), "a"))
	check(t, &j, "a", 1, -5, 1)
	check(t, &j, "b", 1, -5, 1) // until some time before
	check(t, &j, "c", never, 1, 1)
	// Hours between two looks of a watch are no break: it would have seen what changes.
	look(9, store(8, named("a", "c")))
	check(t, &j, "a", 9, -5, 9)
	if _, known := j.Past()["b"]; known || len(j.Images) != 2 {
		t.Errorf("what is gone is known: %+v", j.Images)
	}
	look(10, store(10, named("a", "b", "c")))
	check(t, &j, "a", 9, -5, 9)
	check(t, &j, "b", never, 10, 10)
}

func TestBreak(t *testing.T) {
	start := func() *Journal {
		j := new(Journal)
		j.Note(Look{Snapshot: store(-5, named("a", "b"), "b"), At: at(0), From: at(0)})
		return j
	}
	j := start()
	j.Note(Look{Snapshot: store(-5, named("a", "b")), At: at(24), From: at(24)})
	check(t, j, "a", never, -5, -5) // nothing has come or gone
	check(t, j, "b", 24, -5, 24)
	j = start()
	j.Note(Look{Snapshot: store(20, named("a", "b")), At: at(24), From: at(24)})
	check(t, j, "a", never, -5, 20) // a container of it may have come and gone, until then
	check(t, j, "b", 24, -5, 24)
	j.Note(Look{Snapshot: store(20, named("a", "b")), At: at(25), From: at(24)})
	check(t, j, "a", never, -5, 20)
	j = start()
	unknown := store(0, named("a"))
	unknown.Changed = time.Time{}
	j.Note(Look{Snapshot: unknown, At: at(24), From: at(23)})
	check(t, j, "a", never, -5, 23)
	j = start()
	j.Note(Look{Snapshot: store(0.1, named("a")), At: at(0.2), From: at(0.2)})
	check(t, j, "a", never, -5, -5) // no longer than a watch may look away
	// The clock was set back: what is written down is worth nothing.
	j = start()
	j.Note(Look{Snapshot: store(-40, named("a")), At: at(-30), From: at(-30)})
	check(t, j, "a", never, -40, -40)
	// And forward again: the directory knows.
	j.Note(Look{Snapshot: store(20, named("a")), At: at(24), From: at(24)})
	check(t, j, "a", never, -40, 20)
	// A directory from the future.
	j = start()
	j.Note(Look{Snapshot: store(99, named("a")), At: at(24), From: at(24)})
	check(t, j, "a", never, -5, 24)
}

// What a used image was built on is used, and so is a list that holds it, and one that is mounted.
func TestUsedWithOthers(t *testing.T) {
	images := named("base", "mid", "top", "list", "mounted", "other")
	images[1].Parent, images[2].Parent = "base", "mid"
	images[3].Instances = []core.ImageID{"mid"}
	images[4].Layer.MountCount = 1
	images[0].Parent = "top" // damaged: a circle
	var j Journal
	j.Note(Look{Snapshot: store(0, images, "top", "gone"), At: at(1), From: at(1)})
	for _, id := range []core.ImageID{"base", "mid", "top", "list", "mounted"} {
		check(t, &j, id, 1, 0, 1)
	}
	check(t, &j, "other", never, 0, 0)
}

func TestMerge(t *testing.T) {
	mine := &Journal{Watched: at(2), Looked: at(9), Images: map[core.ImageID]Entry{"a": {Seen: at(1), Used: at(5)}, "b": {Seen: at(3)}}}
	mine.Merge(&Journal{Watched: at(1), Looked: at(8), Images: map[core.ImageID]Entry{
		"a": {Seen: at(4), Used: at(4)}, "b": {Seen: at(1), Used: at(7)}, "gone": {Seen: at(1)}}})
	check(t, mine, "a", 5, 4, 5)
	check(t, mine, "b", 7, 3, 7)
	if len(mine.Images) != 2 || !mine.Watched.Equal(at(2)) || !mine.Looked.Equal(at(9)) {
		t.Errorf("%+v", mine)
	}
}

// Whatever happens to a store and to whoever watches it, an image never seems unused since before its true
// last use.
func TestNeverEarlier(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 3))
		ids := []core.ImageID{"a", "b", "c"}
		there := map[core.ImageID]bool{}
		users := map[core.ImageID]int{}
		truth := map[core.ImageID]time.Time{}
		now, changed := noon, noon.Add(-time.Hour)
		var j Journal
		from := now
		watching := false
		look := func() {
			s := &core.Snapshot{Changed: changed}
			for _, id := range ids {
				if there[id] {
					s.Images = append(s.Images, core.Image{ID: id})
				}
				for range users[id] {
					s.Containers = append(s.Containers, core.Container{ImageID: id})
				}
			}
			l := Look{Snapshot: s, At: now, From: now}
			if watching {
				l.From = from
			}
			j.Note(l)
			for id, p := range j.Past() {
				if users[id] > 0 {
					truth[id] = now
				}
				if p.Unused.Before(truth[id]) || p.Unused.After(now) {
					t.Fatalf("seed %d: %s unused since %v, used at %v, now %v", seed, id, p.Unused, truth[id], now)
				}
			}
		}
		for range 40 {
			now = now.Add(time.Duration(r.IntN(7200)) * time.Second)
			for id, n := range users {
				if n > 0 {
					truth[id] = now
				}
			}
			id := ids[r.IntN(len(ids))]
			switch r.IntN(6) {
			case 0:
				if !there[id] {
					there[id], changed, truth[id] = true, now, now
				}
			case 1:
				if there[id] {
					users[id]++
					changed, truth[id] = now, now
				}
			case 2:
				if users[id] > 0 {
					users[id]--
					changed, truth[id] = now, now
				}
			case 3:
				if watching = !watching; watching {
					from = now
				}
			case 4, 5:
				look()
			}
			if watching {
				look() // it is told of changes
			}
		}
	}
}
