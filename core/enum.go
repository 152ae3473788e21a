package core

import "fmt"

// Use says whether something uses a container. The zero value is UseUnknown, which keeps it.
type Use int

// The three answers about use.
const (
	UseUnknown Use = iota
	UseIdle
	UseInUse
)

var useWords = []string{"unknown", "idle", "in_use"}

func (u Use) String() string               { return word(useWords, int(u)) }
func (u Use) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads one of unknown, idle, in_use; anything else is an error.
func (u *Use) UnmarshalText(b []byte) error { return parse(useWords, b, u, "use") }

// Ownership is one engine's answer to "is it yours?". The zero value is OwnershipUnknown: the
// engine cannot tell at present.
type Ownership int

// The three answers about ownership.
const (
	OwnershipUnknown Ownership = iota
	OwnershipNotMine
	OwnershipMine
)

var ownershipWords = []string{"unknown", "not_mine", "mine"}

func (o Ownership) String() string               { return word(ownershipWords, int(o)) }
func (o Ownership) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads one of unknown, not_mine, mine; anything else is an error.
func (o *Ownership) UnmarshalText(b []byte) error { return parse(ownershipWords, b, o, "ownership") }

// Pinned is an engine's answer to "is this image to be kept, containers or not?". The zero value is
// PinnedUnknown, which keeps it.
type Pinned int

// The three answers about a pin.
const (
	PinnedUnknown Pinned = iota
	PinnedNo
	PinnedYes
)

var pinnedWords = []string{"unknown", "no", "yes"}

func (p Pinned) String() string               { return word(pinnedWords, int(p)) }
func (p Pinned) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads one of unknown, no, yes; anything else is an error.
func (p *Pinned) UnmarshalText(b []byte) error { return parse(pinnedWords, b, p, "pin") }

// HoldingKind is what all the engines' answers about one container come to. The zero value is
// Undetermined: an engine that may own the container did not answer.
type HoldingKind int

// The kinds of holding.
const (
	Undetermined HoldingKind = iota
	Unowned
	Owned
	Contested
)

var holdingWords = []string{"undetermined", "unowned", "owned", "contested"}

func (k HoldingKind) String() string               { return word(holdingWords, int(k)) }
func (k HoldingKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads one of undetermined, unowned, owned, contested; anything else is an error.
func (k *HoldingKind) UnmarshalText(b []byte) error { return parse(holdingWords, b, k, "holding") }

// Force says how far a removal may go. The zero value touches no container.
type Force int

// The force levels, each including the ones before it.
const (
	// ForceNone touches no container.
	ForceNone Force = iota
	// ForceIdle also removes containers that are proven idle.
	ForceIdle
	// ForceStop also stops containers in use through the engine that owns them.
	ForceStop
	// ForceKill also ends the processes that use a container which no engine stops.
	ForceKill
)

var forceWords = []string{"none", "idle", "stop", "kill"}

func (f Force) String() string               { return word(forceWords, int(f)) }
func (f Force) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads one of none, idle, stop, kill; anything else is an error.
func (f *Force) UnmarshalText(b []byte) error { return parse(forceWords, b, f, "force") }

// State is an engine's word for the state of its container, on the terms of the protocol. A state
// that a reader does not know counts as running.
type State string

// The states of the protocol. StateNone is for a container that no engine claims.
const (
	StateNone     State = ""
	StateCreated  State = "created"
	StateRunning  State = "running"
	StatePaused   State = "paused"
	StateStopped  State = "stopped"
	StateBuilding State = "building"
	StateRemoving State = "removing"
)

// Live is whether a container in this state has, or may have, processes that its engine started.
func (s State) Live() bool {
	switch s {
	case StateNone, StateCreated, StateStopped, StateRemoving:
		return false
	case StateRunning, StatePaused, StateBuilding:
	}
	return true
}

func word(words []string, i int) string {
	if i < 0 || i >= len(words) {
		return words[0]
	}
	return words[i]
}

func parse[T ~int](words []string, b []byte, into *T, what string) error {
	for i, w := range words {
		if w == string(b) {
			*into = T(i)
			return nil
		}
	}
	return fmt.Errorf("%s is one of %q, not %q", what, words, b)
}
