package config

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// DefaultPath is the file that is read where no other is named. It need not exist.
const DefaultPath = "/etc/unmoor/config.toml"

// Config is everything that can be configured. Each part of the program is handed its section.
type Config struct {
	Store   Store
	Removal Removal
	Protect Protect
	Prune   Prune
	Access  Access
	Service Service
	Audit   Audit
	Plugins Plugins
	Podman  Podman
	Buildah Buildah
	CRIO    CRIO
	// External are the plugins that are not built in, by name.
	External []External
	Log      Log
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

// Prune is what goes when nobody uses it.
type Prune struct {
	// Enabled is whether the service prunes by itself, every Interval, where the file system is fuller
	// than High; it stops at Low.
	Enabled   bool
	Interval  Duration
	High, Low Percent
	// MinAge is how long ago what goes must have come into the store, and been used; AbandonedAge how long
	// ago containers of nobody, and what builds left, must have been made.
	MinAge, AbandonedAge Duration
}

// Access says who may call the service, besides root and the user that it runs as. An entry is a user
// ("alice", "1000"), a group ("@ops", "@1000") or, in Read alone, "*" for anybody.
type Access struct {
	// Read are those that may look, Write those that may also remove.
	Read  []string
	Write []string
}

// Service is where `unmoor serve` listens, unless the service manager hands it sockets.
type Service struct {
	// Socket is the path; where it is empty, it is where clients look.
	Socket string
	// Mode is that of the socket. Who may call what is for Access to say.
	Mode Mode
}

// Audit is the log of who removed what.
type Audit struct {
	Enabled bool
	// File is the path; where it is empty, it is in the log directory of root or in the user's state
	// directory.
	File string
	// MaxSize is how large it grows before another is begun, Keep how many old ones are kept.
	MaxSize Size
	Keep    int
}

// Plugins says where plugins are found, and what is kept of them.
type Plugins struct {
	// Directory has a socket NAME.sock for each plugin; empty is the usual one, which depends on the
	// user.
	Directory string
	// Hints is where it is kept what each plugin's containers look like; empty likewise.
	Hints string
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
	// Socket is where the plugin is served in a process of its own, unix:/path; where it is empty, it is
	// the one that is built in.
	Socket string
	// Command is how podman is run.
	Command []string
	// Address is Podman's API socket, unix:///run/podman/podman.sock; where it is empty, Command is
	// run.
	Address string
}

// Buildah is the section of Buildah's plugin.
type Buildah struct {
	Plugin
	// Socket is as Podman's.
	Socket string
	// Command is how buildah is run, for builds alone.
	Command []string
}

// CRIO is the section of CRI-O's plugin.
type CRIO struct {
	Plugin
	// Socket is as Podman's.
	Socket string
	// Address is CRI-O's socket.
	Address string
}

// External is the section of a plugin that is not built in. One of Address and Command is set where it
// is enabled.
type External struct {
	Name string
	Plugin
	// Address is the socket that it serves, unix:/path.
	Address string
	// Command is how it is started, to serve a socket that is passed to it.
	Command []string
}

// Log is how much is written to standard error.
type Log struct {
	Level Level
}

// Default is the configuration of an empty file.
func Default() Config {
	plugin := defaultPlugin()
	return Config{
		Removal: Removal{GracePeriod: Duration(10 * time.Second)},
		Prune: Prune{Interval: Duration(5 * time.Minute), High: 85, Low: 80,
			MinAge: Duration(2 * time.Minute), AbandonedAge: Duration(24 * time.Hour)},
		Service: Service{Mode: 0o666},
		Audit:   Audit{Enabled: true, MaxSize: 16 << 20, Keep: 4},
		Podman:  Podman{Plugin: plugin, Command: []string{"podman"}},
		Buildah: Buildah{Plugin: plugin, Command: []string{"buildah"}},
		CRIO:    CRIO{Plugin: plugin, Address: "unix:///run/crio/crio.sock"},
		Log:     Log{Level: "warn"},
	}
}

func defaultPlugin() Plugin {
	return Plugin{Enabled: true, ClaimTimeout: Duration(30 * time.Second), WhenUnavailable: Block}
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

// Percent is a part of a hundred, written "85%".
type Percent int

// MarshalText writes what UnmarshalText reads.
func (p Percent) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%d%%", int(p)), nil }

// UnmarshalText reads a whole number from 0 to 100 with its sign.
func (p *Percent) UnmarshalText(text []byte) error {
	number, signed := strings.CutSuffix(string(text), "%")
	v, err := strconv.ParseUint(number, 10, 7)
	if err != nil || !signed || v > 100 {
		return fmt.Errorf("wants a part of a hundred such as \"85%%\", not %q", text)
	}
	*p = Percent(v)
	return nil
}

// Mode is the permissions of a file, written "0666".
type Mode fs.FileMode

// MarshalText writes what UnmarshalText reads.
func (m Mode) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint32(m)), nil }

// UnmarshalText reads an octal number of no more than 0777.
func (m *Mode) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || v > 0o777 {
		return fmt.Errorf("wants the permissions in octal, such as \"0666\", not %q", text)
	}
	*m = Mode(v)
	return nil
}

// Size is a number of bytes, written "512KiB", "16MiB" or "1GiB".
type Size int64

var units = []struct {
	name  string
	bytes Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// MarshalText writes what UnmarshalText reads.
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range units {
		if s >= u.bytes && s%u.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", s/u.bytes, u.name), nil
		}
	}
	return fmt.Appendf(nil, "%d", int64(s)), nil
}

// UnmarshalText reads a number of bytes of less than 1 TiB.
func (s *Size) UnmarshalText(text []byte) error {
	number, scale := string(text), Size(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, scale = strings.TrimSpace(n), u.bytes
			break
		}
	}
	v, err := strconv.ParseUint(number, 10, 40)
	if err != nil || Size(v) >= 1<<40/scale {
		return fmt.Errorf("wants a size such as \"16MiB\", not %q", text)
	}
	*s = Size(v) * scale
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
