package conformance

import (
	"fmt"
	"path/filepath"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
)

func buildRules() []rule {
	return []rule{
		{"build-answers", "Build of a directory that is not there fails where it is offered, and is refused where it is not", []string{"describe-answers"}, buildAnswers},
	}
}

func buildAnswers(p *probe) error {
	in := protocol.BuildIn{ProtocolVersion: protocol.Version, Store: p.wireStore(p.store),
		Build: sent(core.BuildRequest{Context: filepath.Join(p.other.GraphRoot, "no-such-directory")}, protocol.FromBuild)}
	if p.offers("build") != nil {
		return p.notOffered(protocol.MethodBuild, in, "build")
	}
	r, err := p.call(protocol.MethodBuild, in, p.options.Deadline)
	if err != nil {
		return err
	}
	if err := unavailable(r); isSkip(err) {
		return err
	}
	if r.Error != protocol.ErrorBuildFailed || looseOf(r.Parameters).text("reason") == "" {
		return fmt.Errorf("it answers with %s", r)
	}
	return nil
}
