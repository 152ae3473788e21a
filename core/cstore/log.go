package cstore

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/sirupsen/logrus"
)

// The library logs through logrus' one global logger. Its lines say nothing that an error does not
// say, or concern engines; so they are all taken for debugging.
var (
	libraryLog     atomic.Pointer[slog.Logger]
	libraryLogOnce sync.Once
)

// routeLibraryLog sends the library's log to logger at debug level, and nowhere if that is nil.
// There is one log a process: the last caller gets it.
func routeLibraryLog(logger *slog.Logger) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	libraryLog.Store(logger)
	libraryLogOnce.Do(func() {
		logrus.SetOutput(io.Discard)
		logrus.AddHook(slogHook{})
	})
	level := logrus.WarnLevel
	if logger.Enabled(context.Background(), slog.LevelDebug) {
		level = logrus.DebugLevel
	}
	logrus.SetLevel(level)
}

type slogHook struct{}

func (slogHook) Levels() []logrus.Level { return logrus.AllLevels }

func (slogHook) Fire(entry *logrus.Entry) error {
	libraryLog.Load().Debug(entry.Message, "from", "containers/storage", "severity", entry.Level.String())
	return nil
}
