package usage

import (
	"time"

	"github.com/unmoor/unmoor/core"
)

// Journal is what was seen of the use of a store's images. The zero value has seen nothing.
type Journal struct {
	// Watched is since when no use was missed; zero where nobody looked yet.
	Watched time.Time
	// Looked is when the store was looked at last.
	Looked time.Time
	Images map[core.ImageID]Entry
}

// Entry is what was seen of one image.
type Entry struct {
	// Seen is when it was seen first, Used when a use of it was seen last; zero where none was.
	Seen, Used time.Time
	// InUse is whether it was used at the last look.
	InUse bool
}

// MaxGap is how far two looks of a watch may lie apart.
const MaxGap = 15 * time.Minute

// grain is how far the times of files lag behind the clock, at most.
const grain = time.Second

// Look is one look at a store.
type Look struct {
	Snapshot *core.Snapshot
	// At is a moment before the snapshot was taken.
	At time.Time
	// From is since when whoever looks has been watching; At where it is a single look.
	From time.Time
	// Watching is whether that is a watch: then whatever changed before From was missed.
	Watching bool
}

// Note takes a look down.
func (j *Journal) Note(l Look) {
	first := j.Looked.IsZero() || l.At.Before(j.Looked.Add(-MaxGap))
	changed := l.Snapshot.Changed
	if changed.IsZero() || changed.After(l.At) {
		changed = l.At
	}
	switch {
	case first:
		// The clock was set back, or nobody looked before.
		*j = Journal{Watched: changed}
	case (l.Watching && l.From.After(j.Looked) || l.From.Sub(j.Looked) > MaxGap) && changed.After(j.Looked.Add(-grain)):
		j.Watched = later(j.Watched, earlier(changed, l.From))
	}
	j.Looked = later(j.Looked, l.At)
	used := inUse(l.Snapshot)
	images := make(map[core.ImageID]Entry, len(l.Snapshot.Images))
	for _, i := range l.Snapshot.Images {
		e, known := j.Images[i.ID]
		switch {
		case !known && first:
			e.Seen = changed
		case !known:
			e.Seen = l.At
		}
		if used[i.ID] || e.InUse { // which ended at some time between the two looks
			e.Used = later(e.Used, l.At)
		}
		e.InUse = used[i.ID]
		images[i.ID] = e
	}
	j.Images = images // What is gone from the store is forgotten.
}

// Merge adds what another watcher of the same store has seen; of two words the later one counts.
func (j *Journal) Merge(other *Journal) {
	j.Watched, j.Looked = later(j.Watched, other.Watched), later(j.Looked, other.Looked)
	for id, e := range other.Images {
		mine, known := j.Images[id]
		if known {
			j.Images[id] = Entry{Seen: later(mine.Seen, e.Seen), Used: later(mine.Used, e.Used), InUse: mine.InUse || e.InUse}
		}
	}
}

// Past is what is known of the images of the journal.
func (j *Journal) Past() map[core.ImageID]core.Past {
	past := make(map[core.ImageID]core.Past, len(j.Images))
	for id, e := range j.Images {
		past[id] = core.Past{Used: e.Used, Seen: e.Seen, Unused: later(j.Watched, later(e.Used, e.Seen))}
	}
	return past
}

// inUse are the images of a snapshot that are used, with what they were built on and the lists that hold
// them.
func inUse(s *core.Snapshot) map[core.ImageID]bool {
	images := make(map[core.ImageID]core.Image, len(s.Images))
	lists := make(map[core.ImageID][]core.ImageID)
	for _, i := range s.Images {
		images[i.ID] = i
		for _, id := range i.Instances {
			lists[id] = append(lists[id], i.ID)
		}
	}
	used := make(map[core.ImageID]bool)
	var use func(core.ImageID)
	use = func(id core.ImageID) {
		i, there := images[id]
		if !there || used[id] {
			return
		}
		used[id] = true
		use(i.Parent)
		for _, list := range lists[id] {
			use(list)
		}
	}
	for _, c := range s.Containers {
		use(c.ImageID)
	}
	for _, i := range s.Images {
		if i.Layer.MountCount > 0 {
			use(i.ID)
		}
	}
	return used
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
