package podman

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Claim says which of the containers are Podman's. Where none looks like it, Podman is not run. Where
// one does and Podman serves another store, that is an error and no "not mine": another Podman may
// have it.
func (p *Plugin) Claim(ctx context.Context, store core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	claims := make([]core.Claim, len(containers))
	candidates := make(map[core.ContainerID]core.Container)
	for i, c := range containers {
		claims[i] = core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine}
		if looksLikePodmans(c) {
			candidates[c.ID] = c
		}
	}
	if len(candidates) == 0 {
		return claims, nil
	}
	if err := p.engine.serves(ctx, store); err != nil {
		return nil, err
	}
	s, err := p.survey(ctx, store, containers, candidates)
	if err != nil {
		return nil, err
	}
	for i, c := range containers {
		if _, candidate := candidates[c.ID]; candidate {
			claims[i] = s.claim(c)
		}
	}
	return claims, nil
}

// survey is all that Podman says that matters to one batch.
type survey struct {
	plugin *Plugin
	inspection
	relations relations
	// podNames by pod ID.
	podNames map[string]string
	// volumes by the storage container that holds them.
	volumes map[core.ContainerID]volume
	// images by the name that a container mounts; one without an ID is not there.
	images map[string]core.ImageID
	now    time.Time
}

func (p *Plugin) survey(ctx context.Context, store core.StoreInfo, containers []core.Container, candidates map[core.ContainerID]core.Container) (*survey, error) {
	ids := slices.Sorted(maps.Keys(candidates))
	ids = append(ids, others(store, containers)...)
	found, err := p.inspect(ctx, store, ids)
	if err != nil {
		return nil, err
	}
	s := &survey{plugin: p, inspection: found, relations: relate(found.records), now: p.now(),
		podNames: make(map[string]string), volumes: make(map[core.ContainerID]volume), images: make(map[string]core.ImageID)}
	var inPods, unknown bool
	for id := range candidates {
		r, ok := found.records[id]
		inPods = inPods || r.Pod != ""
		unknown = unknown || !ok
		for _, m := range r.Mounts {
			if m.Type != "image" {
				continue
			}
			if err := s.resolve(ctx, store, m.Source); err != nil {
				return nil, err
			}
		}
	}
	if inPods {
		pods, err := p.engine.pods(ctx, store)
		if err != nil {
			return nil, err
		}
		for _, pod := range pods {
			s.podNames[pod.ID] = pod.Name
		}
	}
	if unknown {
		volumes, err := p.engine.imageVolumes(ctx, store)
		if err != nil {
			return nil, err
		}
		for _, v := range volumes {
			if v.StorageID != "" {
				s.volumes[v.StorageID] = v
			}
		}
	}
	return s, nil
}

// others are containers of the store beyond the batch that may be Podman's: one of them may need
// one of the batch. A store whose directory cannot be read has none that we know of, and one that
// Podman fails at needs none that we know of; then Podman itself refuses to remove what others need.
func others(store core.StoreInfo, containers []core.Container) []core.ContainerID {
	asked := make(map[core.ContainerID]bool, len(containers))
	for _, c := range containers {
		asked[c.ID] = true
	}
	directory := filepath.Join(store.GraphRoot, store.GraphDriver+"-containers")
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil
	}
	var more []core.ContainerID
	for _, e := range entries {
		id := core.ContainerID(e.Name())
		if !isID(e.Name()) || asked[id] {
			continue
		}
		// Buildah's, which Podman never claims.
		if _, err := os.Lstat(filepath.Join(directory, e.Name(), "userdata", "buildah.json")); err == nil {
			continue
		}
		more = append(more, id)
	}
	return more
}

// resolve finds the image that a container mounts, by the name that its user wrote. A container
// that runs may have an older image of that name mounted: that one's mount is the kernel's to see.
func (s *survey) resolve(ctx context.Context, store core.StoreInfo, source string) error {
	if _, known := s.images[source]; known {
		return nil
	}
	if id := strings.TrimPrefix(source, "sha256:"); isID(id) {
		s.images[source] = core.ImageID(id)
		return nil
	}
	id, err := s.plugin.engine.imageID(ctx, store, source)
	if err != nil && !errors.Is(err, errNoImage) {
		return err
	}
	s.images[source] = id
	return nil
}

