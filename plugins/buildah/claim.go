package buildah

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/unmoor/unmoor/core"
)

// window is how long after its creation a container without a buildah.json may still be given one.
// In Buildah only the reading of the image's config lies between the two (containers/buildah
// v1.39.3, new.go, newBuilder), milliseconds as a rule.
const window = 10 * time.Minute

// shown is the most processes that one claim lists of a kind.
const shown = 100

// Claim says which containers are Buildah's, from their records and one look at the processes.
func (p *Plugin) Claim(ctx context.Context, store core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	verdicts, err := p.judge(ctx, store, containers)
	if err != nil {
		return nil, err
	}
	claims := make([]core.Claim, len(verdicts))
	for i, v := range verdicts {
		claims[i] = v.claim
	}
	return claims, nil
}

// verdict is a claim with the processes that it rests on.
type verdict struct {
	claim core.Claim
	// inside and holds are tenants, workers the processes that were told to work in the container.
	inside, holds []tenant
	workers       []*actor
	// makers are the live builders that may have made it.
	makers []*actor
}

// judge makes a verdict on each container.
func (p *Plugin) judge(ctx context.Context, store core.StoreInfo, containers []core.Container) ([]verdict, error) {
	verdicts := make([]verdict, len(containers))
	// Buildah's containers have no metadata. One that has is its engine's, even with a buildah.json:
	// podman commit leaves one in Podman's container (containers/podman, libpod/container_commit.go;
	// containers/buildah v1.28.2, import.go, importBuilder; seen with podman 4.3.1).
	var candidates []core.Container
	names := make(map[string]bool)
	for i, c := range containers {
		verdicts[i].claim = core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine}
		if c.Metadata == "" {
			candidates = append(candidates, c)
		}
		for _, name := range c.Names {
			names[name] = true
		}
	}
	if len(candidates) == 0 {
		return verdicts, nil
	}
	// The processes before the records: a builder that has ended by now has written its records.
	s, err := p.look(store, candidates)
	if err != nil {
		return nil, err
	}
	for i, c := range containers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if c.Metadata == "" {
			verdicts[i] = s.judge(c, func(name string) bool { return names[name] })
		}
	}
	return verdicts, nil
}

func (s *scan) judge(c core.Container, taken func(string) bool) verdict {
	r, err := readRecord(c.Directory)
	switch {
	case c.Directory == "":
		err = errors.New("the store names no directory of it")
	case errors.Is(err, errNoRecord):
		return verdict{claim: s.recordless(c)}
	case err == nil && !r.of(c.ID):
		err = fmt.Errorf("%s is of another container, %.12q", filepath.Join(c.Directory, stateFile), r.ContainerID)
	}
	if err != nil {
		return verdict{claim: core.Claim{Container: c.ID, Ownership: core.OwnershipUnknown,
			Evidence: []core.Evidence{s.note(c, err.Error())}}}
	}
	v := verdict{inside: s.inside[c.LayerID], holds: s.holds[c.LayerID]}
	if c.LayerID == "" {
		v.inside, v.holds = nil, nil
	}
	claim := core.Claim{Container: c.ID, Ownership: core.OwnershipMine, DisplayName: r.Container, Labels: r.OCI.Config.Labels}
	if len(c.Names) > 0 {
		claim.DisplayName = c.Names[0]
	}
	var perhaps []*actor
	v.workers, perhaps = s.workers(c, taken)
	v.makers = s.makers(c)
	switch {
	case len(v.inside)+len(v.holds)+len(v.workers) > 0:
		claim.Use = core.UseInUse
		claim.State, claim.Group = v.state()
		claim.Evidence = s.inUse(v)
	case len(v.makers)+len(perhaps) > 0:
		claim.Use, claim.State = core.UseUnknown, core.StateBuilding
		if len(v.makers) == 1 {
			claim.Group = group(v.makers[0])
		}
		for _, a := range v.makers {
			why := "it lives since before the container was made"
			if !s.older(a, c) {
				why = "the container is mounted, as in a build"
			}
			claim.Evidence = append(claim.Evidence, s.seen(a.process,
				fmt.Sprintf("pid %d (%s) may be building with it: %s", a.pid, a.word(), why)))
		}
		for _, a := range perhaps {
			claim.Evidence = append(claim.Evidence, s.seen(a.process,
				fmt.Sprintf("pid %d (%s) may be working in it: its command line seems to name it", a.pid, a.word())))
		}
	default:
		// Buildah has no states. What nobody works in is as if stopped.
		claim.Use, claim.State = core.UseIdle, core.StateStopped
	}
	from := "working container from scratch"
	if r.Image != "" {
		from = "working container from " + r.Image
	}
	claim.Evidence = append(claim.Evidence, s.note(c, from))
	claim.Revision = revision(r, claim)
	v.claim = claim
	return v
}

