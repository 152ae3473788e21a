package conformance

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
)

func describeRules() []rule {
	answers := []string{"describe-answers"}
	return []rule{
		{"describe-answers", "Describe is answered", nil, describeAnswers},
		{"describe-form", "What the plugin says of itself has every field, each in its form", answers, describeForm},
		{"describe-name", "Its name is that of its socket, without .sock", answers, describeName},
		{"describe-version", "It speaks revision 1 of the protocol", answers, describeVersion},
		{"describe-same", "It says the same of itself twice", answers, describeSame},
		{"describe-stream", "With more, Describe is answered at once and stays open", answers, describeStream},
		{"describe-aside", "Other calls are answered while a Describe stays open", answers, describeAside},
	}
}

func describeAnswers(p *probe) error {
	for _, parameters := range []any{nil, struct{}{}} {
		r, err := p.call(protocol.MethodDescribe, parameters, p.options.Deadline)
		if err != nil {
			return err
		}
		if r.Error != "" {
			return fmt.Errorf("it answers with %s", r)
		}
	}
	return nil
}

func describeForm(p *probe) error {
	r, err := p.call(protocol.MethodDescribe, nil, p.options.Deadline)
	if err != nil {
		return err
	}
	var out protocol.DescribeOut
	if err := wire.Decode(r.Parameters, &out); err != nil {
		return fmt.Errorf("%w: %s", err, r)
	}
	if _, err := protocol.ToDescription(out); err != nil {
		return fmt.Errorf("%w: %s", err, r)
	}
	return nil
}

func describeName(p *probe) error {
	path := p.target.Socket()
	if path == "" {
		return skipf("it has no socket of its own")
	}
	if name, want := p.said.text("name"), strings.TrimSuffix(filepath.Base(path), ".sock"); name != want || !strings.HasSuffix(path, ".sock") {
		return fmt.Errorf("it calls itself %.80q, on the socket %s", name, path)
	}
	return nil
}

func describeVersion(p *probe) error {
	if versions := p.said.numbers("protocolVersions"); !slices.Contains(versions, protocol.Version) {
		return fmt.Errorf("it speaks %v", versions)
	}
	return nil
}

// identity is what of a description does not change while the plugin lives; whether its engine answers may.
var identity = []string{"name", "engine", "protocolVersions", "capabilities", "claimHints"}

func describeSame(p *probe) error {
	r, err := p.call(protocol.MethodDescribe, nil, p.options.Deadline)
	if err != nil {
		return err
	}
	if first, second := p.said.only(identity...), looseOf(r.Parameters).only(identity...); first != second {
		return fmt.Errorf("first %s, then %s", first, second)
	}
	return nil
}

// watch opens a Describe and returns once it has been answered.
func (p *probe) watch() (*session, reply, error) {
	s, err := p.open()
	if err != nil {
		return nil, reply{}, err
	}
	var first reply
	err = s.send(request{Method: protocol.MethodDescribe, More: true}, p.options.Deadline)
	if err == nil {
		first, err = s.receive(p.options.Deadline)
	}
	if err != nil {
		s.close()
		return nil, reply{}, err
	}
	return s, first, nil
}

func describeStream(p *probe) error {
	s, first, err := p.watch()
	if err != nil {
		return err
	}
	defer s.close()
	if first.Error != "" || !first.Continues {
		return fmt.Errorf("the first reply does not continue: %s", first)
	}
	for end := time.Now().Add(p.options.Watch); time.Now().Before(end); {
		r, err := s.receive(time.Until(end))
		switch {
		case errors.Is(err, errSilent):
			return nil
		case err != nil:
			return fmt.Errorf("after the first reply: %w", err)
		case r.Error != "" || !r.Continues:
			return fmt.Errorf("it ends with %s", r)
		}
	}
	return nil
}

func describeAside(p *probe) error {
	var open []*session
	defer func() {
		for _, s := range open {
			s.close()
		}
	}()
	for range 3 {
		s, _, err := p.watch()
		if err != nil {
			return fmt.Errorf("with %d open: %w", len(open), err)
		}
		open = append(open, s)
	}
	if r, err := p.call(protocol.MethodDescribe, nil, p.options.Deadline); err != nil {
		return fmt.Errorf("with %d open: %w", len(open), err)
	} else if r.Error != "" {
		return fmt.Errorf("with %d open it answers with %s", len(open), r)
	}
	return nil
}
