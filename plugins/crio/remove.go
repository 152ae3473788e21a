package crio

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// settling is how long a container may still be running after CRI-O said that it is stopped.
const settling = time.Second

// Remove has CRI-O remove stopped containers, then stopped pods with all that is in them. A
// container whose pod is removed too goes along with it. What runs again is refused with
// core.ErrStillInUse, a pod that was given further containers with core.ErrPlanStale. Of what CRI-O
// does not know the store's part is left to the core.
func (p *Plugin) Remove(ctx context.Context, _ core.StoreInfo, handles []core.Handle) []core.Outcome {
	outcomes := newOutcomes(handles)
	c, err := p.connect(ctx)
	if err != nil {
		for i := range outcomes {
			outcomes[i].Err = err
		}
		return outcomes
	}
	defer c.close()
	r := removing{Plugin: p, client: c}
	pods := make(map[core.ContainerID]int)
	for i, h := range handles {
		if parseRevision(h.Claim.Revision).kind == kindSandbox {
			pods[h.Container.ID] = i
		}
	}
	var first, then, along []int
	for i, h := range handles {
		rev := parseRevision(h.Claim.Revision)
		pod, goes := pods[rev.pod]
		switch {
		case rev.kind == kindSandbox:
			then = append(then, i)
		case rev.kind == kindContainer && goes && slices.Contains(handles[pod].Claim.TakesAlong, h.Container.ID):
			along = append(along, i)
		default:
			first = append(first, i)
		}
	}
	remove := func(i int) { outcomes[i] = r.remove(ctx, handles[i]) }
	r.sideBySide(first, remove)
	r.sideBySide(then, remove)
	var left []int
	for _, i := range along {
		pod := outcomes[pods[parseRevision(handles[i].Claim.Revision).pod]]
		switch {
		case pod.Err != nil:
			outcomes[i].Err = fmt.Errorf("it goes along with %s: %w", handles[i].Claim.Group, pod.Err)
		case slices.Contains(pod.Along, handles[i].Container.ID):
			outcomes[i].StorageRemoved = true
		default:
			left = append(left, i) // the pod was gone, or did not have it any more
		}
	}
	r.sideBySide(left, remove)
	return outcomes
}

// removing is one call of Remove.
type removing struct {
	*Plugin
	*client
}

func (r removing) sideBySide(which []int, f func(int)) {
	work := make(chan int)
	var wg sync.WaitGroup
	for range min(r.options.Parallel, len(which)) {
		wg.Go(func() {
			for i := range work {
				f(i)
			}
		})
	}
	for _, i := range which {
		work <- i
	}
	close(work)
	wg.Wait()
}

func (r removing) remove(ctx context.Context, h core.Handle) core.Outcome {
	o := core.Outcome{Container: h.Container.ID}
	switch parseRevision(h.Claim.Revision).kind {
	case kindContainer:
		o.StorageRemoved, o.Err = r.container(ctx, h.Container.ID)
	case kindSandbox:
		o.StorageRemoved, o.Along, o.Err = r.sandbox(ctx, h)
	case kindForgottenContainer:
		o.Err = r.forgotten(ctx, h, false)
	case kindForgottenSandbox:
		o.Err = r.forgotten(ctx, h, true)
	default:
		o.Err = errNotOurs
	}
	return o
}

// container removes one container. There is no such container: nothing is done, without error.
func (r removing) container(ctx context.Context, id core.ContainerID) (removed bool, err error) {
	state, known, err := r.settled(ctx, id)
	if err != nil || !known {
		return false, err
	}
	if state != cri.ContainerState_CONTAINER_EXITED {
		return false, fmt.Errorf("CRI-O has it as %s: %w", clip(state.String()), core.ErrStillInUse)
	}
	if err := r.removeContainer(ctx, id); err != nil {
		return false, fmt.Errorf("have CRI-O remove it: %w", plain(err))
	}
	return true, nil
}

func (r removing) removeContainer(ctx context.Context, id core.ContainerID) error {
	ctx, cancel := context.WithTimeout(ctx, r.options.RemoveTimeout)
	defer cancel()
	_, err := r.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: string(id)})
	return err
}