// recordless judges a container that has no metadata and no buildah.json: nobody's, but for the
// moment in which a live builder has made it and not yet written the record. A builder that is
// stopped, or hangs on a disk, may stay in that moment for as long as it likes.
func (s *scan) recordless(c core.Container) core.Claim {
	claim := core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine}
	if !c.Volatile { // Buildah's are since 1.20 (containers/buildah, new.go, newBuilder)
		return claim
	}
	for _, a := range s.makers(c) {
		if a.stuck() || s.at.Sub(c.Created) < window {
			claim.Ownership = core.OwnershipUnknown
			claim.Evidence = append(claim.Evidence, s.seen(a.process,
				fmt.Sprintf("pid %d (%s) may have made it and not yet written its %s", a.pid, a.word(), stateFile)))
		}
	}
	return claim
}

// state is the word for a container in use, and its build.
func (v verdict) state() (core.State, string) {
	for _, t := range slices.Concat(v.inside, v.holds) {
		if t.actor != nil && t.actor.makes {
			return core.StateBuilding, group(t.actor)
		}
	}
	if len(v.inside)+len(v.holds) > 0 {
		return core.StateRunning, ""
	}
	for _, a := range v.workers {
		if a.verb == "run" {
			return core.StateRunning, ""
		}
	}
	return core.StateBuilding, ""
}

func group(a *actor) string {
	if a.verb == "from" {
		return ""
	}
	return fmt.Sprintf("build pid %d", a.pid)
}

// inUse is the evidence for a container in use: who started it, what runs there, what else holds it.
func (s *scan) inUse(v verdict) []core.Evidence {
	var found []core.Evidence
	listed := make(map[int]bool)
	add := func(p process, detail string) {
		if !listed[p.pid] {
			listed[p.pid] = true
			found = append(found, s.seen(p, detail))
		}
	}
	for _, a := range v.workers {
		add(a.process, fmt.Sprintf("works in the container (%s)", a.word()))
	}
	for i, t := range v.inside {
		if i == shown {
			break
		}
		switch {
		case t.actor == nil:
			add(t.process, "runs in the container, and the builder that started it is gone")
		default:
			add(t.process, fmt.Sprintf("runs in the container for pid %d (%s)", t.actor.pid, t.actor.word()))
		}
	}
	for i, t := range v.holds {
		if i == shown {
			break
		}
		add(t.process, "has the container mounted to run something in it")
	}
	for _, t := range slices.Concat(v.inside, v.holds) {
		if t.actor != nil {
			add(t.actor.process, fmt.Sprintf("started what runs in the container (%s)", t.actor.word()))
		}
	}
	return found
}

func (s *scan) seen(p process, detail string) core.Evidence {
	key := [2]uint64{uint64(p.pid), p.start}
	if _, ok := s.described[key]; !ok {
		s.described[key] = p.describe(s.hostNS)
	}
	d := s.described[key]
	return core.Evidence{Source: Name, Kind: core.EvidenceProcess, Detail: detail, Process: &d, Time: s.at}
}

func (s *scan) note(c core.Container, detail string) core.Evidence {
	return core.Evidence{Source: Name, Kind: core.EvidenceRecord, Detail: detail,
		Path: filepath.Join(c.Directory, stateFile), Time: s.at}
}

// revision changes with the container, its use and the processes behind that.
func revision(r record, c core.Claim) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s\x00%s\x00%s\x00", r.ContainerID, r.ImageID, c.Use, c.State)
	behind := core.Processes(c.Evidence)
	slices.SortFunc(behind, func(a, b core.Process) int { return cmp.Compare(a.PID, b.PID) })
	for _, p := range behind {
		fmt.Fprintf(h, "%d@%d ", p.PID, p.StartTime)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// errNotOurs is for a handle whose claim is not this plugin's.
var errNotOurs = fmt.Errorf("it was not claimed by this plugin: %w", core.ErrNotOwner)

// claimed is whether a handle's claim may be this plugin's. What works in a container may be others from one
// moment to the next, so that no more is asked of the revision.
func claimed(h core.Handle) bool {
	b, err := hex.DecodeString(h.Claim.Revision)
	return err == nil && (len(b) == 16 || len(b) == 0)
}
