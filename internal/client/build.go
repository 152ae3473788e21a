package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	"github.com/unmoor/unmoor/internal/wire"
)

// Build is service.Local's; the paths are on the daemon's machine. Where the connection is lost, or ctx
// ends, the daemon ends the build.
func (c *Client) Build(ctx context.Context, r core.BuildRequest, output func(line string)) (*service.Built, error) {
	if err := r.Check(); err != nil {
		return nil, &service.RequestError{Err: err}
	}
	var built *service.Built
	err := stream(ctx, c, "Build", transcribe.BuildIn{Build: transcribe.FromBuild(r)}, func(reply transcribe.BuildOut, last bool) error {
		for _, line := range reply.Lines {
			output(line)
		}
		switch {
		case !last:
			return nil
		case reply.ImageID == nil || *reply.ImageID == "" || reply.Names == nil:
			return errors.New("the last reply has no image")
		}
		built = &service.Built{Image: core.ImageID(*reply.ImageID), Names: *reply.Names}
		return nil
	})
	if _, reply := errors.AsType[*wire.Error](err); err == nil || reply {
		return built, c.failed("Build", "", err)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("the daemon at %s ends the build: %w", c.address, ctx.Err())
	}
	return nil, fmt.Errorf("the daemon at %s was lost in the middle of the build: %w", c.address, err)
}
