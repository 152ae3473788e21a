package main

import (
	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
)

// document is what rmi, rm and plan print with --format json. Its shape is part of the interface:
// fields are added, never renamed. The parts of core have the names of their JSON tags.
type document struct {
	DryRun bool       `json:"dryRun"`
	Force  core.Force `json:"force"`
	// Plan was made before anything was done.
	Plan *core.Plan `json:"plan"`
	// Results belong to plan.removals, one each; absent in a dry run.
	Results []resultView `json:"results,omitempty"`
	// Completed are images whose deletion an earlier run was interrupted in, and that are deleted now.
	Completed []completedView `json:"completed,omitempty"`
	// Prune is what a prune says besides.
	Prune *pruneView `json:"prune,omitempty"`
	// Errors are the references that fit nothing or too much.
	Errors         []errorView `json:"errors,omitempty"`
	ReclaimedBytes int64       `json:"reclaimedBytes"`
	// ReclaimedAtLeast is whether the size of something that went was not known.
	ReclaimedAtLeast bool `json:"reclaimedAtLeast,omitempty"`
	ExitCode         int  `json:"exitCode"`
}

// pruneView is what a prune says beside its plan and results.
type pruneView struct {
	// Kept is what was meant and has to stay.
	Kept []core.Blocker `json:"kept"`
	// Bytes are what the plan gives free; AtLeast is whether something was not measured.
	Bytes   int64 `json:"bytes"`
	AtLeast bool  `json:"atLeast,omitempty"`
	// Disk is the file system before, After the same afterwards; Wanted is what was to become free of it.
	Disk   *core.Disk `json:"disk,omitempty"`
	After  *core.Disk `json:"after,omitempty"`
	Wanted int64      `json:"wanted,omitempty"`
}

func newPruneView(p *service.Pruned) *pruneView {
	return &pruneView{Kept: append([]core.Blocker{}, p.Kept...), Bytes: p.Bytes, AtLeast: p.AtLeast, Disk: p.Disk, After: p.After, Wanted: p.Wanted}
}

// resultView is one removal's result, and the row of a Go template.
type resultView struct {
	Reference string           `json:"reference"`
	Image     core.ImageID     `json:"image,omitempty"`
	Container core.ContainerID `json:"container,omitempty"`
	// Status is done, kept (nothing was changed) or failed (done says what was done all the same).
	Status         string         `json:"status"`
	Done           []core.Action  `json:"done"`
	Failed         []failureView  `json:"failed,omitempty"`
	Blockers       []core.Blocker `json:"blockers,omitempty"`
	Notes          []string       `json:"notes,omitempty"`
	ReclaimedBytes int64          `json:"reclaimedBytes"`
}

// ID is the image or the container, for templates.
func (v resultView) ID() string { return string(v.Image) + string(v.Container) }

type failureView struct {
	Action core.Action `json:"action"`
	Error  string      `json:"error"`
}

type completedView struct {
	Image core.ImageID `json:"image"`
	Names []string     `json:"names"`
}

type errorView struct {
	Reference string `json:"reference"`
	Error     string `json:"error"`
}

func (d *document) add(reference string, r core.Result) {
	v := resultView{
		Reference: reference, Image: r.Removal.Image, Container: r.Removal.Container,
		Status: "done", Done: r.Done, Blockers: r.Blockers, Notes: r.Removal.Notes, ReclaimedBytes: r.Bytes,
	}
	if v.Done == nil {
		v.Done = []core.Action{}
	}
	for _, f := range r.Failed {
		v.Failed = append(v.Failed, failureView{f.Action, f.Err.Error()})
	}
	switch {
	case len(r.Failed) > 0:
		v.Status = "failed"
	case len(r.Blockers) > 0:
		v.Status = "kept"
	}
	d.Results = append(d.Results, v)
	d.ReclaimedBytes += r.Bytes
	d.ReclaimedAtLeast = d.ReclaimedAtLeast || r.AtLeast
}

// planned are the rows of a dry run.
func (d *document) planned() []resultView {
	var all []resultView
	for _, r := range d.Plan.Removals {
		v := resultView{Reference: r.Reference, Image: r.Image, Container: r.Container,
			Status: "planned", Done: []core.Action{}, Blockers: r.Blockers, Notes: r.Notes}
		if r.Blocked() {
			v.Status = "kept"
		}
		all = append(all, v)
	}
	return all
}

// reportDocument prints the document where a format was asked for.
func (a *app) reportDocument(d *document, f *format) error {
	if f == nil {
		return nil
	}
	d.ExitCode = a.code
	for i := range d.Plan.Removals { // lists are never null
		r := &d.Plan.Removals[i]
		r.Actions, r.Blockers = append([]core.Action{}, r.Actions...), append([]core.Blocker{}, r.Blockers...)
	}
	if f.json {
		return a.writeJSON(d)
	}
	rows := d.Results
	if d.DryRun {
		rows = d.planned()
	}
	return writeRows(a.out, f, rows, nil)
}
