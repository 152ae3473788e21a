package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/containers/storage"
)

// metadata is what CRI-O keeps with a storage container (internal/storage/runtime.go,
// RuntimeContainerMetadata).
type metadata struct {
	PodName       string `json:"pod-name"`
	PodID         string `json:"pod-id"`
	ImageName     string `json:"image-name"`
	ImageID       string `json:"image-id"`
	ContainerName string `json:"name"`
	MetadataName  string `json:"metadata-name"`
	UID           string `json:"uid,omitempty"`
	Namespace     string `json:"namespace,omitempty"`
	MountLabel    string `json:"mountlabel,omitempty"`
	CreatedAt     int64  `json:"created-at"`
	Attempt       uint32 `json:"attempt,omitempty"`
	Pod           bool   `json:"pod,omitempty"`
	Privileged    bool   `json:"privileged,omitempty"`
}

// state is CRI-O's state.json (internal/oci/container.go, ContainerState), in its order.
type state struct {
	Version          string            `json:"ociVersion"`
	ID               string            `json:"id"`
	Status           string            `json:"status"`
	PID              int               `json:"pid,omitempty"`
	Bundle           string            `json:"bundle"`
	Annotations      map[string]string `json:"annotations,omitempty"`
	Created          time.Time         `json:"created"`
	Started          time.Time         `json:"started"`
	Finished         time.Time         `json:"finished"`
	ExitCode         *int32            `json:"exitCode,omitempty"`
	InitPID          int               `json:"initPid,omitempty"`
	InitStartTime    string            `json:"initStartTime,omitempty"`
	CheckpointedTime time.Time         `json:"checkpointedTime"`
	ContainerMonitor *monitor          `json:"containerMonitorProcess,omitempty"`
}

// monitor would be conmon; here the double is its own.
type monitor struct {
	PID       int    `json:"pid"`
	StartTime string `json:"startTime"`
}

// The words of a state.
const (
	created = "created"
	running = "running"
	stopped = "stopped"
)

// put makes the storage container, with its directories and its mount.
func (d *double) put(c *container, m metadata, names []string) error {
	m.CreatedAt = time.Now().Unix()
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	record, err := d.store.CreateContainer(c.id, names, c.imageID, "", string(text), &storage.ContainerOptions{Volatile: true})
	if err != nil {
		return err
	}
	if err := d.store.AddNames(record.LayerID, []string{m.ContainerName + "-layer"}); err != nil {
		return err
	}
	if c.dir, err = d.store.ContainerDirectory(c.id); err != nil {
		return err
	}
	if c.runDir, err = d.store.ContainerRunDirectory(c.id); err != nil {
		return err
	}
	c.mountPoint, err = d.store.Mount(c.id, "")
	return err
}

// saveState writes state.json.
func (d *double) saveState(c *container) error {
	c.save.Lock()
	defer c.save.Unlock()
	d.mu.Lock()
	text, err := json.Marshal(c.state)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return replace(filepath.Join(c.dir, "state.json"), text)
}

// saveSpec writes config.json, for restarts in the directory and for the runtime in the run
// directory.
func (c *container) saveSpec() error {
	text, err := json.Marshal(c.spec)
	if err != nil {
		return err
	}
	for _, dir := range []string{c.dir, c.runDir} {
		if err := replace(filepath.Join(dir, "config.json"), text); err != nil {
			return err
		}
	}
	return nil
}

func replace(path string, text []byte) error {
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
