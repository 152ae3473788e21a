package crio

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// readers is how many containers' records are read side by side.
const readers = 4

// Claim says which containers are CRI-O's and whether they are in use. The error says that CRI-O
// could not be asked, or answered nonsense.
func (p *Plugin) Claim(ctx context.Context, store core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	claims := make([]core.Claim, len(containers))
	known := make([]metadata, len(containers))
	ask := false
	for i, c := range containers {
		known[i] = parseMetadata(string(c.ID), c.Metadata)
		claims[i] = core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine}
		ask = ask || known[i].hinted
	}
	if !ask {
		return claims, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.options.Timeout)
	defer cancel()
	client, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer client.close()
	v, err := p.look(ctx, client, store)
	if err != nil {
		return nil, err
	}
	for i, c := range containers {
		if known[i].own && !v.lists(c.ID) {
			// What CRI-O does not list is judged by that: so it has to be CRI-O.
			if _, err := client.version(ctx); err != nil {
				return nil, err
			}
			break
		}
	}
	j := judge{Plugin: p, view: v, at: p.now()}
	var g errgroup.Group
	g.SetLimit(readers)
	for i, c := range containers {
		if !known[i].own && !v.lists(c.ID) {
			continue
		}
		g.Go(func() error { claims[i] = j.claim(c, known[i]); return ctx.Err() })
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("read the records of CRI-O's containers: %w", err)
	}
	return claims, nil
}

func (v *view) lists(id core.ContainerID) bool {
	return v.containers[id] != nil || v.sandboxes[id] != nil
}

// judge makes claims from one view.
type judge struct {
	*Plugin
	*view
	at time.Time
}

func (j judge) note(kind core.EvidenceKind, path, format string, args ...any) core.Evidence {
	return core.Evidence{Source: Name, Kind: kind, Detail: fmt.Sprintf(format, args...), Path: path, Time: j.at}
}

// claim judges a container that CRI-O lists, or that has its metadata.
func (j judge) claim(c core.Container, m metadata) core.Claim {
	claim := core.Claim{Container: c.ID}
	listed := j.lists(c.ID)
	switch {
	case !listed && j.site == siteOther:
		claim.Ownership = core.OwnershipNotMine
	case j.site == siteOther:
		claim.Evidence = []core.Evidence{j.note(core.EvidenceRecord, j.root,
			"CRI-O lists a container with this ID, but its store is %s: this one may be a copy", clip(j.root))}
	case j.site == siteUnknown:
		claim.Evidence = []core.Evidence{j.note(core.EvidenceRecord, j.root,
			"CRI-O's store is %s, which cannot be compared with this one", clip(j.root))}
	case j.containers[c.ID] != nil:
		j.application(&claim, c, j.containers[c.ID], m)
	case j.sandboxes[c.ID] != nil:
		j.sandbox(&claim, c, j.sandboxes[c.ID])
	case j.at.Sub(c.Created) < j.options.Settling:
		claim.Evidence = []core.Evidence{j.note(core.EvidenceRecord, "",
			"CRI-O does not list it and may still be creating it: it is %s old", max(0, j.at.Sub(c.Created)).Round(time.Second))}
	default:
		j.forgotten(&claim, c, m)
	}
	return claim
}

// application claims a container of a pod.
func (j judge) application(claim *core.Claim, c core.Container, listed *cri.Container, m metadata) {
	claim.Ownership = core.OwnershipMine
	podID := core.ContainerID(listed.GetPodSandboxId())
	pod := j.sandboxes[podID]
	name := m.group()
	if pod != nil {
		name = podName(pod)
	}
	own := clip(listed.GetMetadata().GetName())
	if own == "" {
		own = clip(m.name)
	}
	claim.Group, claim.DisplayName = "pod "+name, name+"/"+own
	claim.Labels = labels(pod.GetLabels(), listed.GetLabels())
	var word string
	switch listed.GetState() {
	case cri.ContainerState_CONTAINER_CREATED:
		// The runtime's first process waits in the container for the start.
		claim.State, claim.Use, word = core.StateCreated, core.UseInUse, "created"
	case cri.ContainerState_CONTAINER_RUNNING:
		claim.State, claim.Use, word = core.StateRunning, core.UseInUse, "running"
	case cri.ContainerState_CONTAINER_EXITED:
		claim.State, claim.Use, word = core.StateStopped, core.UseIdle, "exited"
	case cri.ContainerState_CONTAINER_UNKNOWN:
		fallthrough
	default:
		claim.State, claim.Use = core.StateRunning, core.UseUnknown
		word = fmt.Sprintf("in a state that it does not know either (%s)", clip(listed.GetState().String()))
	}
	claim.Evidence = append(claim.Evidence, j.note(core.EvidenceRecord, statePath(c),
		"CRI-O has it as container %s, attempt %d, %s", own, listed.GetMetadata().GetAttempt(), word))
	if pod != nil {
		claim.Evidence = append(claim.Evidence, j.podNote(podID, pod))
	} else {
		claim.Evidence = append(claim.Evidence, j.note(core.EvidencePod, "", "pod %s, sandbox %s, not listed", name, podID.Short()))
	}
	j.live(claim, c)
	claim.Revision = revision{kind: kindContainer, pod: podID}.String()
}

