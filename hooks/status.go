package hooks

import (
	"reflect"
	"slices"
	"time"
)

// Source is where a plugin comes from. Of two with one name the earlier source has it.
type Source string

// The sources in their order.
const (
	SourceBuiltin    Source = "builtin"    // of this process
	SourceConfigured Source = "configured" // a section of config.toml
	SourceDirectory  Source = "directory"  // a socket in the directory of plugins
	SourceRegistered Source = "registered" // Register
)

// State says whether a plugin can be asked. It is for people: a plugin is asked whatever its state,
// unless that is quarantined, refused or disabled.
type State string

// The states of a plugin.
const (
	// StateReady: its last answer was right, or nothing is known against it yet.
	StateReady State = "ready"
	// StateEngineUnavailable: it answers, and its engine does not.
	StateEngineUnavailable State = "engine_unavailable"
	// StateUnreachable: it gives no answer that can be used, or is not there.
	StateUnreachable State = "unreachable"
	// StateIncompatible: it has another name, or speaks other revisions of the protocol.
	StateIncompatible State = "incompatible"
	// StateQuarantined: it failed too often, and is left alone for a while. What it may own is kept.
	StateQuarantined State = "quarantined"
	// StateRefused: its name is taken, or its socket is not to be trusted; it is not asked.
	StateRefused State = "refused"
	// StateDisabled: its operator has turned it off.
	StateDisabled State = "disabled"
	// StateUnregistered: it is no longer known. This is told by Options.Changed alone.
	StateUnregistered State = "unregistered"
)

// PluginStatus is what is known of one plugin.
type PluginStatus struct {
	Name string
	// Address is its socket's or its command; empty where it is built in.
	Address         string
	Source          Source
	Required        bool
	WhenUnavailable WhenUnavailable
	State           State
	// EngineVersion, ProtocolVersion and Capabilities (stop, remove, pin, list, build) are as it said last;
	// zero where it has not.
	EngineVersion   string
	ProtocolVersion int
	Capabilities    []string
	// LastError is a clause; empty where its last answer was right. Advice is what to do about it.
	LastError string
	// LastSeen is when it answered last; zero where it has not.
	LastSeen time.Time
	Advice   string
}

// same is whether there is nothing new to tell.
func (s PluginStatus) same(other PluginStatus) bool {
	s.LastSeen, other.LastSeen = time.Time{}, time.Time{}
	return reflect.DeepEqual(s, other)
}

// Status lists what is known of all plugins, those that are refused or disabled too. It asks nobody.
func (r *Registry) Status() []PluginStatus {
	r.mu.Lock()
	members, refused := r.members, r.refused
	r.mu.Unlock()
	var all []PluginStatus
	for _, m := range members {
		all = append(all, m.status())
	}
	return slices.Concat(all, refused)
}

// tell says to Options.Changed what is new about a member, once there is something to say. It is called without any other lock.
func (r *Registry) tell(m *member) {
	if r.options.Changed == nil {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
	present := slices.Contains(r.members, m)
	r.mu.Unlock()
	if s := m.status(); present && !m.unasked() && !s.same(r.told[m.name]) {
		r.told[m.name] = s
		r.options.Changed(s)
	}
}

// tellGone is tell of a member that is none any more.
func (r *Registry) tellGone(m *member) {
	if r.options.Changed == nil {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	r.mu.Lock()
	present := r.named(m.name) != nil
	r.mu.Unlock()
	if _, known := r.told[m.name]; known && !present {
		delete(r.told, m.name)
		s := m.status()
		s.State, s.LastError, s.Advice = StateUnregistered, "", ""
		r.options.Changed(s)
	}
}

// tellRefused is tell of a plugin that is no member.
func (r *Registry) tellRefused(s PluginStatus) {
	if r.options.Changed == nil {
		return
	}
	r.telling.Lock()
	defer r.telling.Unlock()
	r.options.Changed(s)
}
