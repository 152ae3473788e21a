package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// Build is nobody's but its caller's: two that ask for the same may find other files there. It waits for no
// removal, nor does one wait for it: what it has in the store is in use.
func (h *handlers) Build(ctx context.Context, c removal.VarlinkCall, in removal.BuildRequest) error {
	request, err := transcribe.ToBuild(in)
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	leave, err := h.gate.build()
	if err != nil {
		return c.ReplyBuildFailed(ctx, err.Error())
	}
	defer leave()
	call, id := callOf(ctx), newID()
	working, cancel := h.untilStop(ctx)
	defer cancel()
	var gone error
	built, err := h.writtenBuild(working, call, id, request, func(line string) {
		if gone != nil || !c.WantsMore() {
			return
		}
		c := c
		c.Continues = true
		if gone = c.ReplyBuild(ctx, id, []string{line}, nil, nil); gone != nil {
			cancel()
		}
	})
	switch {
	case gone != nil:
		return gone
	case err != nil && errors.Is(context.Cause(working), errStopping):
		return c.ReplyBuildFailed(ctx, "the service is stopping, and has ended the build")
	case err != nil:
		return c.ReplyBuildFailed(ctx, err.Error())
	}
	image, names := string(built.Image), append([]string{}, built.Names...)
	return c.ReplyBuild(ctx, id, []string{}, &image, &names)
}

// writtenBuild builds, writes down that it begins and what came of it, and tells those that watch.
func (h *handlers) writtenBuild(ctx context.Context, call *call, id string, r core.BuildRequest, output func(string)) (*service.Built, error) {
	began := time.Now()
	err := h.audit(call.setup, record{Event: "begun", Method: call.method, Operation: id, Caller: call.setup.recordCaller(ctx, call.caller),
		Request: &requestRecord{Context: clip(r.Context), Names: clips(r.Names)}})
	if err != nil {
		return nil, err
	}
	end := record{Event: "ended", Method: call.method, Operation: id}
	built, err := call.setup.Service.Build(ctx, r, output)
	if err == nil {
		a := core.Action{Verb: verbBuild, Image: built.Image}
		if len(built.Names) > 0 {
			a.Name = built.Names[0]
		}
		end.Outcome = &outcomeRecord{Done: []actionRecord{recordAction(a, nil)}}
		h.events.publish(service.Event{Type: service.EventImageBuilt, Operation: id, UID: &call.UID, PID: &call.PID,
			Image: built.Image, Names: clips(built.Names)})
	} else {
		end.Error = clip(err.Error())
	}
	end.Milliseconds = max(time.Since(began).Milliseconds(), 1)
	if unwritten := h.audit(call.setup, end); unwritten != nil && err == nil {
		err = fmt.Errorf("image %s was built, and that is not in the audit log: %w", built.Image, unwritten)
	}
	return built, err
}
