package crio

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// List claims every container and every pod that CRI-O lists, where its store is the one asked about.
func (p *Plugin) List(ctx context.Context, store core.StoreInfo) ([]core.Claim, error) {
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
	switch v.site {
	case siteOther:
		return nil, nil
	case siteSame:
	default:
		return nil, fmt.Errorf("CRI-O's store is %s, which cannot be compared with this one", clip(v.root))
	}
	j := judge{Plugin: p, view: v, at: p.now()}
	claims := make([]core.Claim, 0, len(v.containers)+len(v.sandboxes))
	for id, listed := range v.containers {
		c := recordOf(store, id)
		claim := core.Claim{Container: id}
		j.application(&claim, c, listed, metadata{})
		if claim.State.Live() && lost(c) {
			j.first(ctx, client, &claim)
		}
		claims = append(claims, claim)
	}
	for id, pod := range v.sandboxes {
		claim := core.Claim{Container: id}
		j.sandbox(&claim, recordOf(store, id), pod)
		claims = append(claims, claim)
	}
	slices.SortFunc(claims, func(a, b core.Claim) int { return cmp.Compare(a.Container, b.Container) })
	return claims, nil
}

// recordOf is where the store has a container of that ID, if it has it.
func recordOf(store core.StoreInfo, id core.ContainerID) core.Container {
	folder := filepath.Join(store.GraphDriver+"-containers", string(id), "userdata")
	return core.Container{ID: id, Directory: filepath.Join(store.GraphRoot, folder), RunDirectory: filepath.Join(store.RunRoot, folder)}
}

// lost is whether the container's record of its state is gone, as after its storage was deleted.
func lost(c core.Container) bool {
	_, err := os.Lstat(statePath(c))
	return errors.Is(err, fs.ErrNotExist)
}

// first adds the first process of a container whose state.json is gone, as CRI-O itself remembers it
// (server/container_status.go, createContainerInfo). Without it nothing is lost but detail.
func (j judge) first(ctx context.Context, c *client, claim *core.Claim) {
	answer, err := c.runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: string(claim.Container), Verbose: true})
	if err != nil {
		return
	}
	pid := parseInfo(answer.GetInfo()["info"])
	if process := j.proc.find(pid, j.proc.started(pid)); process != nil {
		e := j.note(core.EvidenceProcess, "", "the container's first process")
		e.Process = process
		claim.Evidence = append(claim.Evidence, e)
	}
}

// parseInfo reads the pid out of what CRI-O says more of a container; 0 where there is none.
func parseInfo(text string) int {
	var info struct {
		PID int `json:"pid"`
	}
	if json.Unmarshal([]byte(text), &info) != nil {
		return 0
	}
	return info.PID
}

// started is the start time of the process that has a pid now; 0 where there is none.
func (p processes) started(pid int) uint64 {
	text, err := os.ReadFile(filepath.Join(p.root, strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	s, err := parseStat(text)
	if err != nil {
		return 0
	}
	return s.start
}