// settled asks for a container's state, until it is not live any more.
func (r removing) settled(ctx context.Context, id core.ContainerID) (state cri.ContainerState, known bool, err error) {
	end := time.Now().Add(settling)
	for {
		state, known, err = r.state(ctx, id)
		if err != nil || !known || state == cri.ContainerState_CONTAINER_EXITED || time.Now().After(end) {
			return state, known, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return state, known, ctx.Err()
		}
	}
}

func (r removing) state(ctx context.Context, id core.ContainerID) (state cri.ContainerState, known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	answer, err := r.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: string(id)})
	switch {
	case unknownID(err):
		return 0, false, nil
	case err != nil:
		return 0, false, r.failed("the state of container "+id.Short(), err)
	case answer.GetStatus().GetId() != string(id):
		return 0, false, fmt.Errorf("CRI-O at %s answered nonsense: asked about %s, it told of %.80q", r.client.socket, id.Short(), answer.GetStatus().GetId())
	}
	return answer.GetStatus().GetState(), true, nil
}

// sandbox removes a pod.
func (r removing) sandbox(ctx context.Context, h core.Handle) (removed bool, along []core.ContainerID, err error) {
	id := h.Container.ID
	ready, known, err := r.ready(ctx, id)
	if err != nil || !known {
		return false, nil, err
	}
	if ready {
		return false, nil, fmt.Errorf("the pod is not stopped: %w", core.ErrStillInUse)
	}
	members, err := r.members(ctx, r.options.Timeout, id)
	if err != nil {
		return false, nil, err
	}
	for _, m := range members {
		member := core.ContainerID(m.GetId())
		if !slices.Contains(h.Claim.TakesAlong, member) {
			return false, nil, fmt.Errorf("the pod has a container %s that it did not have before (%s): %w",
				clip(m.GetMetadata().GetName()), member.Short(), core.ErrPlanStale)
		}
		if m.GetState() != cri.ContainerState_CONTAINER_EXITED {
			state, known, err := r.settled(ctx, member)
			if err != nil {
				return false, nil, err
			}
			if known && state != cri.ContainerState_CONTAINER_EXITED {
				return false, nil, fmt.Errorf("CRI-O has the pod's container %s (%s) as %s: %w",
					clip(m.GetMetadata().GetName()), member.Short(), clip(state.String()), core.ErrStillInUse)
			}
		}
		along = append(along, member)
	}
	if err := r.removeSandbox(ctx, id); err != nil {
		return false, nil, fmt.Errorf("have CRI-O remove %s: %w", h.Claim.Group, plain(err))
	}
	return true, along, nil
}

func (r removing) removeSandbox(ctx context.Context, id core.ContainerID) error {
	ctx, cancel := context.WithTimeout(ctx, r.options.RemoveTimeout)
	defer cancel()
	_, err := r.runtime.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: string(id)})
	return err
}

// ready is whether a pod is anything but stopped.
func (r removing) ready(ctx context.Context, id core.ContainerID) (ready, known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.options.Timeout)
	defer cancel()
	answer, err := r.runtime.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: string(id)})
	switch {
	case unknownID(err):
		return false, false, nil
	case err != nil:
		return false, false, r.failed("the state of pod "+id.Short(), err)
	case answer.GetStatus().GetId() != string(id):
		return false, false, fmt.Errorf("CRI-O at %s answered nonsense: asked about pod %s, it told of %.80q", r.client.socket, id.Short(), answer.GetStatus().GetId())
	}
	return answer.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_NOTREADY, true, nil
}

// forgotten makes sure that CRI-O still does not know a container. The removal of an unknown one is
// a success in CRI-O, that of one which is being created is not (server/container_remove.go,
// server/sandbox_remove.go): so that is asked for.
func (r removing) forgotten(ctx context.Context, h core.Handle, sandbox bool) error {
	id := h.Container.ID
	var known bool
	var err error
	if sandbox {
		_, known, err = r.ready(ctx, id)
	} else {
		_, known, err = r.state(ctx, id)
	}
	if err != nil {
		return err
	}
	if known {
		return fmt.Errorf("CRI-O knows it again: %w", core.ErrPlanStale)
	}
	if sandbox {
		err = r.removeSandbox(ctx, id)
	} else {
		err = r.removeContainer(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("make sure that CRI-O does not know it: %w", plain(err))
	}
	if sandbox {
		return unmountShm(h.Container)
	}
	return nil
}
