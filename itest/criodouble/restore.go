package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containers/storage"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// restore finds what an earlier run made. What it cannot read it leaves alone and does not list.
func (d *double) restore() error {
	records, err := d.store.Containers()
	if err != nil {
		return err
	}
	for _, r := range records {
		var m metadata
		if json.Unmarshal([]byte(r.Metadata), &m) != nil || m.PodName == "" || m.PodID == "" {
			continue // not CRI-O's (internal/storage/utils.go, IsCrioContainer)
		}
		c, err := d.restoreContainer(r, m)
		if err != nil {
			fmt.Fprintf(os.Stderr, "criodouble: restore container %s: %v\n", r.ID, err)
			continue
		}
		if !c.sandbox {
			d.containers[c.id], d.names[c.name] = c, true
			continue
		}
		a := c.spec.Annotations
		p := &pod{metadata: new(cri.PodSandboxMetadata), infra: c, spoofed: a[spoofedAnnotation] == "true", created: true, labels: c.labels}
		_, err = os.Stat(filepath.Join(c.dir, "shutdown"))
		p.stopped = err == nil
		for key, into := range map[string]any{"Metadata": p.metadata, "Annotations": &p.annotations, "NamespaceOptions": &p.namespaces} {
			if err := json.Unmarshal([]byte(a[prefix+key]), into); err != nil {
				return fmt.Errorf("restore pod %s: %s: %w", c.id, key, err)
			}
		}
		d.pods[c.id], d.names[m.PodName] = p, true
	}
	// CRI-O drops containers whose pod cannot be restored.
	for id, c := range d.containers {
		if d.pods[c.pod] == nil {
			delete(d.containers, id)
		}
	}
	return nil
}

func (d *double) restoreContainer(r storage.Container, m metadata) (*container, error) {
	c := &container{id: r.ID, pod: m.PodID, name: m.ContainerName, sandbox: m.PodID == r.ID, metadata: new(cri.ContainerMetadata),
		image: m.ImageName, imageID: r.ImageID, created: true, spec: new(spec)}
	var err error
	if c.dir, err = d.store.ContainerDirectory(r.ID); err != nil {
		return nil, err
	}
	if c.runDir, err = d.store.ContainerRunDirectory(r.ID); err != nil {
		return nil, err
	}
	for file, into := range map[string]any{"config.json": c.spec, "state.json": &c.state} {
		text, err := os.ReadFile(filepath.Join(c.dir, file))
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, into); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	a := c.spec.Annotations
	c.mountPoint, c.logPath, c.imageRef = c.spec.Root.Path, a[prefix+"LogPath"], a[prefix+"ImageRepoDigests"]
	made, err := time.Parse(time.RFC3339Nano, a[prefix+"Created"])
	if err != nil {
		return nil, err
	}
	c.createdAt = made.UnixNano()
	for key, into := range map[string]any{"Labels": &c.labels, "Annotations": &c.annotations} {
		if err := json.Unmarshal([]byte(a[prefix+key]), into); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	if !c.sandbox {
		if err := json.Unmarshal([]byte(a[prefix+"Metadata"]), c.metadata); err != nil {
			return nil, err
		}
	}
	if c.state.Status == stopped || c.state.PID == 0 {
		return c, nil
	}
	start, err := startTime(c.state.PID)
	if err == nil && start == c.state.InitStartTime {
		return c, d.watch(c, c.state.PID, start)
	}
	c.state.Status, c.state.PID, c.state.Finished = stopped, 0, time.Now()
	c.process = &process{pid: c.state.InitPID, ended: make(chan struct{})} // so that the runtime's state goes with it
	close(c.process.ended)
	return c, d.saveState(c)
}

// wipe ends and removes everything that a double kept in the store.
func (d *double) wipe(ctx context.Context) error {
	var errs error
	// The processes first, those of containers whose storage somebody else has deleted too: what
	// remains is quick.
	states, err := os.ReadDir(d.runtimeRoot)
	if err != nil {
		return err
	}
	for _, s := range states {
		if d.runtime != "none" {
			errs = errors.Join(errs, d.runc(nil, "delete", "--force", s.Name()))
		}
	}
	for id, p := range d.pods {
		for _, c := range append(d.members(p), p.infra) {
			if c.process != nil {
				<-c.process.ended
			}
		}
		_, err := d.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: id})
		if err == nil {
			_, err = d.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: id})
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// wreck deletes storage containers, whatever runs in them, as "podman rmi --force" does.
func (d *double) wreck(ids []string) error {
	for _, id := range ids {
		if err := d.store.DeleteContainer(id); err != nil {
			return fmt.Errorf("delete container %s: %w", id, err)
		}
	}
	return nil
}
