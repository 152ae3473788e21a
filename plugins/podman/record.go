package podman

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
)

// record is what "podman container inspect" says of a container, as far as it is of use here. It
// is the same through the API (libpod/define, InspectContainerData).
type record struct {
	ID    core.ContainerID `json:"Id"`
	Name  string
	Pod   string
	State struct {
		Status     string
		Pid        int
		ConmonPid  int
		StartedAt  time.Time
		CgroupPath string
	}
	// Mounts has a volume's name and driver, and for an image what the user wrote, not its ID.
	Mounts []mount
	// Dependencies are the containers that this one needs, by namespaces or --requires. A
	// container that --volumes-from names is none.
	Dependencies []core.ContainerID
	IsInfra      bool
	Config       struct {
		// Labels are the image's too, which the container was made with.
		Labels map[string]string
		// StopSignal is a number (4.3.1) or a name (5.4.2).
		StopSignal json.RawMessage
	}
	HostConfig struct{ RestartPolicy struct{ Name string } }
}

type mount struct {
	Type, Name, Source, Driver string
}

// unit is the systemd unit that runs the container (podman generate systemd, Quadlet), or "".
func (r record) unit() string { return r.Config.Labels["PODMAN_SYSTEMD_UNIT"] }

// stopSignal is the polite signal, as a number or a name.
func (r record) stopSignal() string {
	signal := strings.Trim(string(r.Config.StopSignal), `" `)
	if signal == "" || signal == "0" || signal == "null" {
		return "SIGTERM"
	}
	return signal
}

// restarts is whether Podman starts the container again when it ends by itself.
func (r record) restarts() bool {
	policy := r.HostConfig.RestartPolicy.Name
	return policy != "" && policy != "no"
}

// The words of Podman for states (libpod/define/containerstate.go, 5.4.2).
const (
	statusCreated     = "created"
	statusConfigured  = "configured"
	statusInitialized = "initialized"
	statusRunning     = "running"
	statusPaused      = "paused"
	statusStopped     = "stopped"
	statusExited      = "exited"
	statusRemoving    = "removing"
	statusStopping    = "stopping"
)

// state translates Podman's word. An initialized container has a process, which waits to be
// started, and "podman rm" removes it without force: it counts as running. So does a word that we
// do not know, whose use is unknown.
func (r record) state() (core.State, core.Use) {
	switch r.State.Status {
	case statusCreated, statusConfigured:
		return core.StateCreated, core.UseIdle
	case statusStopped, statusExited:
		return core.StateStopped, core.UseIdle
	case statusRemoving:
		return core.StateRemoving, core.UseIdle
	case statusPaused:
		return core.StatePaused, core.UseInUse
	case statusRunning, statusInitialized, statusStopping:
		return core.StateRunning, core.UseInUse
	}
	return core.StateRunning, core.UseUnknown
}

// incarnation tells one start of a container from another.
func (r record) incarnation() string {
	return fmt.Sprintf("%d/%d", r.State.Pid, r.State.StartedAt.UnixNano())
}

// parseRecords reads the array that inspect prints.
func parseRecords(text []byte) ([]record, error) {
	var records []record
	if err := json.Unmarshal(text, &records); err != nil {
		return nil, fmt.Errorf("read what podman says of containers: %w", err)
	}
	seen := make(map[core.ContainerID]bool, len(records))
	for _, r := range records {
		if err := r.check(); err != nil {
			return nil, err
		}
		if seen[r.ID] {
			return nil, fmt.Errorf("read what podman says of containers: %s stands there twice", r.ID.Short())
		}
		seen[r.ID] = true
	}
	return records, nil
}

// parseRecord reads the one that the API sends.
func parseRecord(text []byte) (record, error) {
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return record{}, fmt.Errorf("read what podman says of a container: %w", err)
	}
	return r, r.check()
}

func (r record) check() error {
	switch {
	case !isID(string(r.ID)):
		return fmt.Errorf("read what podman says of containers: %.80q is no container ID", r.ID)
	case r.State.Status == "":
		return fmt.Errorf("read what podman says of containers: %s has no state", r.ID.Short())
	case r.Pod != "" && !isID(r.Pod):
		return fmt.Errorf("read what podman says of containers: %s is in %.80q, which is no pod ID", r.ID.Short(), r.Pod)
	}
	for _, d := range r.Dependencies {
		if !isID(string(d)) {
			return fmt.Errorf("read what podman says of containers: %s needs %.80q, which is no container ID", r.ID.Short(), d)
		}
	}
	return nil
}

