package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containers/storage"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// RunPodSandbox makes a pod, with a process of its own where it needs one.
func (d *double) RunPodSandbox(ctx context.Context, r *cri.RunPodSandboxRequest) (*cri.RunPodSandboxResponse, error) {
	m := r.GetConfig().GetMetadata()
	if m.GetName() == "" || m.GetNamespace() == "" {
		return nil, errors.New("PodSandboxConfig.Metadata needs a name and a namespace")
	}
	id := newID()
	podName := strings.Join([]string{"k8s", m.Name, m.Namespace, m.Uid, fmt.Sprint(m.Attempt)}, "_")
	name := strings.Join([]string{"k8s", "POD", m.Name, m.Namespace, m.Uid, fmt.Sprint(m.Attempt)}, "_")
	if err := d.reserve(podName, id); err != nil {
		return nil, err
	}
	image, err := d.lookup(d.pause)
	if err != nil {
		d.release(podName)
		return nil, fmt.Errorf("creating pod sandbox with name %q: %w", podName, err)
	}
	labels := map[string]string{"io.kubernetes.container.name": "POD", "io.kubernetes.pod.name": m.Name,
		"io.kubernetes.pod.namespace": m.Namespace, "io.kubernetes.pod.uid": m.Uid}
	maps.Copy(labels, r.Config.Labels)
	options := r.Config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	p := &pod{metadata: m, labels: labels, annotations: r.Config.Annotations, namespaces: options,
		spoofed: d.dropInfra && options.GetPid() != cri.NamespaceMode_POD}
	c := &container{id: id, pod: id, name: name, sandbox: true, metadata: &cri.ContainerMetadata{}, image: d.pause, imageID: image.ID,
		logPath: filepath.Join(r.Config.LogDirectory, id+".log"), createdAt: time.Now().UnixNano(), labels: labels}
	if r.Config.LogDirectory == "" {
		c.logPath = ""
	}
	p.infra = c
	d.mu.Lock()
	d.pods[id] = p
	d.mu.Unlock()
	if err := d.startPod(ctx, p, podName); err != nil {
		d.discard(c)
		d.mu.Lock()
		delete(d.pods, id)
		d.mu.Unlock()
		d.release(podName)
		return nil, err
	}
	d.mu.Lock()
	p.created = true
	d.mu.Unlock()
	return &cri.RunPodSandboxResponse{PodSandboxId: id}, nil
}

func (d *double) startPod(ctx context.Context, p *pod, podName string) error {
	c, m := p.infra, p.metadata
	err := d.put(c, metadata{PodName: podName, PodID: c.id, ImageName: c.image, ImageID: c.imageID, ContainerName: c.name,
		MetadataName: m.Name, UID: m.Uid, Namespace: m.Namespace, Attempt: m.Attempt, Pod: true}, []string{c.name, podName})
	if err != nil {
		return err
	}
	if err := d.switches.wait(ctx, "creating"); err != nil {
		return err
	}
	shm := filepath.Join(c.runDir, "shm")
	if err := os.MkdirAll(shm, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("shm", shm, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=65536k"); err != nil {
		return fmt.Errorf("mount %s: %w", shm, err)
	}
	for path, text := range map[string]string{filepath.Join(c.dir, ".containerenv"): "", filepath.Join(c.runDir, "resolv.conf"): "",
		filepath.Join(c.runDir, "hostname"): "double\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	c.spec = newSpec(c, strings.Fields(d.pauseCommand), nil, "", shm)
	c.annotate(map[string]string{
		"io.kubernetes.container.name": "POD", "io.kubernetes.pod.name": m.Name, "io.kubernetes.pod.namespace": m.Namespace,
		"io.kubernetes.pod.uid": m.Uid, "pod-linux-overhead.crio.io": "null", "pod-linux-resources.crio.io": "null",
		prefix + "Annotations": quote(p.annotations), prefix + "CgroupParent": "", prefix + "ContainerName": c.name,
		prefix + "ContainerType": "sandbox", prefix + "HostName": "double", prefix + "HostNetwork": "true",
		prefix + "HostnamePath": filepath.Join(c.runDir, "hostname"), prefix + "KubeName": m.Name, prefix + "Labels": quote(p.labels),
		prefix + "Metadata": quote(m), prefix + "Name": podName, prefix + "Namespace": m.Namespace,
		prefix + "NamespaceOptions": quote(p.namespaces), prefix + "PortMappings": "[]", prefix + "PrivilegedRuntime": "false",
		prefix + "ResolvPath": filepath.Join(c.runDir, "resolv.conf"), prefix + "RuntimeHandler": "", prefix + "SandboxName": podName,
		prefix + "ShmPath": shm})
	if p.spoofed {
		c.spec.Annotations[spoofedAnnotation] = "true"
	}
	if err := c.saveSpec(); err != nil {
		return err
	}
	if err := d.create(c, p.spoofed); err != nil {
		return err
	}
	return d.start(c)
}

// spoofedAnnotation marks a pod without a process (pkg/annotations/v2, Spoofed).
const spoofedAnnotation = "spoofed.crio.io"

// StopPodSandbox stops the containers of a pod, with the call's deadline as their grace period
// (server/sandbox_stop_linux.go).
func (d *double) StopPodSandbox(ctx context.Context, r *cri.StopPodSandboxRequest) (*cri.StopPodSandboxResponse, error) {
	p, err := d.podOf(r.GetPodSandboxId())
	switch {
	case errors.Is(err, errEmptyID):
		return nil, err
	case errors.Is(err, errNotCreated):
		return nil, fmt.Errorf("StopPodSandbox failed as the sandbox is not created: %s", r.GetPodSandboxId())
	case p == nil: // not found
		return &cri.StopPodSandboxResponse{}, nil
	}
	p.stop.Lock()
	defer p.stop.Unlock()
	if d.isStopped(p) {
		return &cri.StopPodSandboxResponse{}, nil
	}
	all := timeoutOf(ctx)
	each := all - 1
	if all < 2 {
		each = all / 2
	}
	errs := make(chan error)
	members := d.members(p)
	for _, c := range members {
		go func() { errs <- d.stopContainer(ctx, c, each) }()
	}
	for range members {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return nil, fmt.Errorf("stop containers in parallel: %w", err)
	}
	if err := d.stopContainer(ctx, p.infra, all); err != nil {
		return nil, fmt.Errorf("failed to stop infra container for pod sandbox %s: %w", p.infra.id, err)
	}
	if err := unmountShm(p.infra); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(p.infra.dir, "shutdown"), nil, 0o600); err != nil {
		return nil, err
	}
	d.mu.Lock()
	p.stopped = true
	d.mu.Unlock()
	return &cri.StopPodSandboxResponse{}, nil
}

func (d *double) isStopped(p *pod) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return p.stopped
}

