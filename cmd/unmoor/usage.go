package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/unmoor/unmoor/internal/config"
	"github.com/unmoor/unmoor/internal/usage"
)

// watch watches when the images of the store are used, until the machine is closed. Where that does not work
// it is told, and images of which nothing is known stay.
func (m *machine) watch(ctx context.Context) *usage.Watch {
	w := usage.NewWatch(usage.Of(m.engine.Store.Info().GraphRoot), m.engine.Store.Snapshot, m.places, slog.Default())
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := w.Run(ctx); err != nil {
			slog.Error("the use of images is not seen", "error", err)
		}
	}()
	closeStore := m.close
	m.close = func() {
		stop()
		select {
		case <-ended:
		case <-time.After(watchEnds):
			// It waits for a lock of the store, which it only reads: nothing is lost where it goes on.
		}
		closeStore()
	}
	return w
}

// watchEnds is how long the end of a watch may take, which writes down what it has seen.
const watchEnds = 2 * time.Second

// pruneEvery is how often the service prunes by itself; 0 is never.
func pruneEvery(c config.Prune) time.Duration {
	if !c.Enabled {
		return 0
	}
	return time.Duration(c.Interval)
}
