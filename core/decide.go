package core

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// Facts is all that a decision rests on. A container without a holding is undetermined, a layer
// without an observation unknown, and so is whether an image without a pin is pinned; all are kept.
type Facts struct {
	Snapshot     *Snapshot
	Holdings     map[ContainerID]Holding
	Observations map[LayerID]Observation
	Pins         map[ImageID]Pin
	Protection   Protection
}

// Decide makes the plan for a request. It is pure: the same facts and request give the same plan.
// The images of the request are decided one after the other, each as if the unblocked ones before
// it were gone already.
func Decide(facts Facts, request Request) *Plan {
	d := newDecision(facts, request)
	plan := &Plan{Force: request.Force, request: request, facts: facts}
	for _, t := range request.Images {
		plan.Removals = append(plan.Removals, d.image(t))
	}
	for _, id := range request.Containers {
		plan.Removals = append(plan.Removals, d.container(id))
	}
	plan.ReclaimableBytes = d.reclaimable()
	plan.Revision = d.revision(plan)
	return plan
}

// decision is the state of one Decide: what the removals so far will have taken away.
type decision struct {
	facts   Facts
	request Request
	index   *index

	goneImages     map[ImageID]bool
	goneNames      map[string]bool
	goneContainers map[ContainerID]bool
	involved       map[ContainerID]bool
}

func newDecision(facts Facts, request Request) *decision {
	return &decision{
		facts: facts, request: request, index: newIndex(facts.Snapshot, facts.Holdings),
		goneImages:     make(map[ImageID]bool),
		goneNames:      make(map[string]bool),
		goneContainers: make(map[ContainerID]bool),
		involved:       make(map[ContainerID]bool),
	}
}

func (d *decision) holding(id ContainerID) Holding { return d.facts.Holdings[id] }

func (d *decision) observation(l Layer) Observation { return d.facts.Observations[l.ID] }

// image decides about one image.
func (d *decision) image(t ImageTarget) Removal {
	r := Removal{Image: t.ID, Reference: t.Reference}
	image, ok := d.index.image(t.ID)
	if !ok || d.goneImages[t.ID] {
		r.Notes = append(r.Notes, "already removed by this request")
		return r
	}
	if t.Parent {
		if r.Actions = d.prune(Image{Parent: t.ID}); len(r.Actions) == 0 {
			r.Notes = append(r.Notes, "the image stays: something needs it again")
		}
		return r
	}
	names := d.names(image)
	if t.Name != "" && !slices.Contains(names, t.Name) {
		r.Notes = append(r.Notes, "already untagged by this request")
		return r
	}
	block := func(b Blocker) {
		if b.Image == "" && b.Container == "" {
			b.Image, b.Name = image.ID, first(names)
		}
		if b.LiftedBy == ForceNone || b.LiftedBy > d.request.Force {
			r.Blockers = append(r.Blockers, b)
		}
	}
	for _, b := range d.shields(image) {
		block(b)
	}
	if image.ReadOnly {
		block(Blocker{Reason: ReasonReadOnlyStore, Detail: "it lies in an additional image store, which is read-only",
			Advice: "remove it in the store that it comes from"})
		return r
	}
	children := d.children(image.ID)
	byName := t.Name != "" && !t.All
	if byName && (len(names) > 1 || len(children) > 0) {
		r.Actions = append(r.Actions, Action{Verb: VerbUntag, Image: image.ID, Name: t.Name})
		if r.Blocked() {
			return r
		}
		if len(names) > 1 {
			r.Notes = append(r.Notes, fmt.Sprintf("the image stays under %s", list(without(names, t.Name))))
		} else {
			r.Notes = append(r.Notes, "the image stays without a name: "+d.builtOn(children))
		}
		d.goneNames[t.Name] = true
		return r
	}
	if !t.All && len(names) > 1 {
		block(Blocker{Reason: ReasonSeveralNames, LiftedBy: ForceIdle,
			Detail: fmt.Sprintf("it has %d names: %s", len(names), list(names))})
	}
	if len(children) > 0 {
		block(Blocker{Reason: ReasonChildImage, Detail: d.builtOn(children),
			Advice: "remove the images that are built on it first"})
	}
	if lists := d.alive(d.index.lists[image.ID]); len(lists) > 0 {
		block(Blocker{Reason: ReasonInManifest, LiftedBy: ForceIdle,
			Detail: "the manifest list " + d.imageName(lists[0]) + " holds it"})
	}
	containers := d.containersOf(image.ID)
	d.containers(&r, containers, image.ID, block)
	for _, b := range append(d.mounted(image, containers), d.silent(containers)...) {
		block(b)
	}
	for _, name := range names {
		r.Actions = append(r.Actions, Action{Verb: VerbUntag, Image: image.ID, Name: name})
	}
	r.Actions = append(r.Actions, Action{Verb: VerbDeleteImage, Image: image.ID, Name: first(names)})
	if r.Blocked() {
		return r
	}
	d.take(image, containers)
	if !d.request.NoPrune {
		r.Actions = append(r.Actions, d.prune(image)...)
	}
	return r
}

