package crio

import (
	"strings"

	"github.com/unmoor/unmoor/core"
)

// revision tells Stop and Remove what the container was when it was claimed.
type revision struct {
	kind kind
	// pod is the sandbox that the container belongs to, or is.
	pod core.ContainerID
}

type kind string

const (
	kindContainer          kind = "container"
	kindSandbox            kind = "sandbox"
	kindForgottenContainer kind = "forgotten-container"
	kindForgottenSandbox   kind = "forgotten-sandbox"
)

func (r revision) String() string { return string(r.kind) + ":" + string(r.pod) }

// parseRevision reads a revision; the kind of one that is not ours is empty.
func parseRevision(text string) revision {
	word, pod, _ := strings.Cut(text, ":")
	switch k := kind(word); k {
	case kindContainer, kindSandbox, kindForgottenContainer, kindForgottenSandbox:
		return revision{k, core.ContainerID(pod)}
	}
	return revision{}
}
