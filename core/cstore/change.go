package cstore

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/moby/sys/signal"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// configOf is what instructions of a Containerfile make of an image's configuration, as Podman reads
// them (containers/common v0.62.3, libimage/image_config.go, ImageConfigFromChanges). ONBUILD is read and
// not kept, there as here, since an OCI configuration has no place for it.
func configOf(changes []string) (imgspec.ImageConfig, error) {
	var config imgspec.ImageConfig
	for _, change := range changes {
		if err := apply(&config, change); err != nil {
			return imgspec.ImageConfig{}, fmt.Errorf("change %q: %w", change, err)
		}
	}
	return config, nil
}

// apply carries out one instruction: KEY VALUE or, where there is no blank, KEY=VALUE.
func apply(config *imgspec.ImageConfig, change string) error {
	key, value, ok := strings.Cut(change, " ")
	if !ok {
		key, value, ok = strings.Cut(change, "=")
	}
	if !ok {
		return fmt.Errorf("it has no value: write KEY VALUE")
	}
	value = strings.TrimSpace(value)
	switch key = strings.ToUpper(strings.TrimSpace(key)); key {
	case "CMD":
		config.Cmd = command(value)
	case "ENTRYPOINT":
		config.Entrypoint = command(value)
		if value == "" {
			config.Entrypoint = nil
		}
	case "ENV":
		name, value, _ := strings.Cut(value, "=")
		if name == "" {
			return fmt.Errorf("ENV needs NAME=VALUE")
		}
		config.Env = append(config.Env, unquoted(name)+"="+unquoted(value))
	case "EXPOSE":
		port, err := exposed(value)
		if err != nil {
			return err
		}
		add(&config.ExposedPorts, port)
	case "LABEL":
		name, value, ok := strings.Cut(value, "=")
		if name = unquoted(name); name == "" || !ok {
			return fmt.Errorf("LABEL needs NAME=VALUE")
		}
		if config.Labels == nil {
			config.Labels = make(map[string]string)
		}
		config.Labels[name] = unquoted(value)
	case "STOPSIGNAL":
		s, err := signal.ParseSignal(value)
		if err != nil {
			return fmt.Errorf("there is no signal %q", value)
		}
		config.StopSignal = strconv.Itoa(int(s))
	case "USER":
		if value == "" {
			return fmt.Errorf("USER needs a user")
		}
		config.User = value
	case "VOLUME":
		return addVolumes(config, value)
	case "WORKDIR":
		if value == "" {
			return fmt.Errorf("WORKDIR needs a directory")
		}
		// Each is relative to the one before.
		config.WorkingDir = filepath.Join(config.WorkingDir, value)
	case "ONBUILD":
		if value == "" {
			return fmt.Errorf("ONBUILD needs an instruction")
		}
	default:
		return fmt.Errorf("there is no instruction %q: it is CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR", key)
	}
	return nil
}

// command is a JSON array, or a line for the shell.
func command(value string) []string {
	var words []string
	switch {
	case json.Unmarshal([]byte(value), &words) == nil:
		return words
	case value == "":
		return []string{"/bin/sh", "-c"}
	}
	return []string{"/bin/sh", "-c", value}
}

// exposed is PORT or PORT/PROTOCOL with the protocol.
func exposed(value string) (string, error) {
	number, protocol, ok := strings.Cut(value, "/")
	if protocol = strings.ToLower(protocol); !ok {
		protocol = "tcp"
	}
	port, err := strconv.Atoi(number)
	if err != nil || port < 1 || port > 65535 || protocol != "tcp" && protocol != "udp" {
		return "", fmt.Errorf("EXPOSE needs a port from 1 to 65535, with /tcp or /udp or nothing after it")
	}
	return strconv.Itoa(port) + "/" + protocol, nil
}

// addVolumes adds paths, a JSON array or between blanks.
func addVolumes(config *imgspec.ImageConfig, value string) error {
	var paths []string
	if json.Unmarshal([]byte(value), &paths) != nil {
		paths = strings.Split(value, " ")
	}
	if len(paths) == 0 {
		return fmt.Errorf("VOLUME needs a path")
	}
	for _, path := range paths {
		if path == "" {
			return fmt.Errorf("a path of VOLUME is empty")
		}
		add(&config.Volumes, path)
	}
	return nil
}

func add(set *map[string]struct{}, member string) {
	if *set == nil {
		*set = make(map[string]struct{})
	}
	(*set)[member] = struct{}{}
}

// unquoted is s without the double quotes around it.
func unquoted(s string) string {
	if strings.HasPrefix(s, `"`) && strings.HasSuffix(s, `"`) {
		return strings.TrimPrefix(strings.TrimSuffix(s, `"`), `"`)
	}
	return s
}
