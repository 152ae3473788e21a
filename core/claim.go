package core

// Claim is one engine's answer about one container. The zero value says that the engine cannot
// tell.
type Claim struct {
	Container ContainerID `json:"container"`
	Ownership Ownership   `json:"ownership"`
	// The rest matters where Ownership is OwnershipMine.
	State State `json:"state,omitempty"`
	Use   Use   `json:"use"`
	// DisplayName is the name that the engine shows to its users.
	DisplayName string `json:"displayName,omitempty"`
	// Group is the pod or build that the container belongs to, as the engine names it.
	Group string `json:"group,omitempty"`
	// TakesAlong are other containers that go when this one does: an infra container takes its pod.
	TakesAlong []ContainerID `json:"takesAlong,omitempty"`
	// ImageVolumes are images that the container mounts besides its own.
	ImageVolumes []ImageID `json:"imageVolumes,omitempty"`
	// Labels are the container's, as the engine shows them; those of its image or its pod are among
	// them where the engine passes them on.
	Labels map[string]string `json:"labels,omitempty"`
	// Revision is opaque; handed back to the engine's stop, and after that to its remove, which refuse it
	// once the container is another one, because somebody else has started it anew, say.
	Revision string     `json:"revision,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Holding is what all the engines' answers about one container come to. The zero value is
// undetermined.
type Holding struct {
	Kind HoldingKind `json:"kind"`
	// Owners are the plugins that claim the container (one where Kind is Owned, several where it is
	// Contested), or that may own it and did not answer (Undetermined). Sorted.
	Owners []string `json:"owners,omitempty"`
	// Claim is the owner's, where Kind is Owned.
	Claim Claim `json:"claim"`
	// Reason says in one clause why the holding is undetermined, and Advice what its operator can
	// do.
	Reason string `json:"reason,omitempty"`
	Advice string `json:"advice,omitempty"`
	// Garbage is whether an undetermined owner did answer, but nonsense.
	Garbage bool `json:"garbage,omitempty"`
}

// Owner is the one plugin that owns the container, or "".
func (h Holding) Owner() string {
	if h.Kind == Owned && len(h.Owners) == 1 {
		return h.Owners[0]
	}
	return ""
}

// ClaimHint is what an engine's containers look like in the store, so that it is known what a
// plugin that cannot answer would have owned. Within one hint all the set fields must match; a hint
// with no field matches nothing.
type ClaimHint struct {
	// File is the name of a file in the container's directory.
	File string
	// MetadataKey is a key of the container's metadata, read as a JSON object.
	MetadataKey string
	// MetadataKeyAbsent is a key that the metadata must lack; it says nothing alone.
	MetadataKeyAbsent string
	// NoMetadata is that the container has none at all.
	NoMetadata bool
}

// Description is what a plugin says of itself.
type Description struct {
	// Name is the plugin's, such as crio.
	Name string
	// Engine is what the engine's users call it, such as CRI-O; empty is Name. EngineVersion may be
	// empty.
	Engine        string
	EngineVersion string
	Hints         []ClaimHint
}

// Handle names a container to the engine that claimed it.
type Handle struct {
	Container Container
	Claim     Claim
}

// Outcome is what became of one container in a batch that an engine was asked to stop or remove.
type Outcome struct {
	Container ContainerID
	// StorageRemoved is whether the engine's removal took the storage container with it. Where it is
	// false the core deletes what the store still holds.
	StorageRemoved bool
	// Along are other containers that went too: the rest of a pod, say.
	Along []ContainerID
	// Err is nil for success; a container that is already stopped or gone is a success.
	Err error
}
