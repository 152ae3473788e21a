package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/containers/storage"
	"github.com/containers/storage/types"
	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// double is the server.
type double struct {
	cri.UnimplementedRuntimeServiceServer
	settings
	store    storage.Store
	switches *switches

	// mu guards the maps and the fields of what is in them; it is not held while anything is waited
	// for.
	mu         sync.Mutex
	pods       map[string]*pod
	containers map[string]*container
	names      map[string]bool
}

func newDouble(s settings) (*double, error) {
	// The containers' first processes become children of this one when the runtime ends, and are
	// reaped here.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become a reaper of processes: %w", err)
	}
	store, err := storage.GetStore(types.StoreOptions{
		GraphRoot: s.root, RunRoot: s.runroot, GraphDriverName: s.driver, GraphDriverOptions: s.options})
	if err != nil {
		return nil, fmt.Errorf("open the store in %s: %w", s.root, err)
	}
	if err := os.MkdirAll(s.runtimeRoot, 0o700); err != nil {
		return nil, err
	}
	return &double{settings: s, store: store, switches: &switches{control: s.control, log: s.log},
		pods: make(map[string]*pod), containers: make(map[string]*container), names: make(map[string]bool)}, nil
}

// pod is a sandbox.
type pod struct {
	metadata            *cri.PodSandboxMetadata
	labels, annotations map[string]string
	namespaces          *cri.NamespaceOption
	// infra is its own container; without a process where spoofed is true.
	infra   *container
	spoofed bool
	created bool
	stopped bool
	stop    sync.Mutex // one stop at a time
}

// container is an application container or a pod's own.
type container struct {
	id, pod, name string
	sandbox       bool
	metadata      *cri.ContainerMetadata
	labels        map[string]string
	annotations   map[string]string
	image         string // as it was asked for
	imageID       string
	imageRef      string
	logPath       string
	dir, runDir   string
	mountPoint    string
	spec          *spec
	createdAt     int64
	created       bool
	state         state
	process       *process
	op            sync.Mutex // one operation at a time
	save          sync.Mutex // one writer of its state; taken before double.mu
}

func newID() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// errNotExist is what CRI-O's index of IDs says (containers/storage, pkg/truncindex).
var errNotExist = errors.New("ID does not exist")

// find looks a record up by its ID or a prefix that only it has.
func find[T any](records map[string]*T, id string) (*T, error) {
	if r := records[id]; r != nil {
		return r, nil
	}
	var found *T
	for full, r := range records {
		if id != "" && strings.HasPrefix(full, id) {
			if found != nil {
				return nil, fmt.Errorf("multiple IDs found with provided prefix: %s", id)
			}
			found = r
		}
	}
	if found == nil {
		return nil, errNotExist
	}
	return found, nil
}

// containerOf finds a container that can be worked with (internal/lib/container.go,
// GetContainerFromShortID).
func (d *double) containerOf(id string) (*container, error) {
	if id == "" {
		return nil, errors.New("container ID should not be empty")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c, err := find(d.containers, id)
	if err != nil {
		return nil, fmt.Errorf("container with ID starting with %s not found: %w", id, err)
	}
	if !c.created {
		return nil, fmt.Errorf("specified container %s is not yet created", c.id)
	}
	return c, nil
}

var (
	errEmptyID    = errors.New("PodSandboxId should not be empty")
	errNotCreated = errors.New("sandbox not created")
)

// podOf finds a pod (server/server.go, getPodSandboxFromRequest).
func (d *double) podOf(id string) (*pod, error) {
	if id == "" {
		return nil, errEmptyID
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, err := find(d.pods, id)
	if err != nil {
		return nil, fmt.Errorf("PodSandbox with ID starting with %s not found: %w", id, err)
	}
	if !p.created {
		return nil, errNotCreated
	}
	return p, nil
}

// members are the containers of a pod.
func (d *double) members(p *pod) []*container {
	d.mu.Lock()
	defer d.mu.Unlock()
	var of []*container
	for _, c := range d.containers {
		if c.pod == p.infra.id {
			of = append(of, c)
		}
	}
	return of
}

// reserve keeps a name for one.
func (d *double) reserve(name, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] {
		return fmt.Errorf("name %s is reserved, not for %s", name, id)
	}
	d.names[name] = true
	return nil
}
