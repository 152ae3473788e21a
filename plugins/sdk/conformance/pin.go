package conformance

import (
	"errors"
	"fmt"
	"time"

	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
)

func pinRules() []rule {
	answers := []string{"pins-answers"}
	return []rule{
		{"pins-answers", "Pins is answered where it is offered, and refused where it is not", []string{"describe-answers"}, pinsAnswers},
		{"pins-form", "A pin has every field, each in its form", answers, pinsForm},
		{"pins-once", "Pins gives exactly one pin an ID", answers, pinsOnce},
		{"pins-nothing", "Pins of nothing is answered with no pins", answers, pinsNothing},
		{"pins-stranger", "An image that the engine does not know is not pinned", answers, pinsStranger},
	}
}

func madeUpImages(n int) []image {
	all := none[image]()
	for range n {
		id := randomID()
		all = append(all, image{Id: id, Names: []string{"localhost/made-up:" + id[:12]}, Digests: []string{"sha256:" + randomID()}})
	}
	return all
}

func (p *probe) pins(images []image) (reply, []loose, error) {
	if err := p.offers("pin"); err != nil {
		return reply{}, nil, err
	}
	in := protocol.PinsIn{ProtocolVersion: protocol.Version, Store: p.wireStore(p.store), Images: images}
	r, err := p.call(protocol.MethodPins, in, p.options.Deadline)
	if err == nil {
		err = unavailable(r)
	}
	return r, looseOf(r.Parameters).objects("pins"), err
}

func pinsAnswers(p *probe) error {
	if p.offers("pin") == nil {
		_, _, err := p.pins(madeUpImages(1))
		return err
	}
	in := protocol.PinsIn{ProtocolVersion: protocol.Version, Store: p.wireStore(p.store), Images: madeUpImages(1)}
	return p.notOffered(protocol.MethodPins, in, "pin")
}

// notOffered wants a method that is not offered to be refused. Then the rest is skipped.
func (p *probe) notOffered(method string, in any, capability string) error {
	r, err := p.call(method, in, p.options.Deadline)
	switch {
	case errors.Is(err, errClosed):
	case err != nil:
		return err
	case r.Error == "":
		return fmt.Errorf("it does not offer %s, and answers %s with %s", capability, method, r)
	}
	return p.offers(capability)
}

func pinsForm(p *probe) error {
	r, _, err := p.pins(madeUpImages(3))
	if err != nil {
		return err
	}
	var out protocol.PinsOut
	if err := wire.Decode(r.Parameters, &out); err != nil {
		return fmt.Errorf("%w: %s", err, r)
	}
	for _, pin := range out.Pins {
		if _, err := protocol.ToPin(pin); err != nil {
			return fmt.Errorf("%w: %s", err, r)
		}
	}
	return nil
}

func pinsOnce(p *probe) error {
	images := madeUpImages(5)
	_, pins, err := p.pins(images)
	if err != nil {
		return err
	}
	asked := make([]string, len(images))
	for i, image := range images {
		asked[i] = image.Id
	}
	return once(asked, pins, "pins")
}

func pinsNothing(p *probe) error {
	r, _, err := p.pins(none[image]())
	if err != nil {
		return err
	}
	if pins, ok := looseOf(r.Parameters)["pins"].([]any); !ok || len(pins) > 0 {
		return fmt.Errorf("it answers with %s", r)
	}
	return nil
}

func pinsStranger(p *probe) error {
	r, pins, err := p.pins(madeUpImages(2))
	if err != nil {
		return err
	}
	for _, pin := range pins {
		if pin.text("pinned") == "yes" {
			return fmt.Errorf("it pins image %.64q, which nobody has: %s", pin.text("id"), r)
		}
	}
	return nil
}

func listRules() []rule {
	answers := []string{"list-answers"}
	return []rule{
		{"list-answers", "List is answered where it is offered, and refused where it is not", []string{"describe-answers"}, listAnswers},
		{"list-form", "What List reports has every field, each in its form", answers, listForm},
		{"list-mine", "List reports containers of the engine's own, each once", answers, listMine},
		{"list-more", "With more, the replies of List continue until the last", answers, listMore},
	}
}

func (p *probe) listIn() protocol.ListIn {
	return protocol.ListIn{ProtocolVersion: protocol.Version, Store: p.wireStore(p.store)}
}

func (p *probe) list() (reply, []loose, error) {
	r, err := p.call(protocol.MethodList, p.listIn(), p.options.Deadline)
	if err == nil {
		err = unavailable(r)
	}
	return r, looseOf(r.Parameters).objects("reports"), err
}

func listAnswers(p *probe) error {
	if p.offers("list") == nil {
		_, _, err := p.list()
		return err
	}
	return p.notOffered(protocol.MethodList, p.listIn(), "list")
}

func listForm(p *probe) error {
	r, _, err := p.list()
	if err != nil {
		return err
	}
	var out protocol.ListOut
	if err := wire.Decode(r.Parameters, &out); err != nil {
		return fmt.Errorf("%w: %s", err, r)
	}
	for _, report := range out.Reports {
		if _, err := protocol.ToClaim(report, time.Now()); err != nil {
			return fmt.Errorf("%w: %s", err, r)
		}
	}
	return nil
}

func listMine(p *probe) error {
	_, reports, err := p.list()
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	for _, r := range reports {
		switch id := r.text("id"); {
		case r.text("ownership") != "mine":
			return fmt.Errorf("it lists container %.64q, and says %q of it", id, r.text("ownership"))
		case seen[id]:
			return fmt.Errorf("it lists container %.64q twice", id)
		default:
			seen[id] = true
		}
	}
	return nil
}

func listMore(p *probe) error {
	all, _, err := p.stream(protocol.MethodList, p.listIn(), p.options.Deadline)
	if err != nil {
		return fmt.Errorf("after %d replies: %w", len(all), err)
	}
	return unavailable(all[len(all)-1])
}
