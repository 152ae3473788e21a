package core

import "time"

// Damage is a kind of thing that is wrong in a store, or with what runs on it.
type Damage string

// The kinds of damage, worst first.
const (
	// DamageWreck: processes run on a layer that was deleted while they ran.
	DamageWreck Damage = "wreck"
	// DamageLostStorage: an engine has a container that the store does not have.
	DamageLostStorage Damage = "lost_storage"
	// DamageLostRecord: the store has a container that looks like an engine's and that the engine does
	// not know.
	DamageLostRecord Damage = "lost_record"
	// DamageLostLayer: the store has a container's record without its layer, as a removal leaves it that
	// was killed half-way.
	DamageLostLayer Damage = "lost_layer"
	// DamageStrayMount: something is mounted in the directory of a layer or a container that the store
	// does not have.
	DamageStrayMount Damage = "stray_mount"
	// DamageStrayDirectory: a directory of a layer or a container that the store does not have.
	DamageStrayDirectory Damage = "stray_directory"
	// DamageUnreferencedLayer: no image and no container refers to a layer.
	DamageUnreferencedLayer Damage = "unreferenced_layer"
	// DamageMountCount: the store's mount count of a layer is not what is mounted.
	DamageMountCount Damage = "stale_mount_count"
	// DamageDeletion: an earlier process died in the deletion of an image.
	DamageDeletion Damage = "interrupted_deletion"
	// DamageLoad: an earlier process died while it put images into the store.
	DamageLoad Damage = "interrupted_load"
)

// damages lists the kinds, worst first.
var damages = []Damage{
	DamageWreck, DamageLostStorage, DamageLostRecord, DamageLostLayer, DamageStrayMount,
	DamageStrayDirectory, DamageUnreferencedLayer, DamageMountCount, DamageDeletion, DamageLoad,
}

// Finding is one thing that is wrong.
type Finding struct {
	Damage Damage `json:"damage"`
	// Container, Image, Layer and Path say what is damaged, as far as each of them applies.
	Container ContainerID `json:"container,omitempty"`
	Image     ImageID     `json:"image,omitempty"`
	Layer     LayerID     `json:"layer,omitempty"`
	Path      string      `json:"path,omitempty"`
	// Name, Owner, Group and State are as the engine has them that knows the container.
	Name  string `json:"name,omitempty"`
	Owner string `json:"owner,omitempty"`
	Group string `json:"group,omitempty"`
	State State  `json:"state,omitempty"`
	// Use is whether something uses what is damaged, Evidence who.
	Use      Use        `json:"use"`
	Evidence []Evidence `json:"evidence,omitempty"`
	// Detail is one clause for people.
	Detail string `json:"detail"`
	// Dead is whether it is proven that nobody uses it and that nothing can be lost with it: then a
	// repair needs no name.
	Dead bool `json:"dead"`
	// Advice is what an operator can do where a repair does not do it.
	Advice string `json:"advice,omitempty"`

	claim Claim
	place Layer
}

// ID is what the finding is called by: the container's ID, or else the layer's, the image's or the path.
func (f Finding) ID() string {
	switch {
	case f.Container != "":
		return string(f.Container)
	case f.Layer != "":
		return string(f.Layer)
	case f.Image != "":
		return string(f.Image)
	}
	return f.Path
}

// key tells a finding from another one of another look.
func (f Finding) key() string { return string(f.Damage) + " " + f.ID() }

// Inventory is all that one engine has in a store.
type Inventory struct {
	// Engine is the plugin.
	Engine string
	// Records are the engine's containers, each claimed, whether the store has them or not.
	Records []Claim
	// Like are the containers of the store that look like the engine's.
	Like []ContainerID
	// Err says why nothing can be said of the engine's records.
	Err error
}

// Litter is what lies in a store beside its images and containers.
type Litter struct {
	// Homes are the directories that the driver keeps layers in, the store's own first: overlay or vfs/dir
	// below a graph root.
	Homes []string
	// Recorded are the layers that the store has, read-only ones too.
	Recorded map[LayerID]bool
	// Unreferenced are recorded layers that no image and no container refers to, children before parents;
	// without those of a load.
	Unreferenced []LitterLayer
	// Unrecorded are layers' directories without a record.
	Unrecorded []LitterLayer
	// Directories are containers' directories without a record.
	Directories []LitterDirectory
	// Deletions are images whose deletion was interrupted.
	Deletions []ImageID
	// Load is what a load that was interrupted has left; nil where there is none.
	Load *LitterLoad
}

// LitterLoad is what lies about of a load of images whose process died.
type LitterLoad struct {
	// Directory held its temporary files.
	Directory string
	// Layers are those that it made and that nothing refers to.
	Layers []LayerID
}

// LitterLayer is a layer that belongs to nothing.
type LitterLayer struct {
	Layer Layer
	// Since is when it came into being, at the latest.
	Since time.Time
}

// LitterDirectory is a directory of a container without a record, in the graph root or the run root.
type LitterDirectory struct {
	Container ContainerID
	Path      string
}
