package crio

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// stateFile is CRI-O's record of a container's state in the container's directory
// (internal/oci/container.go, StatePath). It is replaced by a rename.
const stateFile = "state.json"

// maxState bounds it. A real one has 2 to 3 kB, with a pod's annotations up to some hundred.
const maxState = 4 << 20

// runtimeState is what this package reads of a state.json.
type runtimeState struct {
	paused bool
	// pid is the first process's, 0 where the container has none, and start its start time in clock
	// ticks after boot.
	pid   int
	start uint64
	// volumes are the images that are mounted in the container.
	volumes []core.ImageID
	// labels are the container's own, as they were when it was made.
	labels map[string]string
}

// The annotations that hold the container's mounts and its labels as JSON (pkg/annotations).
const (
	volumesAnnotation = "io.kubernetes.cri-o.Volumes"
	labelsAnnotation  = "io.kubernetes.cri-o.Labels"
)

// parseState reads the state of one container.
func parseState(id string, text []byte) (runtimeState, error) {
	var r struct {
		ID          string            `json:"id"`
		Status      string            `json:"status"`
		PID         int               `json:"pid"`
		InitPID     int               `json:"initPid"`
		InitStart   string            `json:"initStartTime"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return runtimeState{}, err
	}
	if r.ID != "" && r.ID != id {
		return runtimeState{}, fmt.Errorf("it is of another container, %.12q", r.ID)
	}
	s := runtimeState{paused: r.Status == "paused"}
	// initPid stays when the container ends; pid does not.
	if r.InitPID > 0 && r.InitPID == r.PID {
		start, err := strconv.ParseUint(r.InitStart, 10, 64)
		if err == nil && start > 0 {
			s.pid, s.start = r.InitPID, start
		}
	}
	s.volumes = imageVolumes(r.Annotations[volumesAnnotation])
	if text := r.Annotations[labelsAnnotation]; text != "" && json.Unmarshal([]byte(text), &s.labels) != nil {
		s.labels = nil // half of them, it may be
	}
	return s, nil
}

// imageVolumes lists the images among a container's volumes (internal/oci/container.go,
// ContainerVolume), which CRI-O names by their IDs (server/container_create_linux.go, mountImage).
func imageVolumes(text string) []core.ImageID {
	if text == "" || text == "[]" {
		return nil
	}
	var volumes []struct {
		Image *struct {
			Image string `json:"image"`
		} `json:"image"`
	}
	if json.Unmarshal([]byte(text), &volumes) != nil {
		return nil // the mount of an image is seen by the kernel too
	}
	var images []core.ImageID
	for _, v := range volumes {
		if v.Image != nil && fullID.MatchString(v.Image.Image) && !slices.Contains(images, core.ImageID(v.Image.Image)) {
			images = append(images, core.ImageID(v.Image.Image))
		}
	}
	return images
}

var fullID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// readState reads a container's state.json. It is evidence and no more: CRI-O's answer says the
// state.
func readState(id, directory string) (runtimeState, error) {
	if directory == "" {
		return runtimeState{}, errors.New("the store names no directory of it")
	}
	path := filepath.Join(directory, stateFile)
	text, err := readBounded(path, maxState)
	if err != nil {
		return runtimeState{}, err
	}
	s, err := parseState(id, text)
	if err != nil {
		return runtimeState{}, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

// readBounded reads a regular file. It follows no link in the last place, and waits at no pipe.
func readBounded(path string, most int64) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d of a record", path, info.Size(), most)
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return text, nil
}
