package service

import (
	"context"
	"time"

	"github.com/unmoor/unmoor/core"
)

// Local answers in this process. Its methods may be called from several goroutines at once.
type Local struct {
	// Engine is copied for each removal, which has a Progress of its own.
	Engine *core.Engine
	Doctor *core.Doctor
	// Builder has engines build images; nil is that there is none.
	Builder Builder
	Loader  Loader
	// Grace is between the polite signal and the forcible one, for requests that do not say.
	Grace time.Duration
	// Cleaning is what a prune goes by, Journal what is known of images' use; nil knows nothing.
	Cleaning Cleaning
	Journal  Journal

	// disk measures another file system than the store's, for tests.
	disk func() (core.Disk, error)
}

// Store is the store that is asked about.
func (l *Local) Store(context.Context) (core.StoreInfo, error) { return l.Engine.Store.Info(), nil }

func (l *Local) grace(asked *time.Duration) time.Duration {
	if asked != nil {
		return *asked
	}
	return l.Grace
}
