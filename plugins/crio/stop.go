package crio

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// stops is how many stops CRI-O is asked for at once: more than a node has containers as a rule,
// since each of them does nothing but wait for the grace period.
const stops = 512

// The grace period of a pod's own process, which has nothing to save, and what CRI-O is given for
// the rest. CRI-O takes the whole seconds that are left of the call's deadline for the grace period.
const (
	leastSandboxGrace = time.Second
	mostSandboxGrace  = 4 * time.Second
	sandboxTidying    = 900 * time.Millisecond
)

// Stop stops containers and pods side by side. CRI-O counts whole seconds, so that the grace period
// is rounded up. The containers of a pod that is stopped are stopped first, with the same grace
// period. What CRI-O does not know is stopped.
func (p *Plugin) Stop(ctx context.Context, _ core.StoreInfo, handles []core.Handle, grace time.Duration) []core.Outcome {
	outcomes := newOutcomes(handles)
	c, err := p.connect(ctx)
	if err != nil {
		for i := range outcomes {
			outcomes[i].Err = err
		}
		return outcomes
	}
	defer c.close()
	seconds := int64((max(grace, 0) + time.Second - 1) / time.Second)
	w := &stopping{Plugin: p, client: c, grace: time.Duration(seconds) * time.Second,
		slots: make(chan struct{}, stops), done: make(map[core.ContainerID]func() error)}
	var wg sync.WaitGroup
	for i, h := range handles {
		wg.Go(func() { outcomes[i].Err = w.stop(ctx, h) })
	}
	wg.Wait()
	return outcomes
}

func newOutcomes(handles []core.Handle) []core.Outcome {
	outcomes := make([]core.Outcome, len(handles))
	for i, h := range handles {
		outcomes[i].Container = h.Container.ID
	}
	return outcomes
}

// errNotOurs is for a handle whose claim is not this plugin's.
var errNotOurs = fmt.Errorf("it was not claimed by this plugin: %w", core.ErrNotOwner)

// stopping is one call of Stop.
type stopping struct {
	*Plugin
	*client
	grace time.Duration
	slots chan struct{}

	mu sync.Mutex
	// done has one stop for each container, whoever asks for it.
	done map[core.ContainerID]func() error
}

func (w *stopping) stop(ctx context.Context, h core.Handle) error {
	switch parseRevision(h.Claim.Revision).kind {
	case kindContainer:
		return w.container(ctx, h.Container.ID)
	case kindSandbox:
		return w.sandbox(ctx, h)
	case kindForgottenContainer, kindForgottenSandbox:
		return nil // CRI-O has nothing to stop; the kernel says what runs there.
	}
	return errNotOurs
}

// call is one stop, under its own deadline.
func (w *stopping) call(ctx context.Context, most time.Duration, f func(context.Context) error) error {
	select {
	case w.slots <- struct{}{}:
		defer func() { <-w.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	return f(ctx)
}

// container stops one container, once.
func (w *stopping) container(ctx context.Context, id core.ContainerID) error {
	w.mu.Lock()
	stop := w.done[id]
	if stop == nil {
		stop = sync.OnceValue(func() error {
			err := w.call(ctx, w.grace+w.options.StopMargin, func(ctx context.Context) error {
				_, err := w.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: string(id), Timeout: int64(w.grace / time.Second)})
				return err
			})
			if err != nil {
				return fmt.Errorf("have CRI-O stop container %s: %w", id.Short(), plain(err))
			}
			return nil
		})
		w.done[id] = stop
	}
	w.mu.Unlock()
	return stop()
}

// sandbox stops the containers of a pod, then the pod.
func (w *stopping) sandbox(ctx context.Context, h core.Handle) error {
	id := h.Container.ID
	members, err := w.members(ctx, w.options.Timeout, id)
	if err != nil {
		return err
	}
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, member := range members {
		if member.GetState() != cri.ContainerState_CONTAINER_EXITED {
			wg.Go(func() { errs[i] = w.container(ctx, core.ContainerID(member.GetId())) })
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	stop := func(ctx context.Context) error {
		_, err := w.runtime.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: string(id)})
		return err
	}
	polite := min(max(w.grace, leastSandboxGrace), mostSandboxGrace) + sandboxTidying
	err = w.call(ctx, polite, stop)
	if status.Code(err) == codes.DeadlineExceeded && ctx.Err() == nil {
		// The pod's process ignored the signal and is killed by now, or the network is slow to go.
		err = w.call(ctx, w.options.StopMargin, stop)
	}
	if err != nil {
		return fmt.Errorf("have CRI-O stop %s: %w", h.Claim.Group, plain(err))
	}
	return nil
}

// members lists the containers of a pod as they are now.
func (c *client) members(ctx context.Context, most time.Duration, pod core.ContainerID) ([]*cri.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	r, err := c.runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{PodSandboxId: string(pod)}})
	if err != nil {
		return nil, c.failed("the containers of pod "+pod.Short(), err)
	}
	for _, m := range r.GetContainers() {
		if !fullID.MatchString(m.GetId()) || m.GetPodSandboxId() != string(pod) {
			return nil, fmt.Errorf("CRI-O at %s answered nonsense: it lists %.80q in pod %s", c.socket, m.GetId(), pod.Short())
		}
	}
	return r.GetContainers(), nil
}
