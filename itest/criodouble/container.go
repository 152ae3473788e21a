package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/containers/storage"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// CreateContainer makes a container in a pod, up to the point where its command would start.
func (d *double) CreateContainer(ctx context.Context, r *cri.CreateContainerRequest) (*cri.CreateContainerResponse, error) {
	p, err := d.podOf(r.GetPodSandboxId())
	if err != nil {
		return nil, fmt.Errorf("specified sandbox not found: %s: %w", r.GetPodSandboxId(), err)
	}
	if d.isStopped(p) {
		return nil, fmt.Errorf("CreateContainer failed as the sandbox was stopped: %s", p.infra.id)
	}
	config, m := r.GetConfig(), r.GetConfig().GetMetadata()
	if m.GetName() == "" {
		return nil, errors.New("ContainerConfig.Metadata.Name is empty")
	}
	image, err := d.lookup(config.GetImage().GetImage())
	if err != nil {
		return nil, err
	}
	pm := p.metadata
	name := strings.Join([]string{"k8s", m.Name, pm.Name, pm.Namespace, pm.Uid, fmt.Sprint(m.Attempt)}, "_")
	c := &container{id: newID(), pod: p.infra.id, name: name, metadata: m, labels: config.Labels, annotations: config.Annotations,
		image: config.Image.Image, imageID: image.ID, imageRef: digestOf(image, config.Image.Image), createdAt: time.Now().UnixNano()}
	if config.LogPath != "" {
		c.logPath = r.GetSandboxConfig().GetLogDirectory() + "/" + config.LogPath
	}
	if err := d.reserve(name, c.id); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.containers[c.id] = c
	d.mu.Unlock()
	if err := d.fill(ctx, p, c, config); err != nil {
		d.discard(c)
		d.mu.Lock()
		delete(d.containers, c.id)
		d.mu.Unlock()
		d.release(name)
		return nil, err
	}
	d.mu.Lock()
	c.created = true
	d.mu.Unlock()
	return &cri.CreateContainerResponse{ContainerId: c.id}, nil
}

func (d *double) fill(ctx context.Context, p *pod, c *container, config *cri.ContainerConfig) error {
	podName := p.infra.spec.Annotations[prefix+"Name"]
	err := d.put(c, metadata{PodName: podName, PodID: c.pod, ImageName: c.image, ImageID: c.imageID, ContainerName: c.name,
		MetadataName: c.metadata.Name, Attempt: c.metadata.Attempt}, []string{c.name})
	if err != nil {
		return err
	}
	if err := d.switches.wait(ctx, "creating"); err != nil {
		return err
	}
	args := append(append([]string{}, config.Command...), config.Args...)
	if len(args) == 0 {
		args = strings.Fields(d.pauseCommand)
	}
	var env []string
	for _, e := range config.Envs {
		env = append(env, e.Key+"="+string(e.Value))
	}
	c.spec = newSpec(c, args, env, config.WorkingDir, p.infra.spec.Annotations[prefix+"ShmPath"])
	c.annotate(map[string]string{prefix + "Annotations": quote(c.annotations), prefix + "ContainerType": "container",
		prefix + "ImageRef": c.imageID, prefix + "ImageRepoDigests": c.imageRef, prefix + "Labels": quote(c.labels),
		prefix + "Metadata": quote(c.metadata), prefix + "Name": c.name, prefix + "SandboxName": podName,
		prefix + "ResolvPath": p.infra.spec.Annotations[prefix+"ResolvPath"], prefix + "Stdin": boolean(config.Stdin),
		prefix + "StdinOnce": boolean(config.StdinOnce), prefix + "TTY": boolean(config.Tty), prefix + "Volumes": "[]",
		"platform-runtime-path.crio.io": ""})
	if err := c.saveSpec(); err != nil {
		return err
	}
	return d.create(c, false)
}

