package daemon

import (
	"context"
	"encoding/json"

	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

func (h *handlers) Repair(ctx context.Context, c removal.VarlinkCall, names *[]string, settledMs, gracePeriodMs *int64) error {
	request, err := transcribe.ToExamineRequest(transcribe.ExamineIn{Names: names, SettledMs: settledMs, GracePeriodMs: gracePeriodMs}, true)
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	call := callOf(ctx)
	o, err := h.operate(ctx, h.repairTask(call, request), recordExamination(request))
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	if c.IsOneway() {
		return nil
	}
	err = o.follow(ctx, nil)
	h.leave(call, o, err != nil)
	switch {
	case err != nil:
		return err
	case o.err != nil:
		return transcribe.ReplyError(ctx, c, "", o.err)
	}
	w := transcribe.FromExamination(o.result.examination)
	return c.ReplyRepair(ctx, w.Findings, w.Silences, w.UnknownNames)
}

// repairTask is a repair for a call. It may touch anything, and what a removal is about to do may look like
// damage: nothing else runs beside it.
func (h *handlers) repairTask(call *call, r service.ExamineRequest) task {
	key, err := json.Marshal(r)
	if err != nil {
		key = []byte(newID()) // it is the same as no other one
	}
	return task{
		key: "repair " + string(key),
		run: func(ctx context.Context, o *operation) (result, error) {
			return h.written(call, o, recordExamination(r), func() (result, error) {
				examination, err := call.setup.Service.Examine(ctx, r)
				return result{examination: examination}, err
			})
		},
	}
}
