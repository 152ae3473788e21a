package core

// Verb is what an action does.
type Verb string

// The verbs, in the order in which they happen within one removal.
const (
	VerbStop            Verb = "stop"             // the owner stops a container
	VerbKill            Verb = "kill"             // processes that no engine stops are ended
	VerbRemove          Verb = "remove"           // the owner removes a container
	VerbUnmount         Verb = "unmount"          // mounts at or below a layer directory go
	VerbDeleteContainer Verb = "delete_container" // the store deletes a container
	VerbUntag           Verb = "untag"            // a name is taken from an image
	VerbDeleteImage     Verb = "delete_image"     // the store deletes an image
)

// Action is one step of a plan, or of what was done.
type Action struct {
	Verb Verb `json:"verb"`
	// One of Container and Image is set.
	Container ContainerID `json:"container,omitempty"`
	Image     ImageID     `json:"image,omitempty"`
	// Owner is the plugin that acts; empty where Unmoor itself does.
	Owner string `json:"owner,omitempty"`
	// Name is the name that is untagged, the container's display name, or the image's first name.
	Name string `json:"name,omitempty"`
	// Group is the pod or build that a container belongs to.
	Group string `json:"group,omitempty"`
	// Detail says why, where that is not plain: "goes with pod web".
	Detail string `json:"detail,omitempty"`
	// Processes are those that a kill ends.
	Processes []Process `json:"processes,omitempty"`
	// Bytes that the action gave free; 0 in a plan.
	Bytes int64 `json:"bytes,omitempty"`
}

// Reason says why something is kept.
type Reason string

// The reasons.
const (
	ReasonHasContainer     Reason = "has_container"     // an idle container stands in the way
	ReasonInUse            Reason = "in_use"            // in use, by its owner or by processes
	ReasonUnknownUse       Reason = "unknown_use"       // use could not be found out
	ReasonContested        Reason = "contested"         // several engines claim it
	ReasonOwnerUnavailable Reason = "owner_unavailable" // an engine that may own it does not answer
	ReasonOwnerGarbage     Reason = "owner_garbage"     // an engine that may own it talks nonsense
	ReasonChildImage       Reason = "child_image"       // another image is built on it
	ReasonInManifest       Reason = "in_manifest"       // a manifest list holds it
	ReasonSeveralNames     Reason = "several_names"     // asked for by ID, and it has several names
	ReasonReadOnlyStore    Reason = "read_only_store"   // it lies in an additional image store
	ReasonImageMounted     Reason = "image_mounted"     // the image itself is mounted and in use
	ReasonProtected        Reason = "protected"         // its operator protects it, or an engine pins it
)

// Blocker is one thing that keeps a removal from happening.
type Blocker struct {
	Reason Reason `json:"reason"`
	// One of Container and Image is set: what stands in the way, or cannot go.
	Container ContainerID `json:"container,omitempty"`
	Image     ImageID     `json:"image,omitempty"`
	// Name is the display name of that container, or the first name of that image.
	Name string `json:"name,omitempty"`
	// Owners are the plugins concerned, Group the owner's pod or build, State its word.
	Owners []string `json:"owners,omitempty"`
	Group  string   `json:"group,omitempty"`
	State  State    `json:"state,omitempty"`
	// LiftedBy is the least force that lifts it; ForceNone where none does.
	LiftedBy Force `json:"liftedBy"`
	// Detail is one clause for people; Advice what to do where no force helps.
	Detail   string     `json:"detail,omitempty"`
	Advice   string     `json:"advice,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
}

// Removal is the part of a plan that removes one target: all of it or nothing.
type Removal struct {
	// Image or Container is the target; Reference is what the user wrote.
	Image     ImageID     `json:"image,omitempty"`
	Container ContainerID `json:"container,omitempty"`
	Reference string      `json:"reference"`
	Actions   []Action    `json:"actions"`
	Blockers  []Blocker   `json:"blockers"`
	// Notes are for people: "the image stays as the parent of 2 images".
	Notes []string `json:"notes,omitempty"`
}

// Blocked is whether anything stands in the way; then the removal changes nothing.
func (r Removal) Blocked() bool { return len(r.Blockers) > 0 }

// Plan is what a request comes to.
type Plan struct {
	// Revision holds until the store, an owner, an answer about use or what is protected changes. 64
	// hexadecimal digits.
	Revision string    `json:"revision"`
	Force    Force     `json:"force"`
	Removals []Removal `json:"removals"`
	// ReclaimableBytes is what the images of the unblocked removals give free, as far as it is known.
	ReclaimableBytes int64 `json:"reclaimableBytes"`

	request Request
	facts   Facts
}
