package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/plugins/podman"
)

// subject is what a message is about.
type subject struct {
	kind string
	name string
	id   string
}

func imageSubject(i core.Image, name string) subject {
	if name == "" && len(i.Names) > 0 {
		name = i.Names[0]
	}
	return subject{"image", name, string(i.ID)}
}

func containerSubject(id core.ContainerID, name string) subject {
	return subject{"container", name, string(id)}
}

func (s subject) String() string {
	if s.name == "" || s.name == s.id {
		return s.kind + " " + short(s.id)
	}
	return fmt.Sprintf("%s %s (%s)", s.kind, plain(s.name), short(s.id))
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// groupWords is "in pod shop": Podman names the pod alone, CRI-O and Buildah say what it is.
func groupWords(group string, owners ...string) string {
	if len(owners) == 1 && owners[0] == podman.Name {
		group = "pod " + strings.TrimPrefix(group, "pod ")
	}
	return "in " + plain(group)
}

// plain makes a text from elsewhere, a command line say, fit for a terminal: one line without
// control characters.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// oneLine is plain without runs of spaces.
func oneLine(s string) string { return strings.Join(strings.Fields(plain(s)), " ") }

// cut shortens a text to n characters.
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// plural is "1 container", "2 containers".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// matchContainer finds the container that a reference means, as Podman does: a full ID, a name in
// the store's records, a unique ID prefix; then a name that only the owner knows. Errors:
// core.ErrContainerUnknown, *core.AmbiguousError.
func matchContainer(snapshot *core.Snapshot, displayNames func() map[core.ContainerID]string, reference string) (core.Container, error) {
	id, err := cstore.ResolveContainer(snapshot, reference)
	if errors.Is(err, core.ErrContainerUnknown) && reference != "" {
		var called []core.ContainerID
		for id, name := range displayNames() {
			if name == reference {
				called = append(called, id)
			}
		}
		switch len(called) {
		case 0:
		case 1:
			id, err = called[0], nil
		default:
			ambiguous := &core.AmbiguousError{Reference: reference}
			for _, id := range called {
				ambiguous.Candidates = append(ambiguous.Candidates, id.Short())
			}
			slices.Sort(ambiguous.Candidates)
			err = ambiguous
		}
	}
	if err != nil {
		return core.Container{}, err
	}
	c, ok := snapshot.Container(id)
	if !ok {
		return core.Container{}, core.ErrContainerUnknown
	}
	return c, nil
}

// displayNames asks the owners, once, what they call the containers.
func (m *machine) displayNames(ctx context.Context, snapshot *core.Snapshot) func() map[core.ContainerID]string {
	var names map[core.ContainerID]string
	return func() map[core.ContainerID]string {
		if names == nil {
			names = make(map[core.ContainerID]string)
			for id, h := range m.engine.Owners.Claim(ctx, snapshot.Store, snapshot.Containers) {
				names[id] = h.Claim.DisplayName
			}
		}
		return names
	}
}

// childrenFirst orders images so that each comes before what it is built on, and a manifest list
// before what it lists.
func childrenFirst(images []core.Image) []core.Image {
	depth := make(map[core.ImageID]int)
	byID := make(map[core.ImageID]core.Image)
	for _, i := range images {
		byID[i.ID] = i
	}
	// A parent is deeper than all that stand on it. Records that go round in a circle end the walk.
	var sink func(id core.ImageID, at int)
	sink = func(id core.ImageID, at int) {
		i, ok := byID[id]
		if !ok || at > len(images) || (at <= depth[id] && at > 0) {
			return
		}
		depth[id] = max(depth[id], at)
		sink(i.Parent, at+1)
		for _, instance := range i.Instances {
			sink(instance, at+1)
		}
	}
	for _, i := range images {
		sink(i.ID, 0)
	}
	ordered := slices.Clone(images)
	slices.SortStableFunc(ordered, func(a, b core.Image) int {
		return cmp.Or(cmp.Compare(depth[a.ID], depth[b.ID]), b.Created.Compare(a.Created))
	})
	return ordered
}