// volume is a volume of Podman's. The container of an image-driver volume is StorageID.
type volume struct {
	Name, Driver string
	StorageID    core.ContainerID
}

// imageDriver is the driver whose volumes are storage containers (libpod/define/volume_inspect.go).
const imageDriver = "image"

// parseVolumes reads what "podman volume ls --format json" and the API list, and keeps those of the
// image driver.
func parseVolumes(text []byte) ([]volume, error) {
	var volumes []volume
	if err := json.Unmarshal(text, &volumes); err != nil {
		return nil, fmt.Errorf("read what podman says of volumes: %w", err)
	}
	for _, v := range volumes {
		if v.Name == "" || strings.ContainsAny(v.Name, "/\n") || strings.HasPrefix(v.Name, "-") {
			return nil, fmt.Errorf("read what podman says of volumes: %.80q is no name", v.Name)
		}
		if v.StorageID != "" && !isID(string(v.StorageID)) {
			return nil, fmt.Errorf("read what podman says of volumes: %s lies in %.80q, which is no container ID", v.Name, v.StorageID)
		}
	}
	return slices.DeleteFunc(volumes, func(v volume) bool { return v.Driver != imageDriver && v.StorageID == "" }), nil
}

// pod is a pod of Podman's with its containers, the infra container among them.
type pod struct {
	ID         string `json:"Id"`
	Name       string
	InfraID    core.ContainerID `json:"InfraId"`
	Containers []struct {
		ID core.ContainerID `json:"Id"`
	}
}

// parsePods reads what "podman pod ps --format json --no-trunc" and the API list.
func parsePods(text []byte) ([]pod, error) {
	var pods []pod
	if err := json.Unmarshal(text, &pods); err != nil {
		return nil, fmt.Errorf("read what podman says of pods: %w", err)
	}
	for _, p := range pods {
		if !isID(p.ID) {
			return nil, fmt.Errorf("read what podman says of pods: %.80q is no pod ID", p.ID)
		}
		for _, c := range p.Containers {
			if !isID(string(c.ID)) {
				return nil, fmt.Errorf("read what podman says of pods: %.80q in pod %s is no container ID", c.ID, p.Name)
			}
		}
	}
	return pods, nil
}

// parseLines reads one full ID a line, as rm and stop print what they did. Other lines are left out.
func parseLines(text []byte) map[core.ContainerID]bool {
	ids := make(map[core.ContainerID]bool)
	for line := range bytes.Lines(text) {
		if id := string(bytes.TrimSpace(line)); isID(id) {
			ids[core.ContainerID(id)] = true
		}
	}
	return ids
}

// parseAbsent reads the IDs of which inspect says on standard error that there is no such
// container: "… no such container ID" (4.3.1, 5.4.2).
func parseAbsent(text []byte) map[core.ContainerID]bool {
	absent := make(map[core.ContainerID]bool)
	for line := range bytes.Lines(text) {
		_, id, found := strings.Cut(string(bytes.TrimSpace(line)), "no such container ")
		if found && isID(id) {
			absent[core.ContainerID(id)] = true
		}
	}
	return absent
}

// parseImageID reads a line with an image's ID, which may have its algorithm in front.
func parseImageID(text []byte) (core.ImageID, error) {
	id := strings.TrimPrefix(string(bytes.TrimSpace(text)), "sha256:")
	if !isID(id) {
		return "", fmt.Errorf("read what podman says of an image: %.80q is no image ID", id)
	}
	return core.ImageID(id), nil
}

// The keys of a container's metadata in the store.
const (
	keyImageName = "image-name"
	keyPodID     = "pod-id"
)

// looksLikePodmans is whether the container fits Hints.
func looksLikePodmans(c core.Container) bool {
	var keys map[string]json.RawMessage
	if json.Unmarshal([]byte(c.Metadata), &keys) != nil {
		return false
	}
	_, named := keys[keyImageName]
	_, crio := keys[keyPodID]
	return named && !crio
}

func isID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, r := range []byte(s) {
		if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
			return false
		}
	}
	return true
}

var errTooLong = errors.New("the answer is too long")