// claim is the claim about one container whose metadata is like Podman's.
func (s *survey) claim(c core.Container) core.Claim {
	if r, ok := s.records[c.ID]; ok {
		return s.claimRecord(r)
	}
	if v, ok := s.volumes[c.ID]; ok {
		return s.claimVolume(c.ID, v)
	}
	if err := s.broken[c.ID]; err != nil {
		why := err.Error()
		if !errors.Is(err, errSlow) {
			why += fmt.Sprintf(` (mend it, or have podman forget it with "podman rm -f %s")`, c.ID.Short())
		}
		return s.unsure(c.ID, why)
	}
	if !s.absent[c.ID] {
		return s.unsure(c.ID, errNoWord.Error())
	}
	if age := s.now.Sub(c.Created); !c.Created.IsZero() && age < s.plugin.settling {
		return s.unsure(c.ID, fmt.Sprintf("podman does not know it, but it is %s old, and podman may be about to record it",
			max(age, 0).Round(time.Second)))
	}
	return core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine,
		Evidence: []core.Evidence{s.evidence(core.EvidenceRecord, "podman says that it has no such container")}}
}

func (s *survey) unsure(id core.ContainerID, why string) core.Claim {
	return core.Claim{Container: id, Evidence: []core.Evidence{s.evidence(core.EvidenceRecord, why)}}
}

func (s *survey) evidence(kind core.EvidenceKind, detail string) core.Evidence {
	return core.Evidence{Source: Name, Kind: kind, Detail: detail, Time: s.now}
}

func (s *survey) claimRecord(r record) core.Claim {
	c := core.Claim{Container: r.ID, Ownership: core.OwnershipMine, DisplayName: r.Name, Labels: r.Config.Labels}
	c.State, c.Use = r.state()
	c.TakesAlong = s.relations.company(r.ID)
	revision := revision{incarnation: string(c.State) + "/" + r.incarnation()}
	if r.Pod != "" {
		c.Group = s.podNames[r.Pod]
		if c.Group == "" {
			c.Group = r.Pod[:12]
		}
		if r.IsInfra {
			revision.pod = r.Pod
		}
	}
	c.Revision = revision.String()
	for _, m := range r.Mounts {
		if id := s.images[m.Source]; m.Type == "image" && id != "" && !slices.Contains(c.ImageVolumes, id) {
			c.ImageVolumes = append(c.ImageVolumes, id)
		}
	}
	c.Evidence = s.recordEvidence(r, c)
	return c
}

func (s *survey) recordEvidence(r record, c core.Claim) []core.Evidence {
	word := s.evidence(core.EvidenceRecord, "podman calls it "+r.State.Status)
	if c.Use == core.UseUnknown {
		word.Detail += ", which is no word that unmoor knows"
	}
	all := []core.Evidence{word}
	if process := s.plugin.proc.find(r.State.Pid, r.State.StartedAt); process != nil {
		e := s.evidence(core.EvidenceProcess, "the container's process in podman")
		process.Cgroup = r.State.CgroupPath
		e.Process = process
		all = append([]core.Evidence{e}, all...)
	}
	// conmon is older than what it starts, so its start time fits where the container's does.
	if process := s.plugin.proc.find(r.State.ConmonPid, r.State.StartedAt); process != nil {
		e := s.evidence(core.EvidenceRecord, "podman's monitor of the container")
		e.Process = process
		all = append(all, e)
	}
	if r.Pod != "" {
		detail := "in pod " + c.Group
		if r.IsInfra {
			detail = "infra container of pod " + c.Group
		}
		all = append(all, s.evidence(core.EvidencePod, detail))
	}
	if unit := r.unit(); unit != "" {
		all = append(all, s.evidence(core.EvidenceRecord, "started by the systemd unit "+unit+", which may start it again"))
	}
	return all
}

// claimVolume claims the storage container of an image-driver volume. Its data is somebody's, and
// no stop makes it idle: its use is unknown, so that only the utmost force removes it, with the
// containers that mount it.
func (s *survey) claimVolume(id core.ContainerID, v volume) core.Claim {
	return core.Claim{
		Container: id, Ownership: core.OwnershipMine, State: core.StateStopped, Use: core.UseUnknown,
		DisplayName: v.Name, TakesAlong: s.relations.users(v.Name), Revision: revision{volume: v.Name}.String(),
		Evidence: []core.Evidence{s.evidence(core.EvidenceRecord, fmt.Sprintf(
			`it holds the data of podman's volume %s (remove that with "podman volume rm %s")`, v.Name, v.Name))},
	}
}
