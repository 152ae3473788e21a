package core

// Pin is an engine's answer about one image: whether the engine wants it kept, containers or not.
// What all the engines' answers come to is a Pin, too. The zero value is unknown, which keeps the
// image.
type Pin struct {
	Image  ImageID `json:"image"`
	Pinned Pinned  `json:"pinned"`
	// Owners are the plugins that pin the image, or that may and did not answer. Sorted; a plugin
	// leaves it empty.
	Owners []string `json:"owners,omitempty"`
	// Reason is one clause, "pinned by …" or why it is unknown; Advice what its operator can do.
	Reason string `json:"reason,omitempty"`
	Advice string `json:"advice,omitempty"`
	// Garbage is whether an engine did answer, but nonsense; a plugin leaves it false.
	Garbage bool `json:"garbage,omitempty"`
}

// blocker is what the pin has against a removal of its image, and whether it has anything.
func (p Pin) blocker() (Blocker, bool) {
	b := Blocker{Reason: ReasonOwnerUnavailable, Owners: p.Owners, Detail: p.Reason, Advice: p.Advice}
	switch p.Pinned {
	case PinnedNo:
		return Blocker{}, false
	case PinnedYes:
		b.Reason = ReasonProtected
		if b.Detail == "" {
			b.Detail = "pinned by " + list(p.Owners)
		}
	case PinnedUnknown:
		fallthrough
	default:
		if p.Garbage {
			b.Reason = ReasonOwnerGarbage
		}
		if b.Detail == "" {
			b.Detail, b.Advice = "whether an engine pins it is not known", "try again"
		}
	}
	return b, true
}
