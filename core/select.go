package core

import (
	"slices"
	"time"
)

// Selection is what a policy comes to.
type Selection struct {
	// Request removes all of it, and Decide finds nothing against that where the facts are the same.
	Request Request
	// Kept is what the policy means and something keeps, each with the first thing that does. What is in
	// use, or needed by what stays, is not among it.
	Kept []Blocker
}

// Select chooses what a policy takes. It is pure. Nothing is taken that is in use, or of which that is not
// known; nothing protected or pinned, mounted or in an additional store; no image that a container, another
// image or a manifest list needs which stays. A container goes where it is idle by its owner and the
// kernel, with all of its pod. An image of unknown past is kept from a policy that asks for it.
func Select(facts Facts, past map[ImageID]Past, policy Policy, now time.Time) Selection {
	s := &selection{
		decision: newDecision(facts, Request{Force: ForceIdle, NoPrune: true}),
		policy:   policy, past: past, now: now,
		chosen: make(map[ContainerID]bool),
	}
	s.chooseContainers()
	s.chooseImages()
	for _, c := range facts.Snapshot.Containers {
		if !s.chosen[c.ID] || s.goneContainers[c.ID] {
			continue // an image takes it along
		}
		if r := s.container(c.ID); r.Blocked() {
			s.kept = append(s.kept, r.Blockers[0])
			continue
		}
		s.request.Containers = append(s.request.Containers, c.ID)
	}
	return Selection{Request: s.request, Kept: s.kept}
}

// selection is the state of one Select. Its request is what was selected so far, and its decision takes that
// for gone.
type selection struct {
	*decision
	policy Policy
	past   map[ImageID]Past
	now    time.Time

	// chosen are the containers that go.
	chosen map[ContainerID]bool
	kept   []Blocker
}

// chooseContainers chooses those that go, by themselves or with an image.
func (s *selection) chooseContainers() {
	pods := make(map[[2]string][]ContainerID)
	for _, c := range s.facts.Snapshot.Containers {
		h, o := s.holding(c.ID), s.observation(c.Layer)
		if h.Claim.Group != "" {
			pods[[2]string{h.Owner(), h.Claim.Group}] = append(pods[[2]string{h.Owner(), h.Claim.Group}], c.ID)
		}
		if !s.policy.meansContainer(c, h, s.now) {
			continue
		}
		use, _ := Judge(h, o)
		if use == UseInUse {
			continue
		}
		against := append(s.guard(c, h), obstacles(c, h, o)...)
		if slices.ContainsFunc(o.Evidence, func(e Evidence) bool { return e.Kind == EvidenceForeignMount }) {
			b := about(c, h)
			b.Reason, b.Detail, b.Evidence = ReasonInUse, "something else is mounted in it", o.Evidence
			b.Advice = "unmount that, or remove the container by its name"
			against = append(against, b)
		}
		against = slices.DeleteFunc(against, func(b Blocker) bool { return b.LiftedBy == ForceIdle })
		if len(against) > 0 || use != UseIdle {
			s.keep(against)
			continue
		}
		s.chosen[c.ID] = true
	}
	for again := true; again; {
		again = false
		for id := range s.chosen {
			claim := s.holding(id).Claim
			company := claim.TakesAlong
			if claim.Group != "" {
				company = append(slices.Clone(company), pods[[2]string{s.holding(id).Owner(), claim.Group}]...)
			}
			if slices.ContainsFunc(company, s.stays) {
				delete(s.chosen, id)
				again = true
			}
		}
	}
}

// keep notes the first thing that keeps what the policy means.
func (s *selection) keep(against []Blocker) {
	if len(against) > 0 {
		s.kept = append(s.kept, against[0])
	}
}

// stays is whether a container is there and is not to go.
func (s *selection) stays(id ContainerID) bool {
	_, there := s.index.container(id)
	return there && !s.chosen[id] && !s.goneContainers[id]
}

// chooseImages chooses the images that go: those on which something stands once that is chosen.
func (s *selection) chooseImages() {
	newest := s.policy.newest(s.facts.Snapshot.Images)
	var open []Image
	for _, i := range s.facts.Snapshot.Images {
		if s.policy.meansImage(i, s.past[i.ID], s.now) && !newest[i.ID] {
			open = append(open, i)
		}
	}
	weights := weigh(s.facts.Snapshot.Images)
	if s.policy.Wanted > 0 {
		slices.SortStableFunc(open, s.byLastUse)
	}
	var freed int64
	for again := true; again; {
		again = false
		var rest []Image
		for _, i := range open {
			if s.needed(i) {
				rest = append(rest, i)
				continue
			}
			if !s.take(i) {
				continue
			}
			again = true
			bytes, known := weights.drop(i)
			freed += bytes
			if s.policy.Wanted > 0 && (freed >= s.policy.Wanted || !known) {
				return // what an image of unknown size gives free is to be seen first
			}
		}
		open = rest
	}
}

// byLastUse puts the image whose last use is the oldest first, and those of unknown past last.
func (s *selection) byLastUse(a, b Image) int {
	before, known := s.past[a.ID]
	after, alsoKnown := s.past[b.ID]
	switch {
	case known && alsoKnown:
		return before.last().Compare(after.last())
	case known:
		return -1
	case alsoKnown:
		return 1
	}
	return 0
}

// needed is whether something that stays, as far as it is chosen, needs an image.
func (s *selection) needed(i Image) bool {
	if len(s.children(i.ID)) > 0 || len(s.alive(s.index.lists[i.ID])) > 0 {
		return true
	}
	for _, id := range append(s.alive(i.Instances), i.ID) {
		if slices.ContainsFunc(s.containersOf(id), func(c Container) bool { return s.stays(c.ID) }) {
			return true
		}
	}
	return false
}

// take takes an image that nothing needs, unless something else is against it.
func (s *selection) take(i Image) bool {
	against := s.mounted(i, nil)
	past, known := s.past[i.ID]
	switch longEnough := max(s.policy.UnusedFor, s.policy.MinAge); {
	case s.policy.UnusedFor <= 0 && s.policy.Wanted <= 0:
	case !known:
		against = append(against, Blocker{Reason: ReasonUnknownUse, Detail: "when it was used last is not known",
			Advice: "the journal of use has to see it first: see unmoor serve"})
	case s.now.Sub(past.Unused) < longEnough:
		return false
	}
	for n := range against {
		against[n].Image, against[n].Name = i.ID, first(i.Names)
	}
	if len(against) > 0 {
		s.keep(against)
		return false
	}
	target := ImageTarget{ID: i.ID, All: true, Reference: first(i.Names)}
	if target.Reference == "" {
		target.Reference = i.ID.Short()
	}
	if r := s.image(target); r.Blocked() {
		s.keep(r.Blockers)
		return false
	}
	s.request.Images = append(s.request.Images, target)
	return true
}

// weights count the images that have a layer, so that it is known what a removal gives free.
type weights map[LayerID]int

func weigh(images []Image) weights {
	w := make(weights)
	for _, i := range images {
		for layer := range i.LayerSizes {
			w[layer]++
		}
	}
	return w
}

// drop takes an image away, and returns the bytes of the layers that no other image has, and whether the
// store knows them all.
func (w weights) drop(i Image) (bytes int64, known bool) {
	known = true
	for layer, size := range i.LayerSizes {
		if w[layer]--; w[layer] == 0 {
			bytes += max(size, 0)
			known = known && size >= 0
		}
	}
	return bytes, known
}
