package service

import (
	"fmt"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Event is something that happened to the store or to a plugin.
type Event struct {
	// Sequence grows by one from event to event.
	Sequence int64     `json:"sequence"`
	Time     time.Time `json:"time"`
	Type     EventType `json:"type"`
	// Operation, UID and PID say by which removal, and who asked for it, where that is known.
	Operation string       `json:"operationId,omitempty"`
	UID       *int         `json:"uid,omitempty"`
	PID       *int         `json:"pid,omitempty"`
	Action    *core.Action `json:"action,omitempty"`
	Plugin    *Plugin      `json:"plugin,omitempty"`
	// Image is one that is new, Names are those that it has.
	Image core.ImageID `json:"image,omitempty"`
	Names []string     `json:"names,omitempty"`
	Error string       `json:"error,omitempty"`
}

// EventType says what happened. One that a reader does not know is shown, never ignored.
type EventType string

// The types of event.
const (
	EventActionStarted    EventType = "action_started"
	EventActionFinished   EventType = "action_finished"
	EventActionFailed     EventType = "action_failed"
	EventPluginChanged    EventType = "plugin_changed"
	EventImageRemoved     EventType = "image_removed"
	EventImageUntagged    EventType = "image_untagged"
	EventContainerRemoved EventType = "container_removed"
	EventImageBuilt       EventType = "image_built"
	EventImageLoaded      EventType = "image_loaded"
	EventImageImported    EventType = "image_imported"
)

// Comes is whether an image or a container, or a name of one, came or went.
func (t EventType) Comes() bool {
	switch t {
	case EventImageRemoved, EventImageUntagged, EventContainerRemoved, EventImageBuilt, EventImageLoaded, EventImageImported:
		return true
	case EventActionStarted, EventActionFinished, EventActionFailed, EventPluginChanged:
	}
	return false
}

// EventsLostError says that events of the past that were asked for are no longer kept.
type EventsLostError struct {
	// Oldest is the first that is.
	Oldest int64
}

func (e *EventsLostError) Error() string {
	return fmt.Sprintf("what was asked for is no longer kept; the oldest event is %d", e.Oldest)
}