// container decides about one container that was asked for by itself: an idle one goes without
// force.
func (d *decision) container(id ContainerID) Removal {
	r := Removal{Container: id, Reference: string(id)}
	c, ok := d.index.container(id)
	if !ok || d.goneContainers[id] {
		r.Notes = append(r.Notes, "already removed by this request")
		return r
	}
	group := d.closure([]Container{c})
	d.containers(&r, group, "", func(b Blocker) {
		if b.Container == id && b.Reason == ReasonHasContainer {
			return
		}
		if b.Reason == ReasonHasContainer {
			b.Detail = "idle, and goes along with " + label(displayName(c, d.holding(id)), string(id))
		}
		if b.LiftedBy == ForceNone || b.LiftedBy > d.request.Force {
			r.Blockers = append(r.Blockers, b)
		}
	})
	if !r.Blocked() {
		for _, c := range group {
			d.goneContainers[c.ID] = true
		}
	}
	return r
}

// containers adds the actions that remove the containers, and reports what stands in the way.
// Stops come first, so that they can run side by side.
func (d *decision) containers(r *Removal, containers []Container, image ImageID, block func(Blocker)) {
	var end, remove []Action
	for _, c := range containers {
		d.involved[c.ID] = true
		h, o := d.holding(c.ID), d.observation(c.Layer)
		for _, b := range append(d.guard(c, h), obstacles(c, h, o)...) {
			block(b)
		}
		base := Action{Container: c.ID, Name: displayName(c, h), Owner: h.Owner(), Group: h.Claim.Group}
		if image != "" && c.ImageID != image {
			base.Detail = "mounts the image as a volume"
			if !slices.Contains(h.Claim.ImageVolumes, image) {
				base.Detail = "goes along"
			}
		}
		act := func(verb Verb) Action { a := base; a.Verb = verb; return a }
		if h.Kind == Owned && claimsUse(h.Claim) {
			end = append(end, act(VerbStop))
		}
		if kill := d.toKill(c.ID, h, o); len(kill) > 0 {
			a := act(VerbKill)
			a.Owner, a.Processes = "", kill
			end = append(end, a)
		}
		if h.Kind == Owned {
			remove = append(remove, act(VerbRemove))
			continue
		}
		if hasMount(o) {
			remove = append(remove, act(VerbUnmount))
		}
		remove = append(remove, act(VerbDeleteContainer))
	}
	r.Actions = append(r.Actions, end...)
	r.Actions = append(r.Actions, remove...)
}

// toKill lists the processes that use a container and that no engine would stop.
func (d *decision) toKill(id ContainerID, h Holding, o Observation) []Process {
	switch {
	case o.Use != UseInUse:
		return nil
	case h.Kind == Unowned:
		return Processes(o.Evidence)
	case h.Kind == Owned:
		return Processes(aliens(id, h, o))
	}
	return nil
}

func hasMount(o Observation) bool {
	return slices.ContainsFunc(o.Evidence, func(e Evidence) bool {
		return e.Kind == EvidenceMount || e.Kind == EvidenceForeignMount
	})
}

