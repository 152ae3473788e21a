package hooks

import (
	"testing"
	"time"
)

// SetSilence changes how long Stop and Remove may go without a reply.
func SetSilence(t testing.TB, d time.Duration) {
	old := silence
	silence = d
	t.Cleanup(func() { silence = old })
}
