package daemon

import (
	"context"
	"errors"

	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

func (h *handlers) GetStore(ctx context.Context, c removal.VarlinkCall) error {
	info, err := callOf(ctx).setup.Service.Store(ctx)
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	return c.ReplyGetStore(ctx, info.GraphRoot, info.RunRoot, info.GraphDriver)
}

func (h *handlers) Plan(ctx context.Context, c removal.VarlinkCall, targets removal.Targets, force *removal.Force, noPrune *bool) error {
	request, err := transcribe.ToRequest(transcribe.RemoveIn{Targets: targets, Force: force, NoPrune: noPrune})
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	return h.read(ctx, c, "", func(ctx context.Context, s Service) (reply, error) {
		outcome, err := s.Plan(ctx, request)
		if err != nil {
			return nil, err
		}
		w := transcribe.FromOutcome(outcome)
		return func(ctx context.Context) error { return c.ReplyPlan(ctx, w.Plan, w.Refusals) }, nil
	})
}

func (h *handlers) ListContainers(ctx context.Context, c removal.VarlinkCall, container, image *string, size *bool) error {
	query := transcribe.ToQuery(transcribe.ListContainersIn{Container: container, Image: image, Size: size})
	if query.Container == "" && !c.WantsMore() {
		return wire.ReplyExpectedMore(ctx, c.Call)
	}
	reference := query.Container
	if reference == "" {
		reference = query.Image
	}
	return h.read(ctx, c, reference, func(ctx context.Context, s Service) (reply, error) {
		var all []service.Container
		err := s.Containers(ctx, query, func(c service.Container) error {
			all = append(all, c)
			return nil
		})
		return stream(&c, all, func(ctx context.Context, one *service.Container) error {
			if one == nil {
				return c.ReplyListContainers(ctx, nil)
			}
			w := transcribe.FromContainer(*one)
			return c.ReplyListContainers(ctx, &w)
		}), err
	})
}

func (h *handlers) ListImages(ctx context.Context, c removal.VarlinkCall, image *string) error {
	reference := ""
	if image != nil {
		reference = *image
	}
	if reference == "" && !c.WantsMore() {
		return wire.ReplyExpectedMore(ctx, c.Call)
	}
	return h.read(ctx, c, reference, func(ctx context.Context, s Service) (reply, error) {
		var all []service.Image
		err := s.Images(ctx, reference, func(i service.Image) error {
			all = append(all, i)
			return nil
		})
		return stream(&c, all, func(ctx context.Context, one *service.Image) error {
			if one == nil {
				return c.ReplyListImages(ctx, nil)
			}
			w := transcribe.FromImage(*one)
			return c.ReplyListImages(ctx, &w)
		}), err
	})
}

func (h *handlers) Explain(ctx context.Context, c removal.VarlinkCall, reference string) error {
	return h.read(ctx, c, reference, func(ctx context.Context, s Service) (reply, error) {
		e, err := s.Explain(ctx, reference)
		if err != nil {
			return nil, err
		}
		w := transcribe.FromExplanation(e)
		return func(ctx context.Context) error {
			return c.ReplyExplain(ctx, w.Image, w.Container, w.Name, w.Names, w.LeastForce, w.Lifted, w.Blockers, w.Holders)
		}, nil
	})
}

func (h *handlers) Examine(ctx context.Context, c removal.VarlinkCall, names *[]string, settledMs *int64) error {
	request, err := transcribe.ToExamineRequest(transcribe.ExamineIn{Names: names, SettledMs: settledMs}, false)
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	return h.read(ctx, c, "", func(ctx context.Context, s Service) (reply, error) {
		e, err := s.Examine(ctx, request)
		if err != nil {
			return nil, err
		}
		w := transcribe.FromExamination(e)
		return func(ctx context.Context) error { return c.ReplyExamine(ctx, w.Findings, w.Silences, w.UnknownNames) }, nil
	})
}

// reply writes what was found.
type reply func(ctx context.Context) error

// read looks, and answers. What was found is gathered before it is sent: a caller that is slow to take it
// keeps nobody from looking.
func (h *handlers) read(ctx context.Context, c removal.VarlinkCall, reference string, look func(context.Context, Service) (reply, error)) error {
	call := callOf(ctx)
	leave, err := h.gate.answer(ctx, call.caller)
	if err != nil {
		return err // the caller has gone
	}
	defer leave()
	answer, err := h.look(ctx, call.setup.Service, look)
	if err != nil {
		return transcribe.ReplyError(ctx, c, reference, err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return answer(ctx)
}

// look waits for its turn and looks, and gives up when the daemon stops.
func (h *handlers) look(ctx context.Context, s Service, look func(context.Context, Service) (reply, error)) (reply, error) {
	ctx, cancel := h.untilStop(ctx)
	defer cancel()
	done, err := h.gate.look(ctx)
	if err == nil {
		defer done()
		var answer reply
		if answer, err = look(ctx, s); err == nil {
			return answer, nil
		}
	}
	if errors.Is(context.Cause(ctx), errStopping) {
		err = errStopping
	}
	return nil, err
}

// stream sends a list, or that it is empty.
func stream[T any](c *removal.VarlinkCall, all []T, send func(ctx context.Context, one *T) error) reply {
	return func(ctx context.Context) error {
		if len(all) == 0 {
			return send(ctx, nil)
		}
		for i := range all {
			if err := ctx.Err(); err != nil {
				return err
			}
			c.Continues = i < len(all)-1
			if err := send(ctx, &all[i]); err != nil {
				return err
			}
		}
		return nil
	}
}
