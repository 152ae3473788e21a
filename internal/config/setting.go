package config

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// setting is one key with the place of its value.
type setting struct {
	key string
	// at is a *string, *bool, *int, *[]string, or a pointer to a type with UnmarshalText.
	at any
}

// settings lists all keys in the order of the shipped file. The shape of the file stands here alone.
func (c *Config) settings() []setting {
	all := []setting{
		{"store.root", &c.Store.Root},
		{"store.runroot", &c.Store.RunRoot},
		{"store.driver", &c.Store.Driver},
		{"store.options", &c.Store.Options},
		{"store.all_processes_here", &c.Store.AllProcessesHere},
		{"removal.grace_period", &c.Removal.GracePeriod},
		{"protect.images", &c.Protect.Images},
		{"protect.containers", &c.Protect.Containers},
		{"protect.labels", &c.Protect.Labels},
		{"prune.enabled", &c.Prune.Enabled},
		{"prune.interval", &c.Prune.Interval},
		{"prune.high", &c.Prune.High},
		{"prune.low", &c.Prune.Low},
		{"prune.min_age", &c.Prune.MinAge},
		{"prune.abandoned_age", &c.Prune.AbandonedAge},
		{"access.read", &c.Access.Read},
		{"access.write", &c.Access.Write},
		{"service.socket", &c.Service.Socket},
		{"service.mode", &c.Service.Mode},
		{"audit.enabled", &c.Audit.Enabled},
		{"audit.file", &c.Audit.File},
		{"audit.max_size", &c.Audit.MaxSize},
		{"audit.keep", &c.Audit.Keep},
		{"plugins.directory", &c.Plugins.Directory},
		{"plugins.hints", &c.Plugins.Hints},
	}
	plugin := func(name string, p *Plugin, own ...setting) {
		all = append(all, setting{"plugin." + name + ".enabled", &p.Enabled})
		for _, s := range own {
			all = append(all, setting{"plugin." + name + "." + s.key, s.at})
		}
		all = append(all,
			setting{"plugin." + name + ".claim_timeout", &p.ClaimTimeout},
			setting{"plugin." + name + ".when_unavailable", &p.WhenUnavailable},
			setting{"plugin." + name + ".required", &p.Required})
	}
	plugin("podman", &c.Podman.Plugin,
		setting{"socket", &c.Podman.Socket},
		setting{"command", &c.Podman.Command},
		setting{"address", &c.Podman.Address})
	plugin("buildah", &c.Buildah.Plugin,
		setting{"socket", &c.Buildah.Socket},
		setting{"command", &c.Buildah.Command})
	plugin("crio", &c.CRIO.Plugin,
		setting{"socket", &c.CRIO.Socket},
		setting{"address", &c.CRIO.Address})
	for i := range c.External {
		e := &c.External[i]
		plugin(e.Name, &e.Plugin,
			setting{"address", &e.Address},
			setting{"command", &e.Command})
	}
	return append(all, setting{"log.level", &c.Log.Level})
}

// wants says in a clause what sort of value the setting takes.
func (s setting) wants() string {
	switch s.at.(type) {
	case *bool:
		return "wants true or false"
	case *int:
		return "wants a number"
	case *[]string:
		return "wants a list of strings"
	case *Duration:
		return `wants a length of time such as "10s"`
	case *Percent:
		return `wants a part of a hundred such as "85%"`
	case *Mode:
		return `wants the permissions in octal, such as "0666"`
	case *Size:
		return `wants a size such as "16MiB"`
	default:
		return "wants a string"
	}
}

// TOML writes the configuration as a file that Load reads.
func (c Config) TOML() (string, error) {
	var b strings.Builder
	table := ""
	for _, s := range c.settings() {
		i := strings.LastIndexByte(s.key, '.')
		if t := s.key[:i]; t != table {
			if table != "" {
				b.WriteByte('\n')
			}
			table = t
			fmt.Fprintf(&b, "[%s]\n", table)
		}
		var line bytes.Buffer
		if err := toml.NewEncoder(&line).Encode(map[string]any{s.key[i+1:]: s.at}); err != nil {
			return "", fmt.Errorf("write %s as TOML: %w", s.key, err)
		}
		if line.Len() == 0 { // a list that is nil
			fmt.Fprintf(&line, "%s = []\n", s.key[i+1:])
		}
		b.Write(line.Bytes())
	}
	return b.String(), nil
}
