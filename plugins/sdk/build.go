package sdk

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// Build has the plugin build, where it can, and sends what its engine writes as it is written.
func (s *service) Build(ctx context.Context, c call, version int64, store iounmoorplugin.Store, build iounmoorplugin.BuildRequest) error {
	info, answered, err := s.admit(ctx, &c, version, store)
	if answered {
		return err
	}
	b, ok := s.plugin.(Builder)
	if !ok {
		return c.ReplyMethodNotImplemented(ctx, protocol.MethodBuild)
	}
	request, err := protocol.ToBuild(build)
	if err != nil {
		return s.invalid(ctx, &c, "build", err)
	}
	// Replies go out even while the plugin is about to end.
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &transcript{ctx: context.WithoutCancel(ctx), c: c, gone: cancel, done: make(chan struct{})}
	var beats sync.WaitGroup
	if c.WantsMore() {
		beats.Go(func() { l.live(s.heartbeat) })
	}
	id, err := guard(s.log, "Build", func() (core.ImageID, error) { return b.Build(working, info, request, l.line) })
	l.end()
	beats.Wait()
	if err == nil {
		if wrong := protocol.CheckBuilt(id); wrong != nil {
			err = &faultError{wrong}
		}
	}
	var advised interface{ Advice() string }
	image := string(id)
	switch {
	case l.err != nil:
		return l.err
	case err == nil:
		c.Continues = false
		return c.ReplyBuild(l.ctx, []string{}, &image)
	case errors.As(err, &advised), errors.Is(err, core.ErrEngineAbsent):
		s.log.Warn("an image was not built", "error", err)
		w := protocol.FromError(err)
		return c.ReplyEngineUnavailable(l.ctx, w.Reason, w.Absent, w.Advice)
	}
	return c.ReplyBuildFailed(l.ctx, err.Error())
}

// transcript sends lines, and signs of life beside them.
type transcript struct {
	ctx context.Context
	c   call
	// gone ends the build, since nobody listens.
	gone context.CancelFunc
	done chan struct{}

	mu    sync.Mutex
	ended bool
	err   error
}

func (l *transcript) line(text string) { l.send([]string{text}) }

// live sends a sign of life with each beat, until the end.
func (l *transcript) live(every time.Duration) {
	beat := time.NewTicker(every)
	defer beat.Stop()
	for {
		select {
		case <-l.done:
			return
		case <-beat.C:
			l.send([]string{})
		}
	}
}

// send sends nothing after an error, nor after the end.
func (l *transcript) send(lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.ended || !l.c.WantsMore() {
		return
	}
	c := l.c
	c.Continues = true
	if l.err = c.ReplyBuild(l.ctx, lines, nil); l.err != nil {
		l.gone()
	}
}

func (l *transcript) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	close(l.done)
}
