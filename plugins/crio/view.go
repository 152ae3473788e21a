package crio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// view is what CRI-O says of itself at one time.
type view struct {
	containers map[core.ContainerID]*cri.Container
	sandboxes  map[core.ContainerID]*cri.PodSandbox
	// members are the application containers of a sandbox, sorted.
	members map[core.ContainerID][]core.ContainerID
	site    site
	// root is CRI-O's graph root, as it says.
	root string
}

// site is where CRI-O's store is, seen from the one that was asked about.
type site int

const (
	siteUnknown site = iota
	siteSame
	siteOther
)

// look asks CRI-O for all that it has, side by side. An answer that cannot be CRI-O's is an error.
func (p *Plugin) look(ctx context.Context, c *client, store core.StoreInfo) (*view, error) {
	var (
		containers *cri.ListContainersResponse
		sandboxes  *cri.ListPodSandboxResponse
		root       string
		where      site
	)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if containers, err = c.runtime.ListContainers(ctx, &cri.ListContainersRequest{}); err != nil {
			return c.failed("its containers", err)
		}
		return nil
	})
	g.Go(func() (err error) {
		if sandboxes, err = c.runtime.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{}); err != nil {
			return c.failed("its pods", err)
		}
		return nil
	})
	g.Go(func() (err error) {
		root, where, err = p.locate(ctx, c, store)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	v, err := newView(containers.Containers, sandboxes.Items)
	if err != nil {
		return nil, c.nonsense(err)
	}
	v.root, v.site = root, where
	return v, nil
}

// locate asks CRI-O where its store is, and compares that with the one asked about.
func (p *Plugin) locate(ctx context.Context, c *client, store core.StoreInfo) (root string, where site, err error) {
	fs, err := c.images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
	if err != nil {
		return "", siteUnknown, c.failed("the place of its store", err)
	}
	root, driver, err := graphRoot(fs)
	if err != nil {
		return "", siteUnknown, c.nonsense(err)
	}
	return root, p.place(root, driver, store), nil
}

// newView checks and indexes CRI-O's lists.
func newView(containers []*cri.Container, sandboxes []*cri.PodSandbox) (*view, error) {
	v := &view{containers: make(map[core.ContainerID]*cri.Container, len(containers)),
		sandboxes: make(map[core.ContainerID]*cri.PodSandbox, len(sandboxes)),
		members:   make(map[core.ContainerID][]core.ContainerID, len(sandboxes))}
	for _, s := range sandboxes {
		id := core.ContainerID(s.GetId())
		if !fullID.MatchString(s.GetId()) {
			return nil, fmt.Errorf("a pod has the ID %.80q", s.GetId())
		}
		if _, twice := v.sandboxes[id]; twice {
			return nil, fmt.Errorf("it lists pod %s twice", id.Short())
		}
		v.sandboxes[id] = s
	}
	for _, c := range containers {
		id, pod := core.ContainerID(c.GetId()), core.ContainerID(c.GetPodSandboxId())
		if !fullID.MatchString(c.GetId()) {
			return nil, fmt.Errorf("a container has the ID %.80q", c.GetId())
		}
		if !fullID.MatchString(c.GetPodSandboxId()) {
			return nil, fmt.Errorf("container %s is in the pod %.80q", id.Short(), c.GetPodSandboxId())
		}
		if _, twice := v.containers[id]; twice {
			return nil, fmt.Errorf("it lists container %s twice", id.Short())
		}
		if _, both := v.sandboxes[id]; both {
			return nil, fmt.Errorf("it lists %s as a container and as a pod", id.Short())
		}
		v.containers[id] = c
		v.members[pod] = append(v.members[pod], id)
	}
	for _, ids := range v.members {
		slices.Sort(ids)
	}
	return v, nil
}

// graphRoot reads the root and the driver of CRI-O's store from where it has its file systems: the
// containers' is ROOT/DRIVER-containers, or ROOT/DRIVER-images where images and containers are in one
// place; before 1.29 there is the images' alone (server/image_fs_info.go).
func graphRoot(fs *cri.ImageFsInfoResponse) (root, driver string, err error) {
	systems := fs.GetContainerFilesystems()
	if len(systems) == 0 {
		systems = fs.GetImageFilesystems()
	}
	if len(systems) == 0 {
		return "", "", errors.New("it names no file system of its store")
	}
	path := systems[0].GetFsId().GetMountpoint()
	if !filepath.IsAbs(path) || len(path) > 4096 || strings.ContainsRune(path, 0) {
		return "", "", fmt.Errorf("its store is at %.80q", path)
	}
	path = filepath.Clean(path)
	for _, suffix := range []string{"-containers", "-images"} {
		if driver, ok := strings.CutSuffix(filepath.Base(path), suffix); ok {
			return filepath.Dir(path), driver, nil
		}
	}
	return path, "", nil
}

// place compares CRI-O's store with the one asked about. CRI-O may see other paths than this
// process: then pid 1's are looked at too.
func (p *Plugin) place(root, driver string, store core.StoreInfo) site {
	if driver != "" && store.GraphDriver != "" && driver != store.GraphDriver {
		return siteOther
	}
	ours, err := os.Stat(store.GraphRoot)
	if err != nil {
		return siteUnknown
	}
	answer := siteUnknown
	for _, path := range []string{root, filepath.Join(p.proc.root, "1/root", root)} {
		theirs, err := os.Stat(path)
		switch {
		case err != nil:
		case os.SameFile(ours, theirs):
			return siteSame
		default:
			answer = siteOther
		}
	}
	return answer
}