// containersOf lists the containers that must go before an image can: its own, those that mount it
// as a volume, and what these take along.
func (d *decision) containersOf(image ImageID) []Container {
	var of []Container
	for _, c := range d.index.standing[image] {
		if !d.goneContainers[c.ID] {
			of = append(of, c)
		}
	}
	return d.closure(of)
}

// closure adds the containers that the owners say go along.
func (d *decision) closure(containers []Container) []Container {
	seen := make(map[ContainerID]bool)
	for _, c := range containers {
		seen[c.ID] = true
	}
	for i := 0; i < len(containers); i++ {
		for _, id := range d.holding(containers[i].ID).Claim.TakesAlong {
			c, ok := d.index.container(id)
			if ok && !seen[id] && !d.goneContainers[id] {
				seen[id] = true
				containers = append(containers, c)
			}
		}
	}
	return containers
}

// mounted reports the use of an image's own layers, mounted to be read or as another container's
// volume. Processes of containers that go anyway do not count.
func (d *decision) mounted(image Image, containers []Container) []Blocker {
	going := make(map[int]bool)
	for _, c := range containers {
		for _, p := range Processes(d.holding(c.ID).Claim.Evidence) {
			going[p.PID] = true
		}
		for _, p := range Processes(d.observation(c.Layer).Evidence) {
			going[p.PID] = true
		}
	}
	var found []Blocker
	for _, layer := range image.layers() {
		o := d.observation(layer)
		b := Blocker{Reason: ReasonImageMounted, Evidence: o.Evidence, Detail: "the image itself is mounted"}
		switch o.Use {
		case UseIdle:
			if layer.MountCount == 0 && !hasMount(o) {
				continue
			}
			b.LiftedBy = ForceIdle
		case UseInUse:
			users := Processes(o.Evidence)
			if len(users) > 0 && !slices.ContainsFunc(users, func(p Process) bool { return !going[p.PID] }) {
				continue
			}
			b.Detail += " and in use"
			b.Advice = "end what uses the mount and unmount it (podman image unmount), then try again"
		case UseUnknown:
			b.Reason, b.Detail, b.Advice = ReasonUnknownUse, unseen(o), adviceFor(o)
		}
		found = append(found, b)
	}
	return found
}

// silent reports that an owner does not answer about containers of other images, which may mount
// this one as a volume; nothing but their owner knows.
func (d *decision) silent(containers []Container) []Blocker {
	asked := make(map[ContainerID]bool)
	for _, c := range containers {
		asked[c.ID] = true
	}
	var b Blocker
	n := 0
	for _, c := range d.index.doubtful {
		h := d.holding(c.ID)
		if asked[c.ID] || d.goneContainers[c.ID] {
			continue
		}
		if n++; n == 1 {
			b = Blocker{Reason: ReasonOwnerUnavailable, Owners: h.Owners, Advice: h.Advice, Detail: fmt.Sprintf(
				"whether container %s of another image mounts it as a volume is not known: %s",
				label(displayName(c, h), string(c.ID)), h.Reason)}
		}
	}
	switch {
	case n == 0:
		return nil
	case n > 1:
		b.Detail += fmt.Sprintf("; the same goes for %d more", n-1)
	}
	return []Blocker{b}
}

// take notes that an image and its containers are gone for the removals that follow.
func (d *decision) take(image Image, containers []Container) {
	d.goneImages[image.ID] = true
	for _, c := range containers {
		d.goneContainers[c.ID] = true
	}
}

// prune lists the deletions of dangling parents that nothing needs once image is gone.
func (d *decision) prune(image Image) []Action {
	var pruned []Action
	for image.Parent != "" {
		parent, ok := d.index.image(image.Parent)
		if !ok || d.goneImages[parent.ID] || parent.ReadOnly || len(d.names(parent)) > 0 ||
			len(d.children(parent.ID)) > 0 || len(d.containersOf(parent.ID)) > 0 ||
			len(d.alive(d.index.lists[parent.ID])) > 0 ||
			len(d.mounted(parent, nil)) > 0 || len(d.silent(nil)) > 0 || len(d.shields(parent)) > 0 {
			return pruned
		}
		pruned = append(pruned, Action{Verb: VerbDeleteImage, Image: parent.ID, Detail: "dangling parent"})
		d.goneImages[parent.ID] = true
		image = parent
	}
	return pruned
}

