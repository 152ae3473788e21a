package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// Build is the plugin's for as long as it gives signs of life. Where ctx ends, so does the connection, and
// with it the build.
func (p *remote) Build(ctx context.Context, store core.StoreInfo, r core.BuildRequest, output func(line string)) (core.ImageID, error) {
	where, err := protocol.FromStore(store)
	if err != nil {
		return "", err
	}
	what, err := protocol.FromBuild(r)
	if err != nil {
		return "", err
	}
	alive, timer, end := listen(ctx, silence)
	defer end()
	conn, d, err := p.open(alive)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if !d.Capabilities.Build {
		return "", errNotOffered
	}
	in := protocol.BuildIn{ProtocolVersion: protocol.Version, Store: where, Build: what}
	var id core.ImageID
	err = conn.Stream(alive, protocol.MethodBuild, in, func(parameters json.RawMessage, continues bool) error {
		timer.Stop() // what its lines are told to may take its time
		defer timer.Reset(silence)
		var out protocol.BuildOut
		err := wire.Decode(parameters, &out)
		if err == nil {
			err = out.Check(!continues)
		}
		if err != nil {
			return &fault{faultGarbage, err}
		}
		for _, line := range out.Lines {
			output(line)
		}
		switch {
		case !continues:
			id = core.ImageID(*out.ImageID)
		case len(out.Lines) == 0:
			return pause(alive, betweenSigns)
		}
		return nil
	})
	if reply := (*wire.Error)(nil); errors.As(err, &reply) && reply.Name == protocol.ErrorBuildFailed {
		var failed iounmoorplugin.BuildFailed
		if err := wire.Decode(reply.Parameters, &failed); err != nil {
			return "", p.blame(alive, &fault{faultGarbage, fmt.Errorf("its error BuildFailed: %w", err)})
		}
		return "", errors.New(oneLine(failed.Reason))
	}
	if f := (*fault)(nil); ctx.Err() != nil || errors.As(err, &f) && f.kind != faultBroken {
		p.working.Store(true)
	}
	return id, p.blame(alive, err)
}
