package core

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// BuildRequest is an image to be built by an engine, in the words of buildah build.
type BuildRequest struct {
	// Engine is the plugin that builds; empty is the one that can.
	Engine string `json:"engine,omitempty"`
	// Context is the directory of the build's files; an absolute path on the engine's machine.
	Context string `json:"context"`
	// Containerfiles are absolute paths; none means Containerfile or Dockerfile of the context.
	Containerfiles []string `json:"containerfiles,omitempty"`
	// Names are given to the image.
	Names []string `json:"names,omitempty"`
	// Args and Labels are KEY=VALUE; an argument without a value takes that of the engine's environment.
	Args   []string `json:"args,omitempty"`
	Labels []string `json:"labels,omitempty"`
	// Target is the stage to build; empty is the last.
	Target string `json:"target,omitempty"`
	// Pull is always, missing, never or newer; empty is the engine's own default.
	Pull string `json:"pull,omitempty"`
	// NoCache builds every layer anew; Layers keeps the intermediate ones as a cache.
	NoCache bool `json:"noCache,omitempty"`
	Layers  bool `json:"layers,omitempty"`
	// Squash makes one layer of the new ones.
	Squash bool `json:"squash,omitempty"`
	// Format is oci or docker; empty is the engine's own default.
	Format string `json:"format,omitempty"`
	// Network and Isolation are as the engine has them; empty is its own default.
	Network   string `json:"network,omitempty"`
	Isolation string `json:"isolation,omitempty"`
	// Quiet leaves out the engine's progress.
	Quiet bool `json:"quiet,omitempty"`
}

// Check finds what no engine could give a sense to.
func (r BuildRequest) Check() error {
	for _, path := range append([]string{r.Context}, r.Containerfiles...) {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("%q is no absolute path", path)
		}
	}
	for _, name := range r.Names {
		if strings.TrimSpace(name) == "" {
			return fmt.Errorf("%q is no name of an image", name)
		}
	}
	for _, pair := range append(slices.Clone(r.Args), r.Labels...) {
		if key, _, _ := strings.Cut(pair, "="); strings.TrimSpace(key) == "" {
			return fmt.Errorf("%q has no key", pair)
		}
	}
	for _, text := range slices.Concat([]string{r.Context, r.Target, r.Network, r.Isolation}, r.Containerfiles, r.Names, r.Args, r.Labels) {
		if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
			return fmt.Errorf("%q is no text", text)
		}
	}
	switch {
	case !slices.Contains([]string{"", "always", "missing", "never", "newer"}, r.Pull):
		return fmt.Errorf("pull is always, missing, never or newer, not %q", r.Pull)
	case !slices.Contains([]string{"", "oci", "docker"}, r.Format):
		return fmt.Errorf("the format is oci or docker, not %q", r.Format)
	}
	return nil
}
