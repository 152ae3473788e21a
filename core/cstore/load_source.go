package cstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"

	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/unmoor/unmoor/core"
)

// fenced is a reference to an image in an archive whose reading ends with its context, asks no network, and
// takes no document into memory that is none.
type fenced struct {
	types.ImageReference
	// identity is the reference that signature policies know the image by.
	identity types.ImageReference
	// layout is the directory of an OCI layout, and manifest the image in it; empty with other formats.
	layout   string
	manifest digest.Digest
	// packed are blobs of a layout that are not in its directory.
	packed *packed
	// opened is a source that is there already, for one use.
	opened types.ImageSource
	// open is whether there is no fence: the image may have signatures that it would hide.
	open bool
}

func (f *fenced) Transport() types.ImageTransport { return f.identity.Transport() }
func (f *fenced) StringWithinTransport() string   { return f.identity.StringWithinTransport() }
func (f *fenced) PolicyConfigurationIdentity() string {
	return f.identity.PolicyConfigurationIdentity()
}
func (f *fenced) PolicyConfigurationNamespaces() []string {
	return f.identity.PolicyConfigurationNamespaces()
}

func (f *fenced) NewImageSource(ctx context.Context, system *types.SystemContext) (types.ImageSource, error) {
	source := f.opened
	if source == nil {
		var err error
		if source, err = f.ImageReference.NewImageSource(ctx, system); err != nil {
			return nil, err
		}
	}
	if f.open {
		return source, nil
	}
	return fencedSource{source, f}, nil
}

// fencedSource hides that its source can give chunks of blobs and signatures of sigstore's kind: none of the
// formats that it is used for has them.
type fencedSource struct {
	types.ImageSource
	fence *fenced
}

func (s fencedSource) Reference() types.ImageReference { return s.fence }

// HasThreadSafeGetBlob: each call opens a file of its own (containers/image v5.36.2, oci_src.go, tarfile/src.go,
// tarball_src.go), though the sources do not say so.
func (s fencedSource) HasThreadSafeGetBlob() bool { return true }

// GetManifest of an OCI layout reads a file of whatever size, and does not compare its digest.
func (s fencedSource) GetManifest(ctx context.Context, instance *digest.Digest) ([]byte, string, error) {
	if s.fence.layout == "" {
		return s.ImageSource.GetManifest(ctx, instance)
	}
	wanted := s.fence.manifest
	if instance != nil {
		wanted = *instance
	}
	if err := wanted.Validate(); err != nil {
		return nil, "", fmt.Errorf("the digest %q of its manifest: %w", wanted, err)
	}
	tooLarge := refused("its manifest %s has more than %d bytes", wanted, maxDocument)
	if s.fence.packed != nil {
		if _, ok := s.fence.packed.places[wanted]; ok {
			return nil, "", tooLarge
		}
	}
	info, err := os.Stat(filepath.Join(s.fence.layout, "blobs", wanted.Algorithm().String(), wanted.Encoded()))
	if err != nil {
		return nil, "", err
	}
	if info.Size() > maxDocument {
		return nil, "", tooLarge
	}
	data, kind, err := s.ImageSource.GetManifest(ctx, instance)
	if err == nil && wanted.Algorithm().FromBytes(data) != wanted {
		err = fmt.Errorf("manifest %s is damaged: its contents have another digest", wanted)
	}
	return data, kind, err
}

func (s fencedSource) GetBlob(ctx context.Context, info types.BlobInfo, cache types.BlobInfoCache) (io.ReadCloser, int64, error) {
	if s.fence.packed != nil {
		if at, ok := s.fence.packed.places[info.Digest]; ok {
			file, err := os.Open(s.fence.packed.archive)
			if err != nil {
				return nil, 0, err
			}
			return until(ctx, io.NewSectionReader(file, at.offset, at.size), file), at.size, nil
		}
	}
	info.URLs = nil // where else a layer may be had
	blob, size, err := s.ImageSource.GetBlob(ctx, info, cache)
	if err != nil {
		return nil, 0, err
	}
	return until(ctx, blob, blob), size, nil
}

// until is a blob whose reading ends with its context.
func until(ctx context.Context, content io.Reader, close io.Closer) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{&bounded{content, ctx.Err, math.MaxInt64, nil}, close}
}

// vet looks at an image before the library copies it, its layers side by side, but for those that the store has
// by their digests: the library does not read them again. whole is whether the digests are compared too, as the
// library does when it copies. It returns the image's ID-to-be, empty where its format has none.
func (c *copying) vet(ctx context.Context, ref types.ImageReference, whole bool, left *budget) (core.ImageID, error) {
	source, err := ref.NewImageSource(ctx, c.system)
	if err != nil {
		return "", err
	}
	defer func() { _ = source.Close() }() // it was read
	parsed, err := image.FromUnparsedImage(ctx, c.system, image.UnparsedInstance(source, nil))
	if err != nil {
		return "", err
	}
	layers := parsed.LayerInfos()
	if len(layers) > maxLayers {
		return "", refused("it has %d layers, and %d are possible", len(layers), maxLayers)
	}
	vets, ctx := errgroup.WithContext(ctx)
	vets.SetLimit(runtime.GOMAXPROCS(0))
	for _, layer := range layers {
		has := c.vetted[layer.Digest]
		if !has {
			has, err = c.store.hasContent(ctx, layer.Digest)
		}
		if err != nil {
			break
		}
		if has {
			continue
		}
		c.vetted[layer.Digest] = true
		vets.Go(func() error {
			if err := vetBlob(ctx, source, layer, whole, left); err != nil {
				return fmt.Errorf("layer %s: %w", layer.Digest, err)
			}
			return nil
		})
	}
	if err := cmp.Or(vets.Wait(), err); err != nil {
		clear(c.vetted) // another format may lead to the same layers
		return "", err
	}
	id := parsed.ConfigInfo().Digest
	if id.Validate() != nil {
		return "", nil // Docker's schema 1, which has no configuration
	}
	return core.ImageID(id.Encoded()), nil
}

// hasContent is whether a layer with contents of a digest, compressed or not, is in the store.
func (s *Store) hasContent(ctx context.Context, d digest.Digest) (has bool, err error) {
	err = s.call(ctx, "look for a layer", func(lib storage.Store) error {
		for _, by := range []func(digest.Digest) ([]storage.Layer, error){lib.LayersByUncompressedDigest, lib.LayersByCompressedDigest} {
			layers, err := by(d)
			if err != nil && !errors.Is(err, storage.ErrLayerUnknown) {
				return err
			}
			has = has || len(layers) > 0
		}
		return nil
	})
	return has, err
}

func vetBlob(ctx context.Context, source types.ImageSource, layer types.BlobInfo, whole bool, left *budget) error {
	if err := layer.Digest.Validate(); err != nil {
		return err
	}
	blob, _, err := source.GetBlob(ctx, layer, none.NoCache)
	if err != nil {
		return err
	}
	defer func() { _ = blob.Close() }() // it was read
	content := io.Reader(blob)
	sum := layer.Digest.Verifier()
	if whole {
		content = io.TeeReader(blob, sum)
	}
	if err := vetLayer(ctx, content, left); err != nil {
		return err
	}
	if whole {
		if _, err := io.Copy(io.Discard, content); err != nil {
			return err
		}
		if !sum.Verified() {
			return errors.New("it is damaged: its contents have another digest")
		}
	}
	return nil
}
