package cstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/signature"
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/unmoor/unmoor/core"
)

// copying is one load or import under way. It ends with end.
type copying struct {
	store   *Store
	options core.CopyOptions
	system  *types.SystemContext
	policy  *signature.PolicyContext
	journal *loadJournal
	end     func() error
	// vetted are the layers that were looked at.
	vetted map[digest.Digest]bool
}

func (s *Store) beginCopy(ctx context.Context, options core.CopyOptions) (*copying, error) {
	c := &copying{store: s, options: options, vetted: make(map[digest.Digest]bool)}
	c.system = &types.SystemContext{SignaturePolicyPath: options.SignaturePolicy}
	policy, err := signature.DefaultPolicy(c.system)
	if err != nil {
		return nil, fmt.Errorf("read the signature policy: %w", err)
	}
	if c.policy, err = signature.NewPolicyContext(policy); err != nil {
		return nil, fmt.Errorf("read the signature policy: %w", err)
	}
	journal, endJournal, err := s.beginJournal(ctx)
	if err != nil {
		return nil, errors.Join(err, c.policy.Destroy())
	}
	c.journal = journal
	c.system.BigFilesTemporaryDir = journal.Directory
	// What the library learns of blobs is forgotten with the directory: nothing in an archive is to reach the
	// engines' own cache.
	c.system.BlobInfoCacheDir = journal.Directory
	c.end = func() error { return errors.Join(endJournal(), c.policy.Destroy()) }
	return c, nil
}

// copy puts an image into the store, under all its names or under none. id is what it is called by without
// names.
func (c *copying) copy(ctx context.Context, ref types.ImageReference, id core.ImageID, names []reference.Named) (core.LoadedImage, error) {
	var loaded core.LoadedImage
	var failure error
	err := c.store.call(ctx, "copy an image into the store", func(lib storage.Store) error {
		loaded, failure = c.copyInto(ctx, lib, ref, id, names)
		return nil
	})
	if failure != nil {
		c.store.mu.Lock()
		c.store.stale = true
		c.store.mu.Unlock()
	}
	return loaded, errors.Join(err, failure)
}

func (c *copying) copyInto(ctx context.Context, lib storage.Store, ref types.ImageReference, id core.ImageID, names []reference.Named) (loaded core.LoadedImage, err error) {
	var named reference.Named
	if len(names) > 0 {
		named, id = names[0], ""
	}
	into := &recorder{Store: lib, stop: ctx.Err, journal: c.journal, at: c.store.at}
	destination, err := istorage.Transport.NewStoreReference(into, named, string(id))
	if err != nil {
		return loaded, err
	}
	var resolved types.ImageReference
	options := &copy.Options{ReportWriter: shared(c.options.Report), SourceCtx: c.system, DestinationCtx: c.system, ReportResolvedReference: &resolved}
	told := c.tellProgress(options)
	_, err = copy.Image(ctx, c.policy, destination, ref, options)
	told()
	if err != nil {
		return loaded, err
	}
	c.store.at("image_made")
	_, record, err := istorage.ResolveReference(resolved)
	if err != nil {
		return loaded, fmt.Errorf("find the image that was made: %w", err)
	}
	loaded.ID = core.ImageID(record.ID)
	var rest []string
	for i, n := range names {
		if i == 0 {
			loaded.Names = append(loaded.Names, n.String())
		} else {
			rest = append(rest, n.String())
		}
	}
	if len(rest) > 0 {
		if err := lib.AddNames(record.ID, rest); err != nil {
			return loaded, fmt.Errorf("name image %s: %w", loaded.ID.Short(), err)
		}
		loaded.Names = append(loaded.Names, rest...)
	}
	return loaded, nil
}

// shared makes a writer fit for several goroutines, which the library does not: its own is a file, and it has
// to see that it is one to draw bars.
func shared(w io.Writer) io.Writer {
	switch w.(type) {
	case nil, *os.File:
		return w
	}
	return &sharedWriter{w: w}
}

type sharedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *sharedWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

// tellProgress has the library's reports passed on. The result is to be called when the copy has ended, and
// returns when all of them were.
func (c *copying) tellProgress(options *copy.Options) func() {
	if c.options.Progress == nil {
		return func() {}
	}
	reports := make(chan types.ProgressProperties)
	options.Progress, options.ProgressInterval = reports, 500*time.Millisecond
	var wait sync.WaitGroup
	wait.Go(func() {
		for r := range reports {
			c.options.Progress(core.CopyProgress{
				Digest: r.Artifact.Digest.String(), Copied: int64(r.Offset), Size: r.Artifact.Size,
				Done:    r.Event == types.ProgressEventDone || r.Event == types.ProgressEventSkipped,
				Skipped: r.Event == types.ProgressEventSkipped,
			})
		}
	})
	return func() {
		close(reports)
		wait.Wait()
	}
}

// recorder is a store that writes down the layers which are made, before they are, and that stops making one
// with the copy.
type recorder struct {
	storage.Store
	stop    func() error
	journal *loadJournal
	at      func(step string)

	// mu guards made, the images that were made.
	mu   sync.Mutex
	made map[string]bool
}

func (r *recorder) PutLayer(id, parent string, names []string, mountLabel string, writeable bool, options *storage.LayerOptions, diff io.Reader) (*storage.Layer, int64, error) {
	if err := r.journal.begin(id); err != nil {
		return nil, -1, fmt.Errorf("write down layer %s: %w", id, err)
	}
	r.at("put_layer")
	layer, size, err := r.Store.PutLayer(id, parent, names, mountLabel, writeable, options, &bounded{diff, r.stop, math.MaxInt64, nil})
	if errors.Is(err, storage.ErrDuplicateID) {
		if err := r.journal.disown(id); err != nil {
			return nil, -1, fmt.Errorf("write down that layer %s is another's: %w", id, err)
		}
	}
	r.at("layer_put")
	return layer, size, err
}

func (r *recorder) CreateImage(id string, names []string, layer, metadata string, options *storage.ImageOptions) (*storage.Image, error) {
	if err := r.stop(); err != nil {
		return nil, err
	}
	image, err := r.Store.CreateImage(id, names, layer, metadata, options)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.made == nil {
			r.made = make(map[string]bool)
		}
		r.made[image.ID] = true
	}
	return image, err
}

// DeleteImage is what the library does with an image that it could not name, be it made by it or found there
// (containers/image v5.36.2, storage_dest.go, CommitWithOptions). One that was there may be in use.
func (r *recorder) DeleteImage(id string, commit bool) ([]string, error) {
	r.mu.Lock()
	made := r.made[id]
	r.mu.Unlock()
	if !made {
		return nil, fmt.Errorf("image %s was there before", id)
	}
	return r.Store.DeleteImage(id, commit)
}