// create has the runtime create a container, or only says so where there is no process to be.
func (d *double) create(c *container, spoofed bool) error {
	c.state = state{Version: "1.2.0", ID: c.id, Status: created, Bundle: c.runDir, Annotations: c.spec.Annotations,
		Created: time.Unix(0, c.createdAt).UTC()}
	if !spoofed && d.runtime != "none" {
		if err := d.createProcess(c); err != nil {
			return fmt.Errorf("container create failed: %w", err)
		}
		own := os.Getpid()
		start, err := startTime(own)
		if err != nil {
			return err
		}
		d.mu.Lock()
		c.state.InitPID, c.state.InitStartTime, c.state.ContainerMonitor = c.process.pid, c.process.start, &monitor{own, start}
		if c.state.Status == created { // it may have ended by now
			c.state.PID = c.process.pid
		}
		d.mu.Unlock()
	}
	return d.saveState(c)
}

// StartContainer lets a created container run its command.
func (d *double) StartContainer(_ context.Context, r *cri.StartContainerRequest) (*cri.StartContainerResponse, error) {
	c, err := d.containerOf(r.GetContainerId())
	if err != nil {
		return nil, notFound("could not find container %q: %v", r.GetContainerId(), err)
	}
	c.op.Lock()
	defer c.op.Unlock()
	if status := d.statusOf(c); status != created {
		return nil, fmt.Errorf("container %s is not in created state: %s", c.id, status)
	}
	if err := d.start(c); err != nil {
		return nil, fmt.Errorf("failed to start container %s: %w", c.id, err)
	}
	return &cri.StartContainerResponse{}, nil
}

func (d *double) start(c *container) error {
	d.mu.Lock()
	p := c.process
	d.mu.Unlock()
	if p != nil {
		if err := d.runc(nil, "start", c.id); err != nil {
			return err
		}
	}
	d.mu.Lock()
	if c.state.Status == created { // it may have ended by now
		c.state.Status = running
	}
	c.state.Started = time.Now()
	d.mu.Unlock()
	return d.saveState(c)
}

func (d *double) statusOf(c *container) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return c.state.Status
}

// StopContainer stops a container; one that there is not is stopped.
func (d *double) StopContainer(ctx context.Context, r *cri.StopContainerRequest) (*cri.StopContainerResponse, error) {
	c, err := d.containerOf(r.GetContainerId())
	switch {
	case errors.Is(err, errNotExist):
		return &cri.StopContainerResponse{}, nil
	case err != nil:
		return nil, notFound("could not find container %q: %v", r.GetContainerId(), err)
	}
	if err := d.stopContainer(ctx, c, r.GetTimeout()); err != nil {
		return nil, err
	}
	return &cri.StopContainerResponse{}, nil
}

// stopContainer ends a container's process. One whose storage somebody else has deleted cannot be
// stopped: a real CRI-O answers DeadlineExceeded for good (measured, 1.37).
func (d *double) stopContainer(ctx context.Context, c *container, seconds int64) error {
	d.mu.Lock()
	status, p := c.state.Status, c.process
	d.mu.Unlock()
	if status == stopped {
		return nil
	}
	if _, err := d.store.Container(c.id); errors.Is(err, storage.ErrContainerUnknown) && p != nil {
		<-ctx.Done()
		return given(ctx)
	}
	if p == nil {
		d.mu.Lock()
		c.state.Status, c.state.Finished = stopped, time.Now()
		if !c.sandbox {
			zero := int32(0)
			c.state.ExitCode = &zero
		}
		d.mu.Unlock()
		d.unmount(c)
		return d.saveState(c)
	}
	d.endProcess(ctx, c, p, time.Duration(seconds)*time.Second)
	select {
	case <-p.ended:
		return nil
	default:
		return given(ctx)
	}
}

// RemoveContainer removes a container, stopping it first where it runs; one that there is not is
// removed.
func (d *double) RemoveContainer(ctx context.Context, r *cri.RemoveContainerRequest) (*cri.RemoveContainerResponse, error) {
	c, err := d.containerOf(r.GetContainerId())
	switch {
	case errors.Is(err, errNotExist):
		return &cri.RemoveContainerResponse{}, nil
	case err != nil:
		return nil, notFound("could not find container %q: %v", r.GetContainerId(), err)
	}
	d.mu.Lock()
	p := d.pods[c.pod]
	d.mu.Unlock()
	if err := d.removeInPod(ctx, p, c); err != nil {
		return nil, err
	}
	return &cri.RemoveContainerResponse{}, nil
}

