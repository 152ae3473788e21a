package transcribe

import removal "github.com/unmoor/unmoor/varlink/removal"

// The parameters of the methods, in and out, as a client sends and reads them.
type (
	GetStoreOut struct {
		GraphRoot   string `json:"graphRoot"`
		RunRoot     string `json:"runRoot"`
		GraphDriver string `json:"graphDriver"`
	}
	PlanIn struct {
		Targets removal.Targets `json:"targets"`
		Force   *removal.Force  `json:"force,omitempty"`
		NoPrune *bool           `json:"noPrune,omitempty"`
	}
	PlanOut struct {
		Plan     removal.RemovalPlan `json:"plan"`
		Refusals []removal.Refusal   `json:"refusals"`
	}
	RemoveIn struct {
		Targets       removal.Targets `json:"targets"`
		Force         *removal.Force  `json:"force,omitempty"`
		Revision      *string         `json:"revision,omitempty"`
		GracePeriodMs *int64          `json:"gracePeriodMs,omitempty"`
		NoPrune       *bool           `json:"noPrune,omitempty"`
	}
	RemoveOut struct {
		OperationID string            `json:"operationId"`
		Progress    *removal.Progress `json:"progress,omitempty"`
		Outcome     *removal.Outcome  `json:"outcome,omitempty"`
	}
	PlanPruneIn struct {
		Policy removal.PrunePolicy `json:"policy"`
	}
	PlanPruneOut struct {
		Pruning removal.Pruning `json:"pruning"`
	}
	PruneIn struct {
		Policy   removal.PrunePolicy `json:"policy"`
		Revision *string             `json:"revision,omitempty"`
	}
	PruneOut struct {
		OperationID string            `json:"operationId"`
		Progress    *removal.Progress `json:"progress,omitempty"`
		Pruning     *removal.Pruning  `json:"pruning,omitempty"`
	}
	GetUsageOut struct {
		Image     *removal.ImageUsage     `json:"image,omitempty"`
		Container *removal.ContainerUsage `json:"container,omitempty"`
		Layer     *removal.LayerUsage     `json:"layer,omitempty"`
		Totals    *removal.UsageTotals    `json:"totals,omitempty"`
	}
	ListContainersIn struct {
		Container *string `json:"container,omitempty"`
		Image     *string `json:"image,omitempty"`
		Size      *bool   `json:"size,omitempty"`
	}
	ListContainersOut struct {
		Container *removal.Container `json:"container,omitempty"`
	}
	ListImagesIn struct {
		Image *string `json:"image,omitempty"`
	}
	ListImagesOut struct {
		Image *removal.Image `json:"image,omitempty"`
	}
	ExplainIn struct {
		Reference string `json:"reference"`
	}
	ExplainOut struct {
		Image      *string             `json:"image,omitempty"`
		Container  *string             `json:"container,omitempty"`
		Name       *string             `json:"name,omitempty"`
		Names      []string            `json:"names"`
		LeastForce removal.Force       `json:"leastForce"`
		Lifted     bool                `json:"lifted"`
		Blockers   []removal.Blocker   `json:"blockers"`
		Holders    []removal.Container `json:"holders"`
	}
	// ExamineIn is Repair's too, which alone takes a grace period.
	ExamineIn struct {
		Names         *[]string `json:"names,omitempty"`
		SettledMs     *int64    `json:"settledMs,omitempty"`
		GracePeriodMs *int64    `json:"gracePeriodMs,omitempty"`
	}
	// ExamineOut is Repair's too.
	ExamineOut struct {
		Findings     []removal.Finding `json:"findings"`
		Silences     []removal.Silence `json:"silences"`
		UnknownNames []string          `json:"unknownNames"`
	}
	BuildIn struct {
		Build removal.BuildRequest `json:"build"`
	}
	BuildOut struct {
		OperationID string    `json:"operationId"`
		Lines       []string  `json:"lines"`
		ImageID     *string   `json:"imageId,omitempty"`
		Names       *[]string `json:"names,omitempty"`
	}
	LoadIn struct {
		FileDescriptor *int64  `json:"fileDescriptor,omitempty"`
		Path           *string `json:"path,omitempty"`
		Name           *string `json:"name,omitempty"`
		MaxBytes       *int64  `json:"maxBytes,omitempty"`
	}
	LoadOut struct {
		OperationID string                 `json:"operationId"`
		Progress    *removal.CopyProgress  `json:"progress,omitempty"`
		Images      *[]removal.LoadedImage `json:"images,omitempty"`
	}
	ImportIn struct {
		FileDescriptor *int64    `json:"fileDescriptor,omitempty"`
		Path           *string   `json:"path,omitempty"`
		Name           *string   `json:"name,omitempty"`
		Changes        *[]string `json:"changes,omitempty"`
		Message        *string   `json:"message,omitempty"`
		OS             *string   `json:"os,omitempty"`
		Architecture   *string   `json:"architecture,omitempty"`
		Variant        *string   `json:"variant,omitempty"`
		MaxBytes       *int64    `json:"maxBytes,omitempty"`
	}
	ImportOut struct {
		OperationID string                `json:"operationId"`
		Progress    *removal.CopyProgress `json:"progress,omitempty"`
		Image       *removal.LoadedImage  `json:"image,omitempty"`
	}
	ListPluginsOut struct {
		Plugins []removal.Plugin `json:"plugins"`
	}
	RegisterPluginIn struct {
		Address string `json:"address"`
	}
	RegisterPluginOut struct {
		Plugin removal.Plugin `json:"plugin"`
	}
	UnregisterPluginIn struct {
		Name string `json:"name"`
	}
	MonitorIn struct {
		AfterSequence *int64 `json:"afterSequence,omitempty"`
	}
	MonitorOut struct {
		Ready     *bool `json:"ready,omitempty"`
		Heartbeat *bool `json:"heartbeat,omitempty"`
		// Sequence is, with either, the number of the last event until then.
		Sequence *int64         `json:"sequence,omitempty"`
		Event    *removal.Event `json:"event,omitempty"`
	}
)
