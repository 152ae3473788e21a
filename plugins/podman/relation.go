package podman

import (
	"maps"
	"slices"
	"strings"

	"github.com/unmoor/unmoor/core"
)

// relations say which containers cannot stay without which others.
type relations struct {
	records map[core.ContainerID]record
	// dependents of a container: Podman refuses to remove it before them.
	dependents map[core.ContainerID][]core.ContainerID
	// members of a pod, the infra container included.
	members map[string][]core.ContainerID
}

func relate(records map[core.ContainerID]record) relations {
	r := relations{records: records, dependents: make(map[core.ContainerID][]core.ContainerID),
		members: make(map[string][]core.ContainerID)}
	for _, id := range slices.Sorted(maps.Keys(records)) {
		for _, d := range records[id].Dependencies {
			r.dependents[d] = append(r.dependents[d], id)
		}
		if pod := records[id].Pod; pod != "" {
			r.members[pod] = append(r.members[pod], id)
		}
	}
	return r
}

// company are the containers that go when this one does: those that need it, whether directly or
// not, and the whole pod with an infra container. Sorted, without the container itself.
func (r relations) company(of ...core.ContainerID) []core.ContainerID {
	seen := make(map[core.ContainerID]bool)
	queue := slices.Clone(of)
	for len(queue) > 0 {
		id := queue[0]
		queue = queue[1:]
		if seen[id] {
			continue
		}
		seen[id] = true
		queue = append(queue, r.dependents[id]...)
		if c := r.records[id]; c.IsInfra {
			queue = append(queue, r.members[c.Pod]...)
		}
	}
	if len(of) == 1 {
		delete(seen, of[0])
	}
	if len(seen) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(seen))
}

// users are the containers that mount a volume, with their company.
func (r relations) users(volume string) []core.ContainerID {
	var direct []core.ContainerID
	for id, c := range r.records {
		if slices.ContainsFunc(c.Mounts, func(m mount) bool { return m.Type == "volume" && m.Name == volume }) {
			direct = append(direct, id)
		}
	}
	all := r.company(direct...)
	if len(direct) == 1 {
		all = append(all, direct[0])
	}
	slices.Sort(all)
	return all
}

// revision is what a claim hands out and gets back: the container's present start, and what has to
// be removed in its stead.
type revision struct {
	incarnation string
	pod         string
	volume      string
	// lost is for a container of a list, whose storage may be gone.
	lost bool
}

const (
	revisionPod    = "pod "
	revisionVolume = "volume "
	revisionLost   = "lost"
)

func (r revision) String() string {
	switch {
	case r.lost:
		return revisionLost
	case r.volume != "":
		return revisionVolume + r.volume
	case r.pod != "":
		return revisionPod + r.pod + " " + r.incarnation
	}
	return r.incarnation
}

// parseRevision reads what String wrote; anything else comes out as an incarnation that matches no
// container.
func parseRevision(s string) revision {
	if s == revisionLost {
		return revision{lost: true}
	}
	if name, ok := strings.CutPrefix(s, revisionVolume); ok && name != "" {
		return revision{volume: name}
	}
	if rest, ok := strings.CutPrefix(s, revisionPod); ok {
		if pod, incarnation, ok := strings.Cut(rest, " "); ok && isID(pod) {
			return revision{pod: pod, incarnation: incarnation}
		}
	}
	return revision{incarnation: s}
}

// start is the incarnation without its state. Of what was never claimed here it is no container's.
func (r revision) start() string {
	_, start, ok := strings.Cut(r.incarnation, "/")
	if !ok {
		return r.incarnation
	}
	return start
}
