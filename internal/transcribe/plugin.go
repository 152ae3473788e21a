package transcribe

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromPlugin writes how a plugin stands.
func FromPlugin(p service.Plugin) removal.Plugin {
	return removal.Plugin{Name: p.Name, Address: text(p.Address), Source: p.Source, Required: p.Required, WhenUnavailable: p.WhenUnavailable,
		Status: p.Status, EngineVersion: text(p.EngineVersion), ProtocolVersion: optional(int64(p.ProtocolVersion)),
		Capabilities: texts[string, string](p.Capabilities), LastError: text(p.LastError), LastSeen: fromMoment(p.LastSeen), Advice: text(p.Advice)}
}

// ToPlugin reads how a plugin stands.
func ToPlugin(p removal.Plugin) (service.Plugin, error) {
	out := service.Plugin{Name: p.Name, Address: value(p.Address), Source: p.Source, Required: p.Required, WhenUnavailable: p.WhenUnavailable,
		Status: p.Status, EngineVersion: value(p.EngineVersion), ProtocolVersion: int(value(p.ProtocolVersion)),
		Capabilities: p.Capabilities, LastError: value(p.LastError), Advice: value(p.Advice)}
	var err error
	if out.LastSeen, err = toMoment(p.LastSeen); err != nil {
		return out, fmt.Errorf("read how plugin %s stands: %w", p.Name, err)
	}
	return out, nil
}

// FromEvent writes an event.
func FromEvent(e service.Event) removal.Event {
	out := removal.Event{Sequence: e.Sequence, Time: fromTime(e.Time), Type: string(e.Type), OperationId: text(e.Operation), Error: text(e.Error)}
	if e.UID != nil {
		uid := int64(*e.UID)
		out.Uid = &uid
	}
	if e.PID != nil {
		pid := int64(*e.PID)
		out.Pid = &pid
	}
	if e.Action != nil {
		action := FromAction(*e.Action)
		out.Action = &action
	}
	out.Image, out.Names = text(e.Image), names(e.Names)
	if e.Plugin != nil {
		plugin := FromPlugin(*e.Plugin)
		out.Plugin = &plugin
	}
	return out
}

// ToEvent reads an event.
func ToEvent(e removal.Event) (service.Event, error) {
	out := service.Event{Sequence: e.Sequence, Type: service.EventType(e.Type), Operation: value(e.OperationId),
		Image: core.ImageID(value(e.Image)), Names: value(e.Names), Error: value(e.Error)}
	if e.Uid != nil {
		uid := int(*e.Uid)
		out.UID = &uid
	}
	if e.Pid != nil {
		pid := int(*e.Pid)
		out.PID = &pid
	}
	var moment, action, plugin error
	out.Time, moment = toTime(e.Time)
	if e.Action != nil {
		out.Action, action = pointer(ToAction(*e.Action))
	}
	if e.Plugin != nil {
		out.Plugin, plugin = pointer(ToPlugin(*e.Plugin))
	}
	if err := errors.Join(moment, action, plugin); err != nil {
		return out, fmt.Errorf("read event %d: %w", e.Sequence, err)
	}
	return out, nil
}

func pointer[T any](v T, err error) (*T, error) { return &v, err }
