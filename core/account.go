package core

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Fate says what it takes to give something free. The zero value is FateNever.
type Fate int

// The fates, the worst one first.
const (
	// FateNever: it is protected or pinned, whose it is or whether it is used is not known, or it lies in
	// an additional store. No force removes it.
	FateNever Fate = iota
	// FateAfterStop: it is in use.
	FateAfterStop
	// FateNow: nothing uses it.
	FateNow
)

var fateWords = []string{"never", "after_stop", "now"}

func (f Fate) String() string               { return word(fateWords, int(f)) }
func (f Fate) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads one of never, after_stop, now; anything else is an error.
func (f *Fate) UnmarshalText(b []byte) error { return parse(fateWords, b, f, "fate") }

// Account says what a store's bytes are held by. Every byte is in one layer, and every layer counts once.
// Layers of images have the size that is recorded, uncompressed; containers that of their files on disk.
type Account struct {
	Store      StoreInfo          `json:"store"`
	Images     []ImageAccount     `json:"images"`
	Containers []ContainerAccount `json:"containers"`
	Layers     []LayerAccount     `json:"layers"`
	// OfImages, OfContainers and OfNothing are the parts of Total: OfNothing the layers that belong to
	// neither.
	OfImages     Sum `json:"ofImages"`
	OfContainers Sum `json:"ofContainers"`
	OfNothing    Sum `json:"ofNothing"`
	Total        Sum `json:"total"`
	// Owners are the parts of Total by those whose containers stand on the layers.
	Owners []OwnerAccount `json:"owners"`
	// ReadOnlyBytes lie in additional stores, and are no part of Total.
	ReadOnlyBytes int64 `json:"readOnlyBytes"`
}

// Sum is what some things come to. The bytes of the three fates are those of Bytes.
type Sum struct {
	Count int `json:"count"`
	// Active are images with containers, containers in use.
	Active    int   `json:"active"`
	Bytes     int64 `json:"bytes"`
	Now       int64 `json:"now"`
	AfterStop int64 `json:"afterStop"`
	Never     int64 `json:"never"`
	// Unmeasured is how many layers are not in the bytes, since their size is not known.
	Unmeasured int `json:"unmeasured"`
}

// ImageAccount is one image.
type ImageAccount struct {
	ID    ImageID  `json:"id"`
	Names []string `json:"names"`
	// UniqueBytes are those of its layers that no other image has, SharedBytes the rest.
	UniqueBytes int64 `json:"uniqueBytes"`
	SharedBytes int64 `json:"sharedBytes"`
	// Unmeasured is how many of its layers have no known size.
	Unmeasured int `json:"unmeasured"`
	Containers int `json:"containers"`
	// Owners are those whose containers stand on it, or on what is built on it; "none" is nobody.
	Owners   []string `json:"owners"`
	ReadOnly bool     `json:"readOnly"`
	Fate     Fate     `json:"fate"`
	// Because is what makes the fate, as far as it is about the image itself; Reason one clause.
	Because []Blocker `json:"because"`
	Reason  string    `json:"reason"`
}

// ContainerAccount is one container. Bytes are -1 where they could not be measured.
type ContainerAccount struct {
	ID      ContainerID `json:"id"`
	Name    string      `json:"name"`
	Image   ImageID     `json:"image"`
	Owners  []string    `json:"owners"`
	Group   string      `json:"group,omitempty"`
	State   State       `json:"state,omitempty"`
	Use     Use         `json:"use"`
	Bytes   int64       `json:"bytes"`
	Fate    Fate        `json:"fate"`
	Because []Blocker   `json:"because"`
	Reason  string      `json:"reason"`
}

// LayerAccount is one layer that is not a container's. Bytes are -1 where they are not known.
type LayerAccount struct {
	ID    LayerID `json:"id"`
	Bytes int64   `json:"bytes"`
	// Images are those that have it; of several, the layer is shared.
	Images   []ImageID `json:"images"`
	Owners   []string  `json:"owners"`
	ReadOnly bool      `json:"readOnly"`
	Fate     Fate      `json:"fate"`
}

