package daemon

import (
	"context"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

func (h *handlers) ListPlugins(ctx context.Context, c removal.VarlinkCall) error {
	all := []removal.Plugin{}
	for _, p := range callOf(ctx).setup.Plugins.Plugins() {
		all = append(all, transcribe.FromPlugin(p))
	}
	return c.ReplyListPlugins(ctx, all)
}

func (h *handlers) RegisterPlugin(ctx context.Context, c removal.VarlinkCall, address string) error {
	call := callOf(ctx)
	if err := h.announce(ctx, call, address); err != nil {
		return c.ReplyPluginRefused(ctx, address, err.Error())
	}
	working, cancel := h.untilStop(ctx)
	defer cancel()
	p, err := call.setup.Plugins.Register(working, address)
	h.settled(call, address, err)
	if err != nil {
		return c.ReplyPluginRefused(ctx, address, err.Error())
	}
	return c.ReplyRegisterPlugin(ctx, transcribe.FromPlugin(p))
}

func (h *handlers) UnregisterPlugin(ctx context.Context, c removal.VarlinkCall, name string) error {
	call := callOf(ctx)
	if err := h.announce(ctx, call, name); err != nil {
		return c.ReplyOperationFailed(ctx, err.Error())
	}
	err := call.setup.Plugins.Unregister(name)
	h.settled(call, name, err)
	switch {
	case errors.Is(err, ErrPluginUnknown):
		return c.ReplyPluginNotFound(ctx, name)
	case err != nil:
		return c.ReplyOperationFailed(ctx, fmt.Sprintf("unregister plugin %s: %v", name, err))
	}
	return c.ReplyUnregisterPlugin(ctx)
}

// announce writes down that a plugin is about to be registered or unregistered.
func (h *handlers) announce(ctx context.Context, call *call, plugin string) error {
	return h.audit(call.setup, record{Event: "begun", Method: call.method, Caller: call.setup.recordCaller(ctx, call.caller),
		Request: &requestRecord{Plugin: clip(plugin)}})
}

// settled writes down what came of it.
func (h *handlers) settled(call *call, plugin string, err error) {
	r := record{Event: "ended", Method: call.method, Request: &requestRecord{Plugin: clip(plugin)}}
	if err != nil {
		r.Error = clip(err.Error())
	}
	_ = h.audit(call.setup, r) // its beginning is written down, and ListPlugins tells what is so
}