// removeInPod removes one container (server/container_remove.go).
func (d *double) removeInPod(ctx context.Context, p *pod, c *container) error {
	if p != nil && !d.isStopped(p) {
		if err := d.stopContainer(ctx, c, timeoutOf(ctx)); err != nil {
			return fmt.Errorf("failed to stop container for removal %w", err)
		}
	}
	c.op.Lock()
	defer c.op.Unlock()
	if c.process != nil {
		if err := d.runc(nil, "delete", "--force", c.id); err != nil {
			return fmt.Errorf("failed to delete container %s in pod sandbox %s: %w", c.name, c.pod, err)
		}
	}
	err := d.store.DeleteContainer(c.id)
	if err != nil && !errors.Is(err, storage.ErrNotAContainer) && !errors.Is(err, storage.ErrContainerUnknown) {
		return fmt.Errorf("failed to delete container %s in pod sandbox %s: %w", c.name, c.pod, err)
	}
	d.mu.Lock()
	delete(d.containers, c.id)
	delete(d.names, c.name)
	d.mu.Unlock()
	return nil
}

// ListContainers lists containers; not the pods' own.
func (d *double) ListContainers(_ context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	f := r.GetFilter()
	d.mu.Lock()
	defer d.mu.Unlock()
	list := &cri.ListContainersResponse{}
	for id, c := range d.containers {
		if !c.created || !strings.HasPrefix(id, f.GetId()) || !strings.HasPrefix(c.pod, f.GetPodSandboxId()) ||
			f.GetState() != nil && f.GetState().GetState() != c.criState() || !matches(c.labels, f.GetLabelSelector()) {
			continue
		}
		list.Containers = append(list.Containers, &cri.Container{Id: id, PodSandboxId: c.pod, Metadata: c.metadata,
			Image: &cri.ImageSpec{Image: c.image}, ImageRef: c.imageRef, ImageId: c.imageID, State: c.criState(),
			CreatedAt: c.createdAt, Labels: c.labels, Annotations: c.annotations})
	}
	return list, nil
}

// criState is the caller's, who holds d.mu.
func (c *container) criState() cri.ContainerState {
	switch c.state.Status {
	case created:
		return cri.ContainerState_CONTAINER_CREATED
	case running:
		return cri.ContainerState_CONTAINER_RUNNING
	case stopped:
		return cri.ContainerState_CONTAINER_EXITED
	}
	return cri.ContainerState_CONTAINER_UNKNOWN
}

// ContainerStatus tells of one container.
func (d *double) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	c, err := d.containerOf(r.GetContainerId())
	if err != nil {
		return nil, notFound("could not find container %q: %v", r.GetContainerId(), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &cri.ContainerStatus{Id: c.id, Metadata: c.metadata, State: c.criState(), CreatedAt: c.createdAt,
		Image: &cri.ImageSpec{Image: c.image}, ImageRef: c.imageRef, ImageId: c.imageID, Labels: c.labels, Annotations: c.annotations,
		LogPath: c.logPath, Resources: &cri.ContainerResources{Linux: &cri.LinuxContainerResources{}},
		User: &cri.ContainerUser{Linux: &cri.LinuxContainerUser{SupplementalGroups: []int64{0}}}}
	if s.State == cri.ContainerState_CONTAINER_RUNNING || s.State == cri.ContainerState_CONTAINER_EXITED {
		s.StartedAt = c.state.Started.UnixNano()
	}
	if s.State == cri.ContainerState_CONTAINER_EXITED {
		s.FinishedAt, s.ExitCode, s.Reason = c.state.Finished.UnixNano(), -1, "Error"
		if c.state.ExitCode != nil {
			s.ExitCode = *c.state.ExitCode
		}
		if s.ExitCode == 0 {
			s.Reason = "Completed"
		}
	}
	answer := &cri.ContainerStatusResponse{Status: s}
	if r.GetVerbose() {
		answer.Info = map[string]string{"info": quote(map[string]any{"sandboxID": c.pod, "pid": c.state.InitPID, "runtimeSpec": c.spec,
			"privileged": false})}
	}
	return answer, nil
}
