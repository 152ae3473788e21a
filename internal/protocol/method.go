package protocol

import iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"

// Version is the revision of the protocol that is spoken here.
const Version = 1

// MaxBatch is how many containers, handles or images one call may have.
const MaxBatch = 1024

// The methods, by their full names.
const (
	Interface      = "io.unmoor.Plugin"
	MethodDescribe = Interface + ".Describe"
	MethodClaim    = Interface + ".Claim"
	MethodStop     = Interface + ".Stop"
	MethodRemove   = Interface + ".Remove"
	MethodPins     = Interface + ".Pins"
	MethodList     = Interface + ".List"
	MethodBuild    = Interface + ".Build"
)

// The errors, by their full names. Their parameters are the types of the same names in
// varlink/plugin.
const (
	ErrorUnsupportedVersion = Interface + ".UnsupportedProtocolVersion"
	ErrorEngineUnavailable  = Interface + ".EngineUnavailable"
	ErrorBuildFailed        = Interface + ".BuildFailed"
)

// DescribeOut is the answer of Describe.
type DescribeOut struct {
	Name             string                     `json:"name"`
	Engine           string                     `json:"engine"`
	EngineVersion    *string                    `json:"engineVersion,omitempty"`
	ProtocolVersions []int64                    `json:"protocolVersions"`
	Capabilities     []string                   `json:"capabilities"`
	ClaimHints       []iounmoorplugin.ClaimHint `json:"claimHints"`
	Ready            bool                       `json:"ready"`
}

// ClaimIn are the parameters of Claim.
type ClaimIn struct {
	ProtocolVersion int64                      `json:"protocolVersion"`
	Store           iounmoorplugin.Store       `json:"store"`
	Containers      []iounmoorplugin.Container `json:"containers"`
}

// ClaimOut is an answer of Claim.
type ClaimOut struct {
	Reports []iounmoorplugin.Report `json:"reports"`
}

// StopIn are the parameters of Stop.
type StopIn struct {
	ProtocolVersion int64                   `json:"protocolVersion"`
	Store           iounmoorplugin.Store    `json:"store"`
	Handles         []iounmoorplugin.Handle `json:"handles"`
	GracePeriodMs   int64                   `json:"gracePeriodMs"`
}

// StopOut is an answer of Stop.
type StopOut struct {
	Outcomes []iounmoorplugin.Outcome `json:"outcomes"`
}

// RemoveIn are the parameters of Remove.
type RemoveIn struct {
	ProtocolVersion int64                   `json:"protocolVersion"`
	Store           iounmoorplugin.Store    `json:"store"`
	Handles         []iounmoorplugin.Handle `json:"handles"`
}

// RemoveOut is an answer of Remove.
type RemoveOut struct {
	Outcomes []iounmoorplugin.Outcome `json:"outcomes"`
}

// PinsIn are the parameters of Pins.
type PinsIn struct {
	ProtocolVersion int64                  `json:"protocolVersion"`
	Store           iounmoorplugin.Store   `json:"store"`
	Images          []iounmoorplugin.Image `json:"images"`
}

// PinsOut is the answer of Pins.
type PinsOut struct {
	Pins []iounmoorplugin.Pin `json:"pins"`
}

// ListIn are the parameters of List.
type ListIn struct {
	ProtocolVersion int64                `json:"protocolVersion"`
	Store           iounmoorplugin.Store `json:"store"`
}

// ListOut is an answer of List.
type ListOut struct {
	Reports []iounmoorplugin.Report `json:"reports"`
}

// BuildIn are the parameters of Build.
type BuildIn struct {
	ProtocolVersion int64                       `json:"protocolVersion"`
	Store           iounmoorplugin.Store        `json:"store"`
	Build           iounmoorplugin.BuildRequest `json:"build"`
}

// BuildOut is an answer of Build.
type BuildOut struct {
	Lines   []string `json:"lines"`
	ImageID *string  `json:"imageId,omitempty"`
}
