package transcribe

import (
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromExplanation writes an explanation.
func FromExplanation(e *service.Explanation) ExplainOut {
	return ExplainOut{Image: text(e.Image), Container: text(e.Container), Name: text(e.Name), Names: texts[string, string](e.Names),
		LeastForce: removal.Force(e.LeastForce.String()), Lifted: e.Lifted,
		Blockers: list(e.Blockers, FromBlocker), Holders: list(e.Holders, FromContainer)}
}

// ToExplanation reads an explanation.
func ToExplanation(e ExplainOut) (*service.Explanation, error) {
	out := &service.Explanation{Image: core.ImageID(value(e.Image)), Container: core.ContainerID(value(e.Container)),
		Name: value(e.Name), Names: e.Names, Lifted: e.Lifted}
	var blockers, holders error
	out.Blockers, blockers = read(e.Blockers, ToBlocker)
	out.Holders, holders = read(e.Holders, ToContainer)
	if err := errors.Join(blockers, holders, word(e.LeastForce, &out.LeastForce)); err != nil {
		return nil, fmt.Errorf("read the explanation: %w", err)
	}
	return out, nil
}
