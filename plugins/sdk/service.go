package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// service answers io.unmoor.Plugin for one plugin.
type service struct {
	plugin Plugin
	engine *engine
	log    *slog.Logger
	// heartbeat is how long a Stop, a Remove or a Build is silent at most, patience what one may take beyond its
	// batch's share.
	heartbeat time.Duration
	patience  time.Duration
}

func newService(ctx context.Context, p Plugin, log *slog.Logger) (*service, error) {
	e, err := newEngine(ctx, p, log)
	if err != nil {
		return nil, err
	}
	return &service{plugin: p, engine: e, log: log, heartbeat: 3 * time.Second, patience: 10 * time.Minute}, nil
}

type call = iounmoorplugin.VarlinkCall

// Describe answers with what is known, and with more, with each change of it.
func (s *service) Describe(ctx context.Context, c call) error {
	if !mayCall(ctx) {
		return wire.ReplyPermissionDenied(ctx, c.Call)
	}
	d, changed := s.engine.fresh(ctx)
	for {
		c.Continues = c.WantsMore()
		err := c.ReplyDescribe(ctx, d.Name, d.Engine, d.EngineVersion, d.ProtocolVersions, d.Capabilities, d.ClaimHints, d.Ready)
		if err != nil || !c.Continues {
			return err
		}
		if err := s.engine.watch(ctx, d.Ready, changed); err != nil {
			return err // the caller has gone, or the plugin ends: so does the connection
		}
		d, changed = s.engine.now()
	}
}

// Claim has the plugin claim.
func (s *service) Claim(ctx context.Context, c call, version int64, store iounmoorplugin.Store, containers []iounmoorplugin.Container) error {
	info, answered, err := s.admit(ctx, &c, version, store)
	if answered {
		return err
	}
	asked, err := read(containers, protocol.ToContainer, containerID)
	if err != nil {
		return s.invalid(ctx, &c, "containers", err)
	}
	claims, err := guard(s.log, "Claim", func() ([]core.Claim, error) { return s.plugin.Claim(ctx, info, slices.Clone(asked)) })
	if err == nil {
		err = checkClaims(asked, claims)
	}
	return s.sendClaims(ctx, &c, claims, err, c.ReplyClaim)
}

// List has the plugin list, where it can.
func (s *service) List(ctx context.Context, c call, version int64, store iounmoorplugin.Store) error {
	info, answered, err := s.admit(ctx, &c, version, store)
	if answered {
		return err
	}
	l, ok := s.plugin.(Lister)
	if !ok {
		return c.ReplyMethodNotImplemented(ctx, protocol.MethodList)
	}
	claims, err := guard(s.log, "List", func() ([]core.Claim, error) { return l.List(ctx, info) })
	if err == nil {
		err = checkList(claims)
	}
	return s.sendClaims(ctx, &c, claims, err, c.ReplyList)
}

// sendClaims answers with claims, in as many replies as it takes where the caller wants more.
func (s *service) sendClaims(ctx context.Context, c *call, claims []core.Claim, err error, reply func(context.Context, []iounmoorplugin.Report) error) error {
	var parts [][]iounmoorplugin.Report
	if err == nil {
		var refused map[int]error
		parts, refused = protocol.Batches(claims, protocol.FromClaim)
		for _, why := range refused {
			err = &faultError{why}
		}
	}
	if err != nil {
		return s.unavailable(ctx, c, err)
	}
	s.engine.answered(nil)
	if !c.WantsMore() || len(parts) == 0 {
		parts = [][]iounmoorplugin.Report{slices.Concat(append(parts, []iounmoorplugin.Report{})...)}
	}
	for i, part := range parts {
		c.Continues = i < len(parts)-1
		if err := reply(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// Pins has the plugin say what is pinned, where it can.
func (s *service) Pins(ctx context.Context, c call, version int64, store iounmoorplugin.Store, images []iounmoorplugin.Image) error {
	info, answered, err := s.admit(ctx, &c, version, store)
	if answered {
		return err
	}
	p, ok := s.plugin.(Pinner)
	if !ok {
		return c.ReplyMethodNotImplemented(ctx, protocol.MethodPins)
	}
	asked, err := read(images, protocol.ToImage, imageID)
	if err != nil {
		return s.invalid(ctx, &c, "images", err)
	}
	pins, err := guard(s.log, "Pins", func() ([]core.Pin, error) { return p.Pins(ctx, info, slices.Clone(asked)) })
	if err != nil {
		return s.unavailable(ctx, &c, err)
	}
	answer, err := wirePins(asked, pins)
	if err != nil {
		return s.unavailable(ctx, &c, err)
	}
	s.engine.answered(nil)
	return c.ReplyPins(ctx, answer)
}

// admit is the first look at a call. Where answered is true it goes no further.
func (s *service) admit(ctx context.Context, c *call, version int64, store iounmoorplugin.Store) (info core.StoreInfo, answered bool, err error) {
	switch {
	case !mayCall(ctx):
		return info, true, wire.ReplyPermissionDenied(ctx, c.Call)
	case version != protocol.Version:
		return info, true, c.ReplyUnsupportedProtocolVersion(ctx, []int64{protocol.Version})
	}
	if info, err = protocol.ToStore(store); err != nil {
		return info, true, s.invalid(ctx, c, "store", err)
	}
	return info, false, nil
}

// mayCall is whether the caller is root or the plugin's own user.
func mayCall(ctx context.Context) bool {
	peer, ok := wire.PeerOf(ctx)
	return ok && (peer.UID == 0 || peer.UID == os.Geteuid())
}

func (s *service) invalid(ctx context.Context, c *call, parameter string, why error) error {
	s.log.Warn("a call was refused", "parameter", parameter, "error", why)
	return wire.ReplyInvalidParameter(ctx, c.Call, parameter)
}

// unavailable answers that the engine, or the plugin itself, could not answer.
func (s *service) unavailable(ctx context.Context, c *call, err error) error {
	if ctx.Err() != nil {
		return ctx.Err() // nobody waits for it any more
	}
	var fault *faultError
	if errors.As(err, &fault) {
		s.log.Error("the plugin answered nonsense", "error", err)
	} else {
		s.engine.answered(err)
	}
	w := protocol.FromError(err)
	return c.ReplyEngineUnavailable(ctx, w.Reason, w.Absent, w.Advice)
}

// read reads a batch, in which each ID may stand once.
func read[W, M any](batch []W, to func(W) (M, error), id func(M) string) ([]M, error) {
	if len(batch) > protocol.MaxBatch {
		return nil, fmt.Errorf("%d in one call, at most %d", len(batch), protocol.MaxBatch)
	}
	seen := make(map[string]bool, len(batch))
	all := make([]M, 0, len(batch))
	for _, w := range batch {
		m, err := to(w)
		if err != nil {
			return nil, err
		}
		if seen[id(m)] {
			return nil, fmt.Errorf("%s stands there twice", id(m))
		}
		seen[id(m)] = true
		all = append(all, m)
	}
	return all, nil
}

func containerID(c core.Container) string { return string(c.ID) }
func imageID(i core.Image) string         { return string(i.ID) }
func handleID(h core.Handle) string       { return string(h.Container.ID) }
