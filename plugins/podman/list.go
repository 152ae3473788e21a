package podman

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/unmoor/unmoor/core"
)

// listed is what "podman ps --all --pod --format json" and the API's list say of a container, as far
// as it is of use here (pkg/domain/entities, ListContainer; 4.3.1, 5.4.2). Unlike inspect they do so
// of a container whose storage is gone, too.
type listed struct {
	ID    core.ContainerID `json:"Id"`
	Names []string
	State string
	Pid   int
	// StartedAt is in seconds of Unix time.
	StartedAt    int64
	Pod, PodName string
}

func parseList(text []byte) ([]listed, error) {
	var all []listed
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("read podman's list of containers: %w", err)
	}
	for _, l := range all {
		if !isID(string(l.ID)) || l.State == "" {
			return nil, fmt.Errorf("read podman's list of containers: %.80q, %.80q is no container with a state", l.ID, l.State)
		}
	}
	return all, nil
}

// List claims every container that Podman has in the store, and the storage containers of its
// volumes. Where the store has no database of Podman's it is not run: it would make one.
func (p *Plugin) List(ctx context.Context, store core.StoreInfo) ([]core.Claim, error) {
	if found, err := findDatabases(store); err != nil || found.none() {
		return nil, err
	}
	if err := p.engine.serves(ctx, store); err != nil {
		return nil, err
	}
	all, err := p.engine.list(ctx, store)
	if err != nil {
		return nil, err
	}
	volumes, err := p.engine.imageVolumes(ctx, store)
	if err != nil {
		return nil, err
	}
	s := &survey{plugin: p, now: p.now()}
	claims := make([]core.Claim, 0, len(all))
	for _, l := range all {
		claims = append(claims, s.claimListed(l))
	}
	for _, v := range volumes {
		if v.StorageID != "" {
			claims = append(claims, s.claimVolume(v.StorageID, v))
		}
	}
	return claims, nil
}

func (s *survey) claimListed(l listed) core.Claim {
	var r record
	r.State.Status = l.State
	c := core.Claim{Container: l.ID, Ownership: core.OwnershipMine, Group: l.PodName, Revision: revision{lost: true}.String()}
	c.State, c.Use = r.state()
	if len(l.Names) > 0 {
		c.DisplayName = l.Names[0]
	}
	if c.Group == "" && isID(l.Pod) {
		c.Group = l.Pod[:12]
	}
	c.Evidence = []core.Evidence{s.evidence(core.EvidenceRecord, "podman calls it "+l.State)}
	if process := s.plugin.proc.find(l.Pid, time.Unix(l.StartedAt, 0)); process != nil && c.State.Live() {
		e := s.evidence(core.EvidenceProcess, "the container's process in podman")
		e.Process = process
		c.Evidence = append(c.Evidence, e)
	}
	return c
}

func (c *cli) list(ctx context.Context, store core.StoreInfo) ([]listed, error) {
	// Without --pod it leaves out the pod's name.
	out, err := c.podman(ctx, store, "ps", "ps", "--all", "--pod", "--no-trunc", "--format", "json")
	if err != nil {
		return nil, err
	}
	return parseList(out.stdout)
}

func (a *api) list(ctx context.Context, _ core.StoreInfo) ([]listed, error) {
	body, err := a.call(ctx, http.MethodGet, "/containers/json", url.Values{"all": {"true"}}, "list containers")
	if err != nil {
		return nil, err
	}
	return parseList(body)
}
