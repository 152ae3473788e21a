package hooks

import (
	"testing"
	"time"
)

// SetEndOfBuild changes how long a plugin has to end a build.
func SetEndOfBuild(t testing.TB, d time.Duration) { set(t, &endOfBuild, d) }

// SetSilence changes how long Stop, Remove and Build may go without a reply.
func SetSilence(t testing.TB, d time.Duration) { set(t, &silence, d) }

// SetEndGrace changes how long a plugin's process has to end.
func SetEndGrace(t testing.TB, d time.Duration) { set(t, &endGrace, d) }

func set[T any](t testing.TB, at *T, v T) {
	old := *at
	*at = v
	t.Cleanup(func() { *at = old })
}