func (d *decision) names(image Image) []string {
	var names []string
	for _, n := range image.Names {
		if !d.goneNames[n] {
			names = append(names, n)
		}
	}
	return names
}

func (d *decision) children(id ImageID) []ImageID { return d.alive(d.index.children[id]) }

func (d *decision) alive(ids []ImageID) []ImageID {
	var alive []ImageID
	for _, id := range ids {
		if !d.goneImages[id] {
			alive = append(alive, id)
		}
	}
	return alive
}

func (d *decision) builtOn(children []ImageID) string {
	if len(children) == 1 {
		return "image " + d.imageName(children[0]) + " is built on it"
	}
	return fmt.Sprintf("%d images are built on it, %s among them", len(children), d.imageName(children[0]))
}

func (d *decision) imageName(id ImageID) string {
	image, _ := d.index.image(id)
	return label(first(image.Names), string(id))
}

// label is a name with the short ID behind it, or the short ID alone.
func label(name, id string) string {
	if name == "" {
		return short(id)
	}
	return name + " (" + short(id) + ")"
}

// reclaimable is the bytes of the layers that only images have which go.
func (d *decision) reclaimable() int64 {
	going, kept := make(map[LayerID]int64), make(map[LayerID]bool)
	for _, image := range d.facts.Snapshot.Images {
		for id, bytes := range image.LayerSizes {
			if d.goneImages[image.ID] {
				going[id] = max(bytes, 0)
			} else {
				kept[id] = true
			}
		}
	}
	var sum int64
	for id, bytes := range going {
		if !kept[id] {
			sum += bytes
		}
	}
	return sum
}

// revision is a digest of what the plan does, the processes that it kills among it, and of the facts
// that it would have to be made anew for: owners, their revisions, and what is in use. Which processes a
// container has is no such fact: a busy one's change all the time. Protection and pins are in it by what
// they block, and by the parents that they keep.
func (d *decision) revision(plan *Plan) string {
	type fact struct {
		ID       ContainerID
		Holding  HoldingKind
		Owners   []string
		State    State
		Use      Use
		Revision string
		Seen     Use
	}
	type place struct {
		Seen    Use
		Mounted bool
	}
	type step struct {
		Removal Removal
		Names   []string
		Layers  []place
	}
	state := struct {
		Force Force
		Steps []step
		Facts []fact
	}{Force: plan.Force}
	for _, r := range plan.Removals {
		image, _ := d.index.image(r.Image)
		r.Blockers = slices.Clone(r.Blockers)
		for i := range r.Blockers {
			// Times differ, and so does the number of processes.
			r.Blockers[i].Evidence, r.Blockers[i].Detail = nil, ""
		}
		r.Reference = "" // the same whatever it was called by
		s := step{Removal: r, Names: image.Names}
		for _, layer := range image.layers() {
			o := d.observation(layer)
			s.Layers = append(s.Layers, place{o.Use, layer.MountCount > 0 || hasMount(o)})
		}
		state.Steps = append(state.Steps, s)
	}
	for id := range d.involved {
		c, _ := d.index.container(id)
		h, o := d.holding(id), d.observation(c.Layer)
		f := fact{ID: id, Holding: h.Kind, Owners: h.Owners, State: h.Claim.State, Use: h.Claim.Use,
			Revision: h.Claim.Revision, Seen: o.Use}
		state.Facts = append(state.Facts, f)
	}
	slices.SortFunc(state.Facts, func(a, b fact) int { return cmp.Compare(a.ID, b.ID) })
	// Only strings, numbers and slices of them: Marshal has nothing to fail on.
	text, err := json.Marshal(state)
	if err != nil {
		panic(fmt.Sprintf("encode the facts of a plan: %v", err))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

func without(names []string, name string) []string {
	var rest []string
	for _, n := range names {
		if n != name {
			rest = append(rest, n)
		}
	}
	return rest
}
