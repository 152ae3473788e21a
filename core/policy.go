package core

import (
	"cmp"
	"path"
	"slices"
	"strings"
	"time"
)

// Policy says what a prune is to take. Whatever it says, what is in use, or may be, stays: see Select.
// The zero value takes nothing.
type Policy struct {
	// Images are those that are taken where no container needs them.
	Images Scope
	// Unowned takes containers that no engine owns. Stopped takes those of engines that are not running, a
	// pod whole or not at all. Leftovers takes those of Builders.
	Unowned, Stopped, Leftovers bool
	// Builders are engines whose containers have no state: one that nothing uses was left by a build, or
	// waits for the next command of somebody's script.
	Builders []string
	// MinAge is how long ago an image or a container must have come into the store, and an image's last
	// known use must be. What Unowned and Leftovers take must be as old as AbandonedAge besides.
	MinAge, AbandonedAge time.Duration
	// Until, where set, leaves out what was not created before it.
	Until time.Time
	// Labels, KEY or KEY=VALUE, must all be there, and none of NotLabels may be. In a key * stands for any
	// run of characters. What labels a thing has must be known.
	Labels, NotLabels []string
	// References leaves out images none of whose names fits one of the patterns.
	References []string
	// Owners leaves out containers that belong to none of these; "none" is nobody.
	Owners []string
	// Keep is how many images of each repository stay, the newest by their creation.
	Keep int
	// UnusedFor is how long images must be known not to have been used.
	UnusedFor time.Duration
	// Wanted, where it is above 0, is how many bytes are to become free: the images whose last use is
	// the oldest go, until there are as many.
	Wanted int64
}

// Scope says which images are meant.
type Scope int

// The scopes. A dangling image has no name, and none is built on it.
const (
	ScopeNone Scope = iota
	ScopeDangling
	ScopeNamed
	ScopeAll
)

// Past is what was seen of an image's use before now.
type Past struct {
	// Used is when a use of it was seen last; zero where none was.
	Used time.Time
	// Seen is when it was seen first.
	Seen time.Time
	// Unused is since when no use can have been missed.
	Unused time.Time
}

// last is when the image was used last, or came.
func (p Past) last() time.Time { return later(p.Used, p.Seen) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// meansImage is whether the policy means an image, by what the store and the past say of the image alone.
func (p Policy) meansImage(i Image, past Past, now time.Time) bool {
	switch {
	case i.ReadOnly:
		return false
	case p.Images == ScopeDangling && !i.Dangling(), p.Images == ScopeNamed && i.Dangling(), p.Images == ScopeNone:
		return false
	case len(p.Owners) > 0: // an image belongs to no engine
		return false
	case !p.Until.IsZero() && (i.Created.IsZero() || !i.Created.Before(p.Until)):
		return false
	case p.MinAge > 0 && (i.arrived().IsZero() || now.Sub(later(i.arrived(), past.Used)) < p.MinAge):
		return false
	case len(p.References) > 0 && !slices.ContainsFunc(i.Names, p.refers):
		return false
	}
	return p.labelled(i.Labels, i.LabelsKnown)
}

// arrived is when the image came into the store, as far as it is known. Stored is the top layer's, which a
// build may have found there, and Created what the image says itself.
func (i Image) arrived() time.Time { return later(i.Stored, i.Created) }

// meansContainer is whether the policy means a container, by what the store and its owner say of it. One
// whose owner does not answer is meant where anybody's is.
func (p Policy) meansContainer(c Container, h Holding, now time.Time) bool {
	taken, least := p.Stopped, p.MinAge
	switch owner := h.Owner(); {
	case h.Kind == Unowned:
		taken, least = p.Unowned, max(p.MinAge, p.AbandonedAge)
	case owner == "":
		taken = p.Unowned || p.Stopped || p.Leftovers
	case slices.Contains(p.Builders, owner):
		taken, least = p.Leftovers, max(p.MinAge, p.AbandonedAge)
	}
	switch {
	case !taken, c.Created.IsZero(), now.Sub(c.Created) < least:
		return false
	case !p.Until.IsZero() && !c.Created.Before(p.Until):
		return false
	case len(p.References) > 0: // a container is no image
		return false
	case len(p.Owners) > 0 && !slices.ContainsFunc(p.Owners, func(o string) bool {
		return slices.Contains(h.Owners, o) || o == "none" && h.Kind == Unowned
	}):
		return false
	}
	return p.labelled(h.Claim.Labels, h.Owner() != "")
}

// labelled is whether labels fit; those that are not known never do, where the policy speaks of any.
func (p Policy) labelled(labels map[string]string, known bool) bool {
	if len(p.Labels)+len(p.NotLabels) > 0 && !known {
		return false
	}
	has := func(label string) bool {
		key, want, _ := strings.Cut(label, "=")
		for k, value := range labels {
			if fits(key, k) && (want == "" || want == value) {
				return true
			}
		}
		return false
	}
	return !slices.ContainsFunc(p.Labels, func(l string) bool { return !has(l) }) && !slices.ContainsFunc(p.NotLabels, has)
}

// refers is whether a name fits one of the references, as in Podman (containers/common, libimage/filters.go,
// filterReferences): whole, without the registry, or its last part, each with and without tag or digest.
func (p Policy) refers(name string) bool {
	bare := repository(name)
	tag := strings.TrimPrefix(name, bare)
	shorter := bare
	if registry, rest, ok := strings.Cut(bare, "/"); ok && (strings.ContainsAny(registry, ".:") || registry == "localhost") {
		shorter = rest
	}
	for _, candidate := range []string{bare, shorter, path.Base(bare)} {
		for _, text := range []string{candidate, candidate + tag} {
			if slices.ContainsFunc(p.References, func(pattern string) bool {
				ok, err := path.Match(pattern, text)
				return err == nil && ok
			}) {
				return true
			}
		}
	}
	return false
}

// newest are the images that stay since they are the newest of a repository.
func (p Policy) newest(images []Image) map[ImageID]bool {
	stay := make(map[ImageID]bool)
	if p.Keep <= 0 {
		return stay
	}
	of := make(map[string][]Image)
	for _, i := range images {
		in := make(map[string]bool)
		for _, name := range i.Names {
			if repository := repository(name); !in[repository] {
				in[repository] = true
				of[repository] = append(of[repository], i)
			}
		}
	}
	for _, all := range of {
		slices.SortFunc(all, func(a, b Image) int {
			return cmp.Or(b.Created.Compare(a.Created), b.Stored.Compare(a.Stored), cmp.Compare(a.ID, b.ID))
		})
		for _, i := range all[:min(p.Keep, len(all))] {
			stay[i.ID] = true
		}
	}
	return stay
}