// timeoutOf is the grace period that a call's deadline leaves (server/utils.go,
// stopTimeoutFromContext).
func timeoutOf(ctx context.Context) int64 {
	if deadline, ok := ctx.Deadline(); ok {
		return time.Until(deadline).Milliseconds() / 1000
	}
	return 10
}

// unmountShm is lazy, as CRI-O's (internal/lib/sandbox/sandbox_linux.go).
func unmountShm(c *container) error {
	shm := filepath.Join(c.runDir, "shm")
	if err := unix.Unmount(shm, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unable to unmount %s: %w", shm, err)
	}
	return nil
}

// RemovePodSandbox removes a pod and what is in it, stopping it first where it runs.
func (d *double) RemovePodSandbox(ctx context.Context, r *cri.RemovePodSandboxRequest) (*cri.RemovePodSandboxResponse, error) {
	p, err := d.podOf(r.GetPodSandboxId())
	switch {
	case errors.Is(err, errEmptyID):
		return nil, err
	case errors.Is(err, errNotCreated):
		return nil, fmt.Errorf("sandbox %s is not yet created", r.GetPodSandboxId())
	case p == nil: // not found
		return &cri.RemovePodSandboxResponse{}, nil
	}
	for _, c := range d.members(p) {
		if err := d.removeInPod(ctx, p, c); err != nil {
			return nil, err
		}
	}
	if err := unmountShm(p.infra); err != nil {
		return nil, fmt.Errorf("unable to unmount SHM: %w", err)
	}
	if err := d.removeInPod(ctx, p, p.infra); err != nil {
		return nil, err
	}
	d.mu.Lock()
	delete(d.pods, p.infra.id)
	d.mu.Unlock()
	d.release(p.infra.spec.Annotations[prefix+"Name"])
	return &cri.RemovePodSandboxResponse{}, nil
}

// ListPodSandbox lists pods.
func (d *double) ListPodSandbox(_ context.Context, r *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	f := r.GetFilter()
	d.mu.Lock()
	defer d.mu.Unlock()
	list := &cri.ListPodSandboxResponse{}
	for id, p := range d.pods {
		if !p.created || !strings.HasPrefix(id, f.GetId()) || f.GetState() != nil && f.GetState().GetState() != p.state() ||
			!matches(p.labels, f.GetLabelSelector()) {
			continue
		}
		list.Items = append(list.Items, &cri.PodSandbox{Id: id, Metadata: p.metadata, State: p.state(), CreatedAt: p.infra.createdAt,
			Labels: p.labels, Annotations: p.annotations})
	}
	return list, nil
}

// state is ready until the pod is stopped, process or not (internal/lib/sandbox/sandbox.go, Ready).
// The caller holds d.mu.
func (p *pod) state() cri.PodSandboxState {
	if p.created && !p.stopped {
		return cri.PodSandboxState_SANDBOX_READY
	}
	return cri.PodSandboxState_SANDBOX_NOTREADY
}

func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// PodSandboxStatus tells of one pod.
func (d *double) PodSandboxStatus(_ context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	p, err := d.podOf(r.GetPodSandboxId())
	if err != nil {
		return nil, notFound("could not find pod %q: %v", r.GetPodSandboxId(), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := &cri.PodSandboxStatusResponse{Status: &cri.PodSandboxStatus{Id: p.infra.id, CreatedAt: p.infra.createdAt,
		Network: &cri.PodSandboxNetworkStatus{}, State: p.state(), Labels: p.labels, Annotations: p.annotations, Metadata: p.metadata}}
	if p.namespaces != nil {
		answer.Status.Linux = &cri.LinuxPodSandboxStatus{Namespaces: &cri.Namespace{Options: p.namespaces}}
	}
	if r.GetVerbose() {
		info := map[string]any{"runtimeSpec": p.infra.spec}
		if !p.spoofed {
			info["image"], info["pid"] = p.infra.image, p.infra.state.PID
		}
		answer.Info = map[string]string{"info": quote(info)}
	}
	return answer, nil
}

// discard takes back what an attempt left.
func (d *double) discard(c *container) {
	if c.runDir != "" && c.sandbox {
		if err := unmountShm(c); err != nil {
			return // nothing is deleted below a mount
		}
	}
	if err := d.store.DeleteContainer(c.id); err != nil && !errors.Is(err, storage.ErrNotAContainer) {
		fmt.Fprintf(os.Stderr, "criodouble: delete container %s: %v\n", c.id, err)
	}
}

func (d *double) release(name string) {
	d.mu.Lock()
	delete(d.names, name)
	d.mu.Unlock()
}

// given is the error of a caller that gave up.
func given(ctx context.Context) error { return status.FromContextError(ctx.Err()).Err() }
