package core

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Survey says of each container who owns it and whether it is in use. The answer has the
// containers' order.
func (e *Engine) Survey(ctx context.Context, snapshot *Snapshot, containers []Container) ([]Holder, error) {
	holdings := e.claim(ctx, snapshot.Store, containers)
	observations, err := e.observe(ctx, containers, nil)
	if err != nil {
		return nil, err
	}
	holders := make([]Holder, len(containers))
	for i, c := range containers {
		h := Holder{Container: c, Holding: holdings[c.ID], Observation: observations[c.Layer.ID]}
		h.Use, h.Reason = Judge(h.Holding, h.Observation)
		holders[i] = h
	}
	return holders, nil
}

// Plan gathers the facts and decides. It changes nothing. *StaleError where the request is for a
// revision that the plan does not have any more.
func (e *Engine) Plan(ctx context.Context, request Request) (*Plan, error) {
	facts, err := e.facts(ctx, func(*Snapshot) Request { return request })
	if err != nil {
		return nil, err
	}
	return decide(facts, request)
}

// Prune is what a prune is to take, and what it goes by beside the store.
type Prune struct {
	Policy Policy
	// Past is of the store's images, as far as their use was seen.
	Past map[ImageID]Past
	Now  time.Time
	// Revision, where set, is that of the plan that is meant.
	Revision string
}

// PlanPrune gathers the facts about all of the store, selects what the policy takes, and decides about that.
// It changes nothing. The blockers are what the selection keeps. ErrPlanStale as with Plan.
func (e *Engine) PlanPrune(ctx context.Context, p Prune) (*Plan, []Blocker, error) {
	facts, err := e.facts(ctx, everything)
	if err != nil {
		return nil, nil, err
	}
	selection := Select(facts, p.Past, p.Policy, p.Now)
	selection.Request.Revision = p.Revision
	plan, err := decide(facts, selection.Request)
	return plan, selection.Kept, err
}

// everything asks for all images and containers.
func everything(snapshot *Snapshot) Request {
	request := Request{NoPrune: true}
	for _, i := range snapshot.Images {
		request.Images = append(request.Images, ImageTarget{ID: i.ID})
	}
	for _, c := range snapshot.Containers {
		request.Containers = append(request.Containers, c.ID)
	}
	return request
}

func decide(facts Facts, request Request) (*Plan, error) {
	plan := Decide(facts, request)
	if request.Revision != "" && request.Revision != plan.Revision {
		return nil, &StaleError{Wanted: request.Revision, Now: plan.Revision}
	}
	return plan, nil
}

// facts are all that a decision about a request rests on.
func (e *Engine) facts(ctx context.Context, of func(*Snapshot) Request) (Facts, error) {
	snapshot, err := e.Store.Snapshot(ctx)
	if err != nil {
		return Facts{}, err
	}
	request := of(snapshot)
	var pins map[ImageID]Pin
	var wg sync.WaitGroup
	wg.Go(func() { pins = e.pins(ctx, snapshot, request) })
	facts, err := e.gather(ctx, snapshot, request)
	wg.Wait()
	if err != nil {
		return Facts{}, err
	}
	facts.Pins, facts.Protection = pins, e.Protection
	return facts, ctx.Err()
}

// gather asks the owners and the kernel about containers and layers.
func (e *Engine) gather(ctx context.Context, snapshot *Snapshot, request Request) (Facts, error) {
	facts := Facts{Snapshot: snapshot}
	facts.Holdings = e.claim(ctx, snapshot.Store, candidates(snapshot, request))
	d := newDecision(facts, request)
	wanted, layers := d.subjects(request)
	facts.Holdings = e.claimRest(ctx, snapshot.Store, wanted, facts.Holdings)
	var err error
	facts.Observations, err = e.observe(ctx, wanted, layers)
	return facts, err
}

// pins asks the owners about the images that the request may take: its own, and the dangling parents
// that may be pruned with them.
func (e *Engine) pins(ctx context.Context, snapshot *Snapshot, request Request) map[ImageID]Pin {
	var images []Image
	asked := make(map[ImageID]bool)
	for _, t := range request.Images {
		image, ok := snapshot.Image(t.ID)
		for ok && !asked[image.ID] {
			asked[image.ID] = true
			images = append(images, image)
			if image, ok = snapshot.Image(image.Parent); request.NoPrune || !image.Dangling() {
				break
			}
		}
	}
	if len(images) == 0 {
		return nil
	}
	return e.Owners.Pins(ctx, snapshot.Store, images, snapshot.Containers)
}

// candidates are the containers to ask the owners about. Only an owner knows which other images a
// container mounts as volumes, so the deletion of an image asks about all of them.
func candidates(snapshot *Snapshot, request Request) []Container {
	if len(request.Images) > 0 {
		return snapshot.Containers
	}
	var asked []Container
	for _, id := range request.Containers {
		if c, ok := snapshot.Container(id); ok {
			asked = append(asked, c)
		}
	}
	return asked
}

// subjects lists the containers that the request may touch, and the images' own layers, dangling
// parents included.
func (d *decision) subjects(request Request) ([]Container, []Layer) {
	var containers []Container
	seen := make(map[ContainerID]bool)
	add := func(more []Container) {
		for _, c := range more {
			if !seen[c.ID] {
				seen[c.ID] = true
				containers = append(containers, c)
			}
		}
	}
	var layers []Layer
	visited := make(map[ImageID]bool)
	for _, t := range request.Images {
		for id := t.ID; id != "" && !visited[id]; {
			visited[id] = true
			image, ok := d.index.image(id)
			if !ok {
				break
			}
			add(d.containersOf(id))
			layers = append(layers, image.layers()...)
			id = image.Parent
		}
	}
	for _, id := range request.Containers {
		if c, ok := d.index.container(id); ok {
			add(d.closure([]Container{c}))
		}
	}
	return containers, layers
}

// claim asks the owners, and sees to it that every container has a holding.
func (e *Engine) claim(ctx context.Context, store StoreInfo, containers []Container) map[ContainerID]Holding {
	if len(containers) == 0 {
		return map[ContainerID]Holding{}
	}
	return e.Owners.Claim(ctx, store, containers)
}

// claimRest asks about the containers that go along and that were not asked about yet. Their own
// company is that of the group that brought them in, so one more round is enough; a container
// without a holding stays undetermined.
func (e *Engine) claimRest(ctx context.Context, store StoreInfo, wanted []Container, known map[ContainerID]Holding) map[ContainerID]Holding {
	var rest []Container
	for _, c := range wanted {
		if _, ok := known[c.ID]; !ok {
			rest = append(rest, c)
		}
	}
	for id, h := range e.claim(ctx, store, rest) {
		known[id] = h
	}
	return known
}

// observe asks the kernel about the containers' layers and others, in one scan.
func (e *Engine) observe(ctx context.Context, containers []Container, layers []Layer) (map[LayerID]Observation, error) {
	for _, c := range containers {
		layers = append(layers, c.Layer)
	}
	if len(layers) == 0 {
		return map[LayerID]Observation{}, nil
	}
	seen, err := e.Kernel.Observe(ctx, layers)
	if err != nil {
		return nil, fmt.Errorf("look for processes and mounts of the store: %w", err)
	}
	return seen, nil
}
