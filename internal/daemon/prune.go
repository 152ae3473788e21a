package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

func (h *handlers) PlanPrune(ctx context.Context, c removal.VarlinkCall, policy removal.PrunePolicy) error {
	request, err := transcribe.ToPruneRequest(transcribe.PruneIn{Policy: policy})
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	return h.read(ctx, c, "", func(ctx context.Context, s Service) (reply, error) {
		p, err := s.PlanPrune(ctx, request)
		if err != nil {
			return nil, err
		}
		w := transcribe.FromPruned(p)
		return func(ctx context.Context) error { return c.ReplyPlanPrune(ctx, w) }, nil
	})
}

func (h *handlers) Prune(ctx context.Context, c removal.VarlinkCall, policy removal.PrunePolicy, revision *string) error {
	request, err := transcribe.ToPruneRequest(transcribe.PruneIn{Policy: policy, Revision: revision})
	if err == nil && revision != nil && !isRevision(*revision) {
		err = errNoRevision
	}
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	return h.carryOut(ctx, c, h.pruneTask(callOf(ctx), request), recordPrune(request), "", answer{
		step: func(c removal.VarlinkCall, o *operation, p core.Progress) error {
			progress := transcribe.FromProgress(p)
			return c.ReplyPrune(ctx, o.id, &progress, nil)
		},
		end: func(c removal.VarlinkCall, o *operation) error {
			w := transcribe.FromPruned(o.result.pruned)
			return c.ReplyPrune(ctx, o.id, nil, &w)
		},
	})
}

// pruneTask is a prune for a call. It touches what it would take now.
func (h *handlers) pruneTask(call *call, r service.PruneRequest) task {
	key, err := json.Marshal(r)
	if err != nil {
		key = []byte(newID()) // it is the same as no other one
	}
	return task{
		key: "prune " + string(key),
		resolve: func(ctx context.Context) (*service.Meaning, error) {
			p, err := h.planPrune(ctx, call.setup, r)
			if err != nil {
				return nil, err
			}
			return &service.Meaning{Targets: touchedBy(p.Plan)}, nil
		},
		run: func(ctx context.Context, o *operation) (result, error) {
			return h.written(call, o, recordPrune(r), func() (result, error) {
				p, err := call.setup.Service.Prune(ctx, r, func(p core.Progress) {
					o.tell(p)
					h.publish(o, p)
				})
				if err != nil {
					return result{}, err
				}
				return result{outcome: p.Outcome, pruned: p}, nil
			})
		},
	}
}

// touchedBy are the full IDs of what a plan removes.
func touchedBy(plan *core.Plan) []string {
	var ids []string
	for _, r := range plan.Removals {
		for _, a := range r.Actions {
			ids = append(ids, string(a.Image)+string(a.Container))
		}
	}
	return ids
}

func (h *handlers) GetUsage(ctx context.Context, c removal.VarlinkCall) error {
	if !c.WantsMore() {
		return wire.ReplyExpectedMore(ctx, c.Call)
	}
	return h.read(ctx, c, "", func(ctx context.Context, s Service) (reply, error) {
		u, err := s.Usage(ctx)
		return func(ctx context.Context) error { return replyUsage(ctx, c, u) }, err
	})
}

func replyUsage(ctx context.Context, c removal.VarlinkCall, u *service.Usage) error {
	c.Continues = true
	for _, i := range u.Account.Images {
		w := transcribe.FromImageUsage(i)
		if err := c.ReplyGetUsage(ctx, &w, nil, nil, nil); err != nil {
			return err
		}
	}
	for _, i := range u.Account.Containers {
		w := transcribe.FromContainerUsage(i)
		if err := c.ReplyGetUsage(ctx, nil, &w, nil, nil); err != nil {
			return err
		}
	}
	for _, i := range u.Account.Layers {
		w := transcribe.FromLayerUsage(i)
		if err := c.ReplyGetUsage(ctx, nil, nil, &w, nil); err != nil {
			return err
		}
	}
	c.Continues = false
	w := transcribe.FromUsageTotals(u)
	return c.ReplyGetUsage(ctx, nil, nil, nil, &w)
}

// KeepClean prunes by itself, as often as the setup says, where the store's file system is full, until ctx
// ends. Each prune is an operation like those of callers, and is written down like them.
func (d *Daemon) KeepClean(ctx context.Context) {
	for {
		d.mu.Lock()
		every, replaced := d.setup.PruneEvery, d.replaced
		d.mu.Unlock()
		var due <-chan time.Time // never, where that is what the setup says
		if every > 0 {
			due = time.After(every)
		}
		select {
		case <-ctx.Done():
			return
		case <-d.stopping:
			return
		case <-replaced:
		case <-due:
			d.keepClean(ctx)
		}
	}
}

// keepClean prunes once, where there is something to do.
func (d *Daemon) keepClean(ctx context.Context) {
	if !d.begin() {
		return
	}
	defer d.finish()
	setup := d.use()
	defer d.release(setup)
	request := service.PruneRequest{WhenFull: true}
	h := &handlers{d}
	plan, err := d.planPrune(ctx, setup, request)
	switch {
	case err != nil:
		d.logger.Error("how full the store is, and what may go, is not known", "error", err)
		return
	case plan.Wanted == 0:
		return
	case len(plan.Plan.Removals) == 0:
		d.logger.Warn("the store's file system is full, and nothing may go", "used", plan.Disk.Used(), "high", plan.Thresholds.High,
			"wanted", plan.Wanted, "kept", len(plan.Kept))
		return
	}
	own := &call{method: "Prune", setup: setup, caller: caller{privileged: true,
		Peer: wire.Peer{UID: os.Getuid(), GID: os.Getgid(), PID: os.Getpid()}}}
	ctx = withCall(ctx, own)
	o, err := h.operate(ctx, h.pruneTask(own, request), recordPrune(request))
	if err != nil {
		d.logger.Error("the store's file system is full, and is not pruned", "error", err)
		return
	}
	err = o.follow(ctx, nil)
	h.leave(own, o, err != nil)
	if err = errors.Join(err, o.err); err != nil {
		d.logger.Error("the store's file system is full, and is not pruned", "error", err)
		return
	}
	p := o.result.pruned
	failed := 0
	var bytes int64
	for _, r := range p.Results {
		bytes += r.Bytes
		if !r.OK() {
			failed++
		}
	}
	level, used := slog.LevelInfo, -1
	if p.After != nil {
		used = p.After.Used()
	}
	if failed > 0 || used > p.Thresholds.Low {
		level = slog.LevelWarn
	}
	d.logger.Log(ctx, level, "the store's file system was full, and is pruned", "operation", o.id, "removed", len(p.Results)-failed,
		"failed", failed, "bytes", bytes, "kept", len(p.Kept), "low", p.Thresholds.Low, "used", used)
}

// planPrune waits for its turn among those that look.
func (d *Daemon) planPrune(ctx context.Context, s *Setup, r service.PruneRequest) (*service.Pruned, error) {
	done, err := d.gate.look(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return s.Service.PlanPrune(ctx, r)
}

var errNoRevision = &transcribe.ParameterError{Parameter: "revision", Err: errors.New("it has 64 hexadecimal digits")}