// sandbox claims a pod's own container. It has no process of its own by default.
func (j judge) sandbox(claim *core.Claim, c core.Container, pod *cri.PodSandbox) {
	claim.Ownership = core.OwnershipMine
	name := podName(pod)
	claim.Group, claim.DisplayName = "pod "+name, name+"/POD"
	claim.Labels = labels(pod.GetLabels())
	claim.TakesAlong = slices.Clone(j.members[c.ID])
	var alive []core.Evidence
	unknown := false
	for _, id := range claim.TakesAlong {
		member := j.containers[id]
		switch member.GetState() {
		case cri.ContainerState_CONTAINER_EXITED:
			continue
		case cri.ContainerState_CONTAINER_CREATED, cri.ContainerState_CONTAINER_RUNNING:
		case cri.ContainerState_CONTAINER_UNKNOWN:
			unknown = true
		default:
			unknown = true
		}
		if len(alive) < 32 {
			alive = append(alive, j.note(core.EvidenceRecord, "", "the pod's container %s (%s) has not exited",
				clip(member.GetMetadata().GetName()), id.Short()))
		}
	}
	switch state := pod.GetState(); {
	case state == cri.PodSandboxState_SANDBOX_READY:
		claim.State, claim.Use = core.StateRunning, core.UseInUse
	case state != cri.PodSandboxState_SANDBOX_NOTREADY || unknown:
		claim.State, claim.Use = core.StateRunning, core.UseUnknown
	case len(alive) > 0:
		claim.State, claim.Use = core.StateRunning, core.UseInUse
	default:
		claim.State, claim.Use = core.StateStopped, core.UseIdle
	}
	claim.Evidence = append([]core.Evidence{j.podNote(c.ID, pod)}, alive...)
	j.live(claim, c)
	claim.Revision = revision{kind: kindSandbox, pod: c.ID}.String()
}

// labels joins labels; of one key the last counts. The kubelet gives the labels that a pod's user wrote
// to the sandbox alone, so that those of a container are its pod's and its own.
func labels(of ...map[string]string) map[string]string {
	var all map[string]string
	for _, some := range of {
		for key, value := range some {
			if all == nil {
				all = make(map[string]string)
			}
			all[key] = value
		}
	}
	return all
}

func podName(pod *cri.PodSandbox) string {
	return clip(pod.GetMetadata().GetNamespace() + "/" + pod.GetMetadata().GetName())
}

func (j judge) podNote(id core.ContainerID, pod *cri.PodSandbox) core.Evidence {
	var word string
	switch pod.GetState() {
	case cri.PodSandboxState_SANDBOX_READY:
		word = "ready"
	case cri.PodSandboxState_SANDBOX_NOTREADY:
		word = "not ready"
	default:
		word = "in a state that is not known here, " + clip(pod.GetState().String())
	}
	return j.note(core.EvidencePod, "", "pod %s, uid %s, attempt %d, sandbox %s, %s",
		podName(pod), clip(pod.GetMetadata().GetUid()), pod.GetMetadata().GetAttempt(), id.Short(), word)
}

func statePath(c core.Container) string {
	if c.Directory == "" {
		return ""
	}
	return filepath.Join(c.Directory, stateFile)
}

// live adds what CRI-O's record of the state knows besides: the process, a pause, images that are
// mounted as volumes. Without the record nothing is lost but detail.
func (j judge) live(claim *core.Claim, c core.Container) {
	s, err := readState(string(c.ID), c.Directory)
	if err != nil {
		return
	}
	claim.ImageVolumes = s.volumes
	if !claim.State.Live() && claim.State != core.StateCreated {
		return
	}
	if s.paused && claim.Use == core.UseInUse {
		claim.State = core.StatePaused
	}
	if process := j.proc.find(s.pid, s.start); process != nil {
		e := j.note(core.EvidenceProcess, statePath(c), "the container's first process")
		e.Process = process
		claim.Evidence = append(claim.Evidence, e)
	}
}

// forgotten claims what CRI-O made and does not know any more. Whether something runs in it is for
// the kernel to say, but for the one trace of a living pod that has no process: its shared memory is
// unmounted when it is stopped (internal/lib/sandbox/sandbox_linux.go, UnmountShm).
func (j judge) forgotten(claim *core.Claim, c core.Container, m metadata) {
	claim.Ownership = core.OwnershipMine
	claim.State, claim.Use = core.StateStopped, core.UseIdle
	claim.Group = "pod " + m.group()
	claim.DisplayName = m.group() + "/" + clip(m.name)
	kind := kindForgottenContainer
	if m.sandbox {
		kind = kindForgottenSandbox
		claim.DisplayName = m.group() + "/POD"
		if mounted, err := shmMounted(c); err != nil {
			claim.Use = core.UseUnknown
			claim.Evidence = append(claim.Evidence, j.note(core.EvidenceRecord, shmPath(c),
				"CRI-O does not know it any more, and whether its pod lives cannot be told: %v", err))
		} else if mounted {
			claim.Use = core.UseUnknown
			claim.Evidence = append(claim.Evidence, j.note(core.EvidenceMount, shmPath(c),
				"CRI-O does not know it any more, but its pod's shared memory is still mounted at %s", shmPath(c)))
		}
	}
	claim.Evidence = append(claim.Evidence, j.note(core.EvidenceRecord, "", "CRI-O does not know it any more"))
	if s, err := readState(string(c.ID), c.Directory); err == nil {
		claim.ImageVolumes, claim.Labels = s.volumes, s.labels
	}
	claim.Revision = revision{kind: kind, pod: core.ContainerID(m.podID)}.String()
}
