package buildah

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"
)

// settings are what a process's environment and the storage.conf files that it sees say of where its
// store is.
type settings struct {
	env map[string]string
	uid string
	// override is the storage.conf that the environment names, or "".
	override string
	// own is the user's storage.conf, system are the machine's, first the one that goes before.
	own    *conf
	system []*conf
	// named is what override says, nil where there is no such file.
	named *conf
}

// The places of the library (containers/storage v1.59.1, types/options_linux.go).
const rootPlace = "/var/lib/containers/storage"

var systemConfs = []string{"/etc/containers/storage.conf", "/usr/share/containers/storage.conf"}

// readSettings reads them. An error means that they cannot be told.
func readSettings(pid int) (settings, error) {
	env, err := environment(pid)
	if err != nil {
		return settings{}, err
	}
	s := settings{env: env, uid: uidOf(pid), override: env["CONTAINERS_STORAGE_CONF"]}
	if s.override != "" {
		s.named, err = readConf(pid, s.override)
		return s, err
	}
	if s.own, err = readConf(pid, s.config()+"/containers/storage.conf"); err != nil {
		return settings{}, err
	}
	for _, path := range systemConfs {
		c, err := readConf(pid, path)
		if err != nil {
			return settings{}, err
		}
		if c != nil {
			s.system = append(s.system, c)
		}
	}
	return s, nil
}

func (s settings) config() string {
	if dir := s.env["XDG_CONFIG_HOME"]; dir != "" {
		return dir
	}
	return s.env["HOME"] + "/.config"
}

func (s settings) userPlace() string {
	if dir := s.env["XDG_DATA_HOME"]; dir != "" {
		return dir + "/containers/storage"
	}
	return s.env["HOME"] + "/.local/share/containers/storage"
}

// places are all where its store may be.
func (s settings) places() []string {
	if s.named != nil && s.named.GraphRoot != "" {
		return []string{s.expand(s.named.GraphRoot)}
	}
	all := []string{rootPlace, s.userPlace()}
	for _, c := range append([]*conf{s.named, s.own}, s.system...) {
		if c == nil {
			continue
		}
		for _, place := range []string{c.GraphRoot, c.Rootless} {
			if place != "" {
				all = append(all, s.expand(place))
			}
		}
	}
	return all
}

// place is where its store is by the library's rules (types/options.go, DefaultConfigFile and
// loadStoreOptionsFromConfFile); ok is whether that can be told.
func (s settings) place() (place string, ok bool) {
	if s.uid == "" || s.env["HOME"] == "" {
		return "", false
	}
	// A helper in a user namespace is told whose it is. Where that differs, it is not one of ours to
	// understand.
	switch whose := s.env["_CONTAINERS_ROOTLESS_UID"]; {
	case whose != "" && whose != s.uid, whose == "" && s.env["_CONTAINERS_USERNS_CONFIGURED"] != "":
		return "", false
	}
	var first *conf
	if len(s.system) > 0 {
		first = s.system[0]
	}
	rootless := s.uid != "0"
	fallback := rootPlace
	if rootless {
		fallback = s.userPlace()
		if first != nil && first.Rootless != "" {
			fallback = first.Rootless
		}
	}
	used := s.own
	switch {
	case s.override != "":
		if s.named == nil {
			return "", false
		}
		used = s.named
	case !rootless && (used == nil || s.env["XDG_CONFIG_HOME"] == ""):
		used = first
	}
	switch {
	case used == nil:
		return s.expand(fallback), true
	case used.GraphRoot != "":
		return s.expand(used.GraphRoot), true
	case used.Rootless != "":
		return s.expand(used.Rootless), true
	}
	return s.expand(fallback), true
}

func (s settings) expand(path string) string {
	return os.Expand(path, func(name string) string {
		if name == "UID" {
			return s.uid
		}
		return s.env[name]
	})
}

// conf is what a storage.conf says of the graph root.
type conf struct {
	GraphRoot string `toml:"graphroot"`
	Rootless  string `toml:"rootless_storage_path"`
}

// readConf reads a storage.conf as a process sees it; nil where there is none.
func readConf(pid int, path string) (*conf, error) {
	fd, err := openIn(pid, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // only read
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil, err
	}
	return parseConf(string(b))
}

func parseConf(text string) (*conf, error) {
	var file struct {
		Storage conf `toml:"storage"`
	}
	if _, err := toml.Decode(text, &file); err != nil {
		return nil, fmt.Errorf("read storage.conf: %w", err)
	}
	return &file.Storage, nil
}
