package sdk

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// faultError is a mistake of the plugin's own, and nothing that its engine did.
type faultError struct{ err error }

func (e *faultError) Error() string { return e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }

// Advice is what an operator can do about it.
func (e *faultError) Advice() string { return "report this as a fault of the plugin" }

// guard makes an error of a panic.
func guard[T any](log *slog.Logger, method string, f func() (T, error)) (answer T, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.Error("the plugin panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
			err = &faultError{fmt.Errorf("%s panicked: %.200v", method, p)}
		}
	}()
	return f()
}

// checkClaims wants exactly one claim a container.
func checkClaims(asked []core.Container, claims []core.Claim) error {
	open := make(map[core.ContainerID]bool, len(asked))
	for _, c := range asked {
		open[c.ID] = true
	}
	for _, c := range claims {
		if err := tick(open, c.Container, "a claim about container"); err != nil {
			return err
		}
	}
	return left(open, "no claim about container")
}

// checkList wants claims of the engine's own, each about another container.
func checkList(claims []core.Claim) error {
	seen := make(map[core.ContainerID]bool, len(claims))
	for _, c := range claims {
		switch {
		case c.Ownership != core.OwnershipMine:
			return &faultError{fmt.Errorf("it lists container %.80q, and says %s of it", c.Container, c.Ownership)}
		case seen[c.Container]:
			return &faultError{fmt.Errorf("it lists container %.80q twice", c.Container)}
		}
		seen[c.Container] = true
	}
	return nil
}

// wirePins wants exactly one pin an image.
func wirePins(asked []core.Image, pins []core.Pin) ([]iounmoorplugin.Pin, error) {
	open := make(map[core.ImageID]bool, len(asked))
	for _, i := range asked {
		open[i.ID] = true
	}
	answer := make([]iounmoorplugin.Pin, 0, len(pins))
	for _, p := range pins {
		if err := tick(open, p.Image, "a pin of image"); err != nil {
			return nil, err
		}
		pin, err := protocol.FromPin(p)
		if err != nil {
			return nil, &faultError{err}
		}
		answer = append(answer, pin)
	}
	return answer, left(open, "no pin of image")
}

// tick notes that what was open is answered.
func tick[ID ~string](open map[ID]bool, id ID, what string) error {
	waits, asked := open[id]
	switch {
	case !asked:
		return &faultError{fmt.Errorf("it made %s %.80q, which it was not asked about", what, string(id))}
	case !waits:
		return &faultError{fmt.Errorf("it made %s %s twice", what, string(id))}
	}
	open[id] = false
	return nil
}

func left[ID ~string](open map[ID]bool, what string) error {
	for id, waits := range open {
		if waits {
			return &faultError{errors.New("it made " + what + " " + string(id))}
		}
	}
	return nil
}
