package service

import (
	"context"

	"github.com/unmoor/unmoor/core"
)

// Loader brings images into the store; core/cstore's Store is the real one.
type Loader interface {
	Load(ctx context.Context, r core.LoadRequest) ([]core.LoadedImage, error)
	Import(ctx context.Context, r core.ImportRequest) (core.LoadedImage, error)
}

// Load puts the images of an archive into the store. Those that are returned are there even where there is an
// error.
func (l *Local) Load(ctx context.Context, r core.LoadRequest) ([]core.LoadedImage, error) {
	return l.Loader.Load(ctx, r)
}

// Import makes an image of a root file system.
func (l *Local) Import(ctx context.Context, r core.ImportRequest) (core.LoadedImage, error) {
	return l.Loader.Import(ctx, r)
}
