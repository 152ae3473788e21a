package sdnotify

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Watchdog says again and again that the service lives, as often as the service manager wants to hear it,
// until ctx ends; where it does not want to, Watchdog returns at once. alive proves it within its context,
// a quarter of the service manager's patience: what it cannot prove is not said.
func Watchdog(ctx context.Context, alive func(ctx context.Context) error) error {
	patience, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("find out what the service manager's watchdog wants: %w", err)
	}
	if patience == 0 {
		return nil
	}
	ticker := time.NewTicker(patience / 3)
	defer ticker.Stop()
	for {
		if err := prove(ctx, alive, patience/4); err == nil {
			tell(daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			slog.Error("the service does not answer itself; the watchdog is not told that it lives", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func prove(ctx context.Context, alive func(context.Context) error, time time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, time)
	defer cancel()
	return alive(ctx)
}
