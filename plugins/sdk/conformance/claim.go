package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
)

func claimRules() []rule {
	answers := []string{"claim-answers"}
	return []rule{
		{"claim-answers", "Claim is answered, and where the engine is ready, with reports", []string{"describe-answers"}, claimAnswers},
		{"claim-form", "A report has every field, each in its form; mine has a state and a use", answers, claimForm},
		{"claim-once", "Claim makes exactly one report an ID", answers, claimOnce},
		{"claim-nothing", "A Claim about nothing is answered with no reports", answers, claimNothing},
		{"claim-batch", "A Claim about 1024 containers is answered in time", answers, claimBatch},
		{"claim-stranger", "A container that fits none of its hints is not_mine or unknown", answers, claimStranger},
		{"claim-other-store", "In a store that its engine does not use, no container is mine", answers, claimOtherStore},
		{"claim-same", "Claim says the same twice, since it has no side effects", answers, claimSame},
		{"claim-aside", "Claims are answered side by side, each about its own containers", answers, claimAside},
		{"claim-metadata", "A Claim about a container with 1 MiB of metadata of any characters is answered", answers, claimMetadata},
		{"claim-more", "With more, the replies continue until the last, and have one report an ID together", answers, claimMore},
	}
}

func claimAnswers(p *probe) error {
	r, err := p.call(protocol.MethodClaim, p.claimIn(p.store, madeUp(p.store, 1)), p.options.Deadline)
	if err != nil {
		return err
	}
	switch err := unavailable(r); {
	case !isSkip(err):
		return err
	case looseOf(r.Parameters).text("reason") == "":
		return fmt.Errorf("%s gives no reason", r)
	case p.ready():
		return fmt.Errorf("Describe says that it is ready, and Claim is answered with %s", r)
	default:
		return err
	}
}

// ready asks whether the engine can answer now.
func (p *probe) ready() bool {
	r, err := p.call(protocol.MethodDescribe, nil, p.options.Deadline)
	return err == nil && looseOf(r.Parameters).flag("ready")
}

func claimForm(p *probe) error {
	r, err := p.call(protocol.MethodClaim, p.claimIn(p.store, madeUp(p.store, 3)), p.options.Deadline)
	if err != nil {
		return err
	}
	if err := unavailable(r); err != nil {
		return err
	}
	return reportsForm(r)
}

func reportsForm(r reply) error {
	var out protocol.ClaimOut
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

func claimOnce(p *probe) error {
	asked := madeUp(p.store, 7)
	reports, err := p.claim(p.store, asked)
	if err != nil {
		return err
	}
	return once(ids(asked), reports, "reports")
}

func claimNothing(p *probe) error {
	r, err := p.call(protocol.MethodClaim, p.claimIn(p.store, none[container]()), p.options.Deadline)
	if err != nil {
		return err
	}
	if err := unavailable(r); err != nil {
		return err
	}
	if reports, ok := looseOf(r.Parameters)["reports"].([]any); !ok || len(reports) > 0 {
		return fmt.Errorf("it answers with %s", r)
	}
	return nil
}

func claimBatch(p *probe) error {
	_, err := p.claim(p.store, madeUp(p.store, protocol.MaxBatch))
	return err
}

func claimStranger(p *probe) error { return p.disowned(p.store, madeUp(p.store, 3)) }

func claimOtherStore(p *probe) error { return p.disowned(p.other, madeUp(p.other, 3)) }

// disowned wants none of the containers to be the plugin's.
func (p *probe) disowned(s core.StoreInfo, containers []container) error {
	reports, err := p.claim(s, containers)
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.text("ownership") == "mine" {
			return fmt.Errorf("it claims container %.64q in the store %s", r.text("id"), s.GraphRoot)
		}
	}
	return nil
}

// substance is what of a report does not change by itself.
var substance = []string{"id", "ownership", "state", "use", "displayName", "group", "takesAlong", "imageVolumes", "labels", "revision"}

func claimSame(p *probe) error {
	asked := madeUp(p.store, 5)
	var said [2]string
	for i := range said {
		reports, err := p.claim(p.store, asked)
		if err != nil {
			return err
		}
		var lines []string
		for _, r := range reports {
			lines = append(lines, r.only(substance...))
		}
		slices.Sort(lines)
		said[i] = strings.Join(lines, " ")
	}
	if said[0] != said[1] {
		return fmt.Errorf("first %.300s, then %.300s", said[0], said[1])
	}
	return nil
}

func claimAside(p *probe) error {
	const callers = 16
	errs := make([]error, callers)
	var wg, begun sync.WaitGroup
	begun.Add(callers)
	for i := range callers {
		wg.Go(func() {
			errs[i] = func() error {
				asked := madeUp(p.store, 20)
				s, err := p.open()
				if err == nil {
					defer s.close()
					err = s.send(request{Method: protocol.MethodClaim, Parameters: p.claimIn(p.store, asked)}, p.options.Deadline)
				}
				begun.Done()
				if err != nil {
					return err
				}
				begun.Wait() // nobody reads before all have asked
				r, err := s.receive(p.options.Deadline)
				if err != nil {
					return err
				}
				reports, err := reportsOf(r)
				for _, report := range reports {
					if !slices.Contains(ids(asked), report.text("id")) {
						return fmt.Errorf("it answers one caller about container %.64q, which another one asked about", report.text("id"))
					}
				}
				return err
			}()
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("of %d claims at once: %w", callers, firstOf(errs))
	}
	return nil
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func claimMetadata(p *probe) error {
	asked := madeUp(p.store, 1)
	asked[0].Metadata = `{"made-up":"` + strings.Repeat("ü\u2028€😀\\n\\u0000", 1<<16) + `"}`
	_, err := p.claim(p.store, asked)
	return err
}

func claimMore(p *probe) error {
	asked := madeUp(p.store, 9)
	all, _, err := p.stream(protocol.MethodClaim, p.claimIn(p.store, asked), p.options.Deadline)
	if err != nil {
		return fmt.Errorf("after %d replies: %w", len(all), err)
	}
	var reports []loose
	for _, r := range all {
		some, err := reportsOf(r)
		if err != nil {
			return err
		}
		reports = append(reports, some...)
	}
	// Whether there is one an ID where all come at once is another rule's business.
	if len(all) == 1 {
		return nil
	}
	return once(ids(asked), reports, "reports")
}