// OwnerAccount is what the containers of some owners hold together, and nobody else's. Its count is that of
// the containers.
type OwnerAccount struct {
	// Owners are plugins; one with a question mark may be the owner, "none" is nobody. Empty is what no
	// container stands on.
	Owners []string `json:"owners"`
	Images int      `json:"images"`
	Sum
}

// add counts bytes of a fate.
func (s *Sum) add(bytes int64, fate Fate) {
	if bytes < 0 {
		s.Unmeasured++
		return
	}
	s.Bytes += bytes
	switch fate {
	case FateNow:
		s.Now += bytes
	case FateAfterStop:
		s.AfterStop += bytes
	case FateNever:
		fallthrough
	default:
		s.Never += bytes
	}
}

// Account gathers the facts about all of the store, and accounts for its bytes.
func (e *Engine) Account(ctx context.Context) (*Account, error) {
	facts, err := e.facts(ctx, everything)
	if err != nil {
		return nil, err
	}
	sizes, err := e.sizes(ctx, facts.Snapshot.Containers)
	if err != nil {
		return nil, err
	}
	return AccountFor(facts, sizes), nil
}

// sizes measures containers, a few at a time. What cannot be measured is left out.
func (e *Engine) sizes(ctx context.Context, containers []Container) (map[ContainerID]int64, error) {
	work := make(chan Container, len(containers))
	for _, c := range containers {
		work <- c
	}
	close(work)
	var mu sync.Mutex
	sizes := make(map[ContainerID]int64)
	var wg sync.WaitGroup
	for range min(measurers, len(containers)) {
		wg.Go(func() {
			for c := range work {
				if bytes, err := e.Store.ContainerSize(ctx, c); err == nil {
					mu.Lock()
					sizes[c.ID] = bytes
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return sizes, ctx.Err()
}

// Estimate is how many bytes a plan's unblocked removals would give free, the containers measured. atLeast is
// whether something that goes could not be measured.
func (e *Engine) Estimate(ctx context.Context, plan *Plan) (bytes int64, atLeast bool) {
	bytes = plan.ReclaimableBytes
	var containers []Container
	for _, r := range plan.Removals {
		if r.Blocked() {
			continue
		}
		for _, a := range r.Actions {
			switch a.Verb {
			case VerbRemove, VerbDeleteContainer:
				if c, there := plan.facts.Snapshot.Container(a.Container); there {
					containers = append(containers, c)
				}
			case VerbDeleteImage:
				image, _ := plan.facts.Snapshot.Image(a.Image)
				for _, size := range image.LayerSizes {
					atLeast = atLeast || size < 0
				}
			case VerbStop, VerbKill, VerbUnmount, VerbUntag:
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, estimateTime)
	defer cancel()
	sizes, err := e.sizes(ctx, containers)
	for _, size := range sizes {
		bytes += size
	}
	return bytes, atLeast || err != nil || len(sizes) < len(containers)
}

// estimateTime is how long an estimate may take: somebody waits for it, and it is no more than that.
const estimateTime = 10 * time.Second

// AccountFor is pure: what the facts about a whole store, and the sizes of containers, come to.
func AccountFor(facts Facts, sizes map[ContainerID]int64) *Account {
	k := &clerk{decision: newDecision(facts, Request{}), images: make(map[ImageID]*ImageAccount),
		containers: make(map[ContainerID]*ContainerAccount), parts: make(map[string]*OwnerAccount)}
	a := &k.account
	a.Store = facts.Snapshot.Store
	a.Images, a.Containers, a.Layers = []ImageAccount{}, []ContainerAccount{}, []LayerAccount{}
	for _, c := range facts.Snapshot.Containers {
		one := *k.container(c)
		one.Bytes = -1
		if bytes, known := sizes[c.ID]; known {
			one.Bytes = bytes
		}
		a.Containers = append(a.Containers, one)
		part := k.part(one.Owners)
		for _, sum := range []*Sum{&a.OfContainers, &a.Total, &part.Sum} {
			sum.Count++
			if one.Use == UseInUse {
				sum.Active++
			}
			sum.add(one.Bytes, one.Fate)
		}
	}
	of := make(map[LayerID][]ImageID)
	for _, i := range facts.Snapshot.Images {
		for id := range i.LayerSizes {
			of[id] = append(of[id], i.ID)
		}
	}
	for _, i := range facts.Snapshot.Images {
		one := *k.image(i)
		for id, bytes := range i.LayerSizes {
			switch {
			case bytes < 0:
				one.Unmeasured++
			case len(of[id]) == 1:
				one.UniqueBytes += bytes
			default:
				one.SharedBytes += bytes
			}
		}
		a.Images = append(a.Images, one)
		a.OfImages.Count++
		a.Total.Count++
		if one.Containers > 0 {
			a.OfImages.Active++
		}
		k.part(one.Owners).Images++
	}
	k.layers(of)
	for _, key := range slices.Sorted(maps.Keys(k.parts)) {
		a.Owners = append(a.Owners, *k.parts[key])
	}
	slices.SortStableFunc(a.Owners, func(x, y OwnerAccount) int { return cmp.Compare(y.Bytes, x.Bytes) })
	return a
}

// clerk is the state of one AccountFor.
type clerk struct {
	*decision
	account    Account
	images     map[ImageID]*ImageAccount
	containers map[ContainerID]*ContainerAccount
	parts      map[string]*OwnerAccount
}

// part is that of some owners.
func (k *clerk) part(owners []string) *OwnerAccount {
	key := fmt.Sprintf("%q", owners)
	if k.parts[key] == nil {
		k.parts[key] = &OwnerAccount{Owners: append([]string{}, owners...)}
	}
	return k.parts[key]
}

// layers accounts for the layers that are not containers'. of are the images that have each.
func (k *clerk) layers(of map[LayerID][]ImageID) {
	a := &k.account
	ofContainer := make(map[LayerID]bool)
	for _, c := range k.facts.Snapshot.Containers {
		ofContainer[c.LayerID] = true
	}
	for _, l := range k.facts.Snapshot.Layers {
		if ofContainer[l.ID] {
			continue
		}
		one := LayerAccount{ID: l.ID, Bytes: l.Bytes, Images: append([]ImageID{}, of[l.ID]...), Owners: []string{}, ReadOnly: l.ReadOnly}
		sum := &a.OfNothing
		switch {
		case len(one.Images) > 0:
			sum, one.Fate = &a.OfImages, FateNow
		case !l.ReadOnly:
			sum.Count++
		}
		for _, id := range one.Images {
			one.Fate = min(one.Fate, k.images[id].Fate)
			one.Owners = append(one.Owners, k.images[id].Owners...)
		}
		slices.Sort(one.Owners)
		one.Owners = slices.Compact(one.Owners)
		if l.ReadOnly {
			one.Fate = FateNever
			a.ReadOnlyBytes += max(l.Bytes, 0)
		} else {
			sum.add(one.Bytes, one.Fate)
			a.Total.add(one.Bytes, one.Fate)
			k.part(one.Owners).add(one.Bytes, one.Fate)
		}
		a.Layers = append(a.Layers, one)
	}
}

// container finds out a container's fate: the worst of its own and of what goes along.
func (k *clerk) container(c Container) *ContainerAccount {
	if one := k.containers[c.ID]; one != nil {
		return one
	}
	h, o := k.holding(c.ID), k.observation(c.Layer)
	one := &ContainerAccount{ID: c.ID, Name: displayName(c, h), Image: c.ImageID, Owners: owners(h), Group: h.Claim.Group,
		State: h.Claim.State, Fate: FateNow, Because: []Blocker{}}
	one.Use, one.Reason = Judge(h, o)
	for _, along := range k.closure([]Container{c}) {
		of := k.holding(along.ID)
		for _, b := range append(k.guard(along, of), obstacles(along, of, k.observation(along.Layer))...) {
			if b.LiftedBy == ForceIdle && along.ID != c.ID {
				continue
			}
			one.Because = append(one.Because, b)
			if f := b.fate(); f < one.Fate {
				one.Fate, one.Reason = f, b.Detail
				if along.ID != c.ID {
					one.Reason = "container " + label(b.Name, string(along.ID)) + " goes along: " + b.Detail
				}
			}
		}
	}
	k.containers[c.ID] = one
	return one
}

// image finds out an image's fate: the worst of its own, of its containers, of the images that are built on
// it, and of the lists that hold it.
func (k *clerk) image(i Image) *ImageAccount {
	if one := k.images[i.ID]; one != nil {
		return one
	}
	one := &ImageAccount{ID: i.ID, Names: append([]string{}, i.Names...), ReadOnly: i.ReadOnly, Owners: []string{}, Because: []Blocker{}}
	k.images[i.ID] = one // what stands on itself is damaged: it is kept, and not gone round for ever
	fate := FateNow
	worse := func(f Fate, reason string) {
		if f < fate {
			fate, one.Reason = f, reason
		}
	}
	one.Because = append(one.Because, k.shields(i)...)
	if i.ReadOnly {
		one.Because = append(one.Because, Blocker{Reason: ReasonReadOnlyStore, Detail: "it lies in an additional image store"})
	}
	containers := k.containersOf(i.ID)
	one.Containers = len(containers)
	one.Because = append(one.Because, k.mounted(i, containers)...)
	one.Because = append(one.Because, k.silent(containers)...)
	for n := range one.Because {
		if one.Because[n].Container == "" {
			one.Because[n].Image, one.Because[n].Name = i.ID, first(i.Names)
		}
		worse(one.Because[n].fate(), one.Because[n].Detail)
	}
	for _, c := range containers {
		of := k.container(c)
		worse(of.Fate, "container "+label(of.Name, string(c.ID))+": "+of.Reason)
		one.Owners = append(one.Owners, of.Owners...)
	}
	for _, id := range append(k.children(i.ID), k.alive(k.index.lists[i.ID])...) {
		other, there := k.index.image(id)
		if !there {
			continue
		}
		of := k.image(other)
		worse(of.Fate, "image "+k.imageName(id)+" needs it: "+of.Reason)
		one.Owners = append(one.Owners, of.Owners...)
	}
	if one.Fate = fate; fate == FateNow {
		one.Reason = "nothing uses it"
	}
	slices.Sort(one.Owners)
	one.Owners = slices.Compact(one.Owners)
	return one
}

// fate is that of what has the blocker.
func (b Blocker) fate() Fate {
	switch b.Reason {
	case ReasonHasContainer:
		return FateNow
	case ReasonInUse, ReasonImageMounted:
		return FateAfterStop
	case ReasonUnknownUse, ReasonContested, ReasonOwnerUnavailable, ReasonOwnerGarbage, ReasonReadOnlyStore, ReasonProtected,
		ReasonChildImage, ReasonInManifest, ReasonSeveralNames:
	}
	return FateNever
}

// owners are those of a holding as an account calls them.
func owners(h Holding) []string {
	switch h.Kind {
	case Owned, Contested:
		return append([]string{}, h.Owners...)
	case Unowned:
		return []string{"none"}
	case Undetermined:
	}
	doubtful := []string{}
	for _, o := range h.Owners {
		doubtful = append(doubtful, o+"?")
	}
	if len(doubtful) == 0 {
		doubtful = append(doubtful, "?")
	}
	return doubtful
}
