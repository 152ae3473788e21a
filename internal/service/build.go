package service

import (
	"context"
	"errors"
	"fmt"

	"github.com/unmoor/unmoor/core"
)

// Builder has an engine build an image, and tells output of each line that the engine writes. ctx ends the
// build.
type Builder interface {
	Build(ctx context.Context, store core.StoreInfo, r core.BuildRequest, output func(line string)) (core.ImageID, error)
}

// Built is an image that was built.
type Built struct {
	Image core.ImageID
	// Names are those that it has since.
	Names []string
}

// RequestError is a request that makes no sense.
type RequestError struct{ Err error }

func (e *RequestError) Error() string { return e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

// Build has an engine build an image in the store, and makes sure that it is there. output is told of each
// line that the engine writes, one after the other. ctx ends the build. Errors: *RequestError, and why there is
// no image.
func (l *Local) Build(ctx context.Context, r core.BuildRequest, output func(line string)) (*Built, error) {
	if err := r.Check(); err != nil {
		return nil, &RequestError{err}
	}
	if l.Builder == nil {
		return nil, errors.New("no engine builds images here")
	}
	id, err := l.Builder.Build(ctx, l.Engine.Store.Info(), r, output)
	if err != nil {
		return nil, err
	}
	snapshot, err := l.Engine.Store.Snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for image %s, which was built: %w", id, err)
	}
	image, there := snapshot.Image(id)
	if !there {
		return nil, fmt.Errorf("image %s was built, as the engine says, and is not in the store: see where that engine has it", id)
	}
	return &Built{Image: id, Names: append([]string{}, image.Names...)}, nil
}
