package service

import "time"

// Plugin is a plugin and how it stands.
type Plugin struct {
	Name string `json:"name"`
	// Address is empty where it is built in.
	Address string `json:"address,omitempty"`
	// Source is builtin, configured, directory or registered.
	Source          string `json:"source"`
	Required        bool   `json:"required"`
	WhenUnavailable string `json:"whenUnavailable"`
	// Status is ready, engine_unavailable, unreachable, incompatible, quarantined, refused or disabled, and
	// in an event unregistered.
	Status        string `json:"status"`
	EngineVersion string `json:"engineVersion,omitempty"`
	// ProtocolVersion is 0 where none was agreed upon.
	ProtocolVersion int `json:"protocolVersion,omitempty"`
	// Capabilities are stop, remove, pin, list and build.
	Capabilities []string `json:"capabilities"`
	LastError    string   `json:"lastError,omitempty"`
	// LastSeen is when it answered last.
	LastSeen time.Time `json:"lastSeen,omitzero"`
	// Advice is what to do about its status.
	Advice string `json:"advice,omitempty"`
}
