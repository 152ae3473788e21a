package daemon

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/unmoor/unmoor/internal/wire"
)

// caller is who called, by the kernel's word.
type caller struct {
	wire.Peer
	// privileged is root or the service's own user, which no bound keeps waiting behind others.
	privileged bool
}

// call is one call that may be carried out.
type call struct {
	caller
	method string
	setup  *Setup
	// who is the caller for the audit log, from when there is something to write down.
	who *callerRecord
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// callOf is the call whose handler it is. There is one: dispatch puts it there.
func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// newID is one that nobody else has.
func newID() string { return strings.ToLower(rand.Text()) }
