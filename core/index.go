package core

import "slices"

// index finds in a snapshot what belongs together. What it returns is not to be changed.
type index struct {
	snapshot   *Snapshot
	images     map[ImageID]int
	containers map[ContainerID]int
	// children are the images that were built on one, lists the manifest lists that hold it.
	children, lists map[ImageID][]ImageID
	// standing are the containers that need an image: its own, and those that mount it as a volume.
	standing map[ImageID][]Container
	// doubtful are the containers of which no one owner speaks.
	doubtful []Container
}

func newIndex(snapshot *Snapshot, holdings map[ContainerID]Holding) *index {
	x := &index{
		snapshot:   snapshot,
		images:     make(map[ImageID]int, len(snapshot.Images)),
		containers: make(map[ContainerID]int, len(snapshot.Containers)),
		children:   make(map[ImageID][]ImageID), lists: make(map[ImageID][]ImageID),
		standing: make(map[ImageID][]Container),
	}
	for n, i := range snapshot.Images {
		if _, twice := x.images[i.ID]; twice {
			continue
		}
		x.images[i.ID] = n
		if i.Parent != "" {
			x.children[i.Parent] = append(x.children[i.Parent], i.ID)
		}
		for _, id := range i.Instances {
			if id != i.ID && !slices.Contains(x.lists[id], i.ID) {
				x.lists[id] = append(x.lists[id], i.ID)
			}
		}
	}
	for n, c := range snapshot.Containers {
		if _, twice := x.containers[c.ID]; twice {
			continue
		}
		x.containers[c.ID] = n
		h := holdings[c.ID]
		needs := []ImageID{c.ImageID}
		for _, id := range h.Claim.ImageVolumes {
			if !slices.Contains(needs, id) {
				needs = append(needs, id)
			}
		}
		for _, id := range needs {
			x.standing[id] = append(x.standing[id], c)
		}
		if h.Kind != Owned && h.Kind != Unowned {
			x.doubtful = append(x.doubtful, c)
		}
	}
	return x
}

func (x *index) image(id ImageID) (Image, bool) {
	n, ok := x.images[id]
	if !ok {
		return Image{}, false
	}
	return x.snapshot.Images[n], true
}

func (x *index) container(id ContainerID) (Container, bool) {
	n, ok := x.containers[id]
	if !ok {
		return Container{}, false
	}
	return x.snapshot.Containers[n], true
}
