package core

// BuildRequest is an image to be built by an engine, in the words of buildah build.
type BuildRequest struct {
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
