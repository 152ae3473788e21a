package buildah

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// stateFile is Buildah's record in the container's directory (containers/buildah, buildah.go,
// stateFile, v1.39.3; the same in v1.28.2). It is replaced by a rename, never written in place
// (Builder.Save).
const stateFile = "buildah.json"

// Bounds of a record. A real one has 3 to 100 kB: most of it is the image's config and manifest.
const (
	maxRecord = 16 << 20
	maxName   = 1024
)

// record is what this package reads of a buildah.json.
type record struct {
	Type        string `json:"type"`
	Image       string `json:"image"`
	ImageID     string `json:"image-id"`
	Container   string `json:"container-name"`
	ContainerID string `json:"container-id"`
	// OCI is the configuration of the image to be, with the labels of the one that it is built from.
	// Buildah keeps it twice, the other time as Docker's, and sets labels in both (containers/buildah,
	// config.go, SetLabel).
	OCI struct {
		Config struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	} `json:"ociv1"`
}

// errNoRecord: the container has no buildah.json.
var errNoRecord = errors.New("no " + stateFile)

// readRecord reads a container's buildah.json. errNoRecord where there is none; any other error
// means that it cannot be told whose the container is.
func readRecord(directory string) (record, error) {
	path := filepath.Join(directory, stateFile)
	// Not to follow a link, and not to wait at a pipe.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return record{}, errNoRecord
	}
	if err != nil {
		return record{}, fmt.Errorf("open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return record{}, fmt.Errorf("read %s: %w", path, err)
	}
	if !info.Mode().IsRegular() {
		return record{}, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Size() > maxRecord {
		return record{}, fmt.Errorf("%s has %d bytes, more than any of Buildah's", path, info.Size())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return record{}, fmt.Errorf("read %s: %w", path, err)
	}
	r, err := parseRecord(b)
	if err != nil {
		return record{}, fmt.Errorf("%s %w", path, err)
	}
	return r, nil
}

// parseRecord reads a buildah.json. Its type is "buildah 0.0.1" in all releases so far
// (containers/buildah, buildah.go, containerType); a later one of Buildah's is taken too, another
// program's is not.
func parseRecord(b []byte) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("is no record of Buildah's: %w", err)
	}
	if !strings.HasPrefix(r.Type, "buildah ") {
		return record{}, fmt.Errorf("is of the type %.40q, which is not Buildah's", r.Type)
	}
	if len(r.Container) > maxName || len(r.Image) > maxName {
		return record{}, errors.New("has a name that is too long")
	}
	return r, nil
}

// of is whether the record was written for that container. A copied one is nobody's word.
func (r record) of(id core.ContainerID) bool { return r.ContainerID == string(id) }
