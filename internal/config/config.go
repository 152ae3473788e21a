package config

import (
	"fmt"
	"time"
)

// DefaultPath is the file that is read where no other is named. It need not exist.
const DefaultPath = "/etc/unmoor/config.toml"

// Config is everything that can be configured. Each part of the program is handed its section.
type Config struct {
	Store   Store
	Removal Removal
	Protect Protect
	Podman  Podman
	Buildah Buildah
	CRIO    CRIO
	Log     Log
}

// Store says which store is meant. What is empty is taken from storage.conf, as the engines do.
type Store struct {
	Root    string
	RunRoot string
	Driver  string
	// Options are the driver's, as on an engine's command line: "overlay.mount_program=…".
	Options []string
	// AllProcessesHere vouches that every process that may use the store is in Unmoor's own pid
	// namespace, where that is not the host's.
	AllProcessesHere bool
}

// Removal is how containers are stopped.
type Removal struct {
	// GracePeriod is the time between the polite signal and the forcible one; 0 sends the forcible
	// one at once.
	GracePeriod Duration
}

// Protect is what no removal touches, whatever the force.
type Protect struct {
	// Images and Containers are patterns with * and ?.
	Images     []string
	Containers []string
	// Labels are KEY or KEY=VALUE, of images and containers.
	Labels []string
}

// Plugin is what every plugin has.
type Plugin struct {
	Enabled bool
	// ClaimTimeout is how long the plugin has to say which containers are its own.
	ClaimTimeout Duration
	// WhenUnavailable says what becomes of containers that look like the engine's while it does not
	// answer.
	WhenUnavailable WhenUnavailable
	// Required is whether nothing at all is removed while the plugin does not answer.
	Required bool
}

// Podman is the section of Podman's plugin.
type Podman struct {
	Plugin
	// Command is how podman is run.
	Command []string
	// Address is Podman's API socket, unix:///run/podman/podman.sock; where it is empty, Command is
	// run.
	Address string
}

// Buildah is the section of Buildah's plugin.
type Buildah struct {
	Plugin
}

// CRIO is the section of CRI-O's plugin.
type CRIO struct {
	Plugin
	// Address is CRI-O's socket.
	Address string
}

// Log is how much is written to standard error.
type Log struct {
	Level Level
}

// Default is the configuration of an empty file.
func Default() Config {
	plugin := Plugin{Enabled: true, ClaimTimeout: Duration(30 * time.Second), WhenUnavailable: Block}
	return Config{
		Removal: Removal{GracePeriod: Duration(10 * time.Second)},
		Podman:  Podman{Plugin: plugin, Command: []string{"podman"}},
		Buildah: Buildah{Plugin: plugin},
		CRIO:    CRIO{Plugin: plugin, Address: "unix:///run/crio/crio.sock"},
		Log:     Log{Level: "warn"},
	}
}

// Duration is a length of time, written "10s" or "1m30s".
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a length of time that is not negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("wants a length of time such as \"10s\" or \"1m30s\", not %q", text)
	}
	*d = Duration(v)
	return nil
}

// WhenUnavailable is what becomes of containers that look like an engine's while that engine does
// not answer.
type WhenUnavailable string

// The two ways to go on without an engine's answer.
const (
	// Block keeps the containers, whatever the force.
	Block WhenUnavailable = "block"
	// Ignore takes them for nobody's; the kernel's word still counts.
	Ignore WhenUnavailable = "ignore"
)

// UnmarshalText reads block or ignore.
func (w *WhenUnavailable) UnmarshalText(text []byte) error {
	switch v := WhenUnavailable(text); v {
	case Block, Ignore:
		*w = v
		return nil
	default:
		return fmt.Errorf("is \"block\" or \"ignore\", not %q", text)
	}
}

// Level is the least weight of a message that is written: debug, info, warn or error.
type Level string

// UnmarshalText reads a level; the engines' words for levels are known too.
func (l *Level) UnmarshalText(text []byte) error {
	switch string(text) {
	case "debug", "info", "warn", "error":
		*l = Level(text)
	case "trace":
		*l = "debug"
	case "warning":
		*l = "warn"
	case "fatal", "panic":
		*l = "error"
	default:
		return fmt.Errorf("is one of \"debug\", \"info\", \"warn\" and \"error\", not %q", text)
	}
	return nil
}
