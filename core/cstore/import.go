package cstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/tarball"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/unmoor/unmoor/core"
)

// Import makes an image of a root file system, a tar archive, plain or compressed by gzip, zstd, xz or bzip2.
// Configuration and layer are those that `podman import` makes (containers/common v0.62.3,
// libimage/import.go): the time of the image is that of the file. Podman 4.3.1 and 5.4.2 write down the wrong
// digest where the archive is compressed by anything but gzip; this does not. What fails or is cancelled
// leaves nothing behind. Errors wrap core.ErrArchiveRefused where the archive would do harm.
func (s *Store) Import(ctx context.Context, r core.ImportRequest) (_ core.LoadedImage, err error) {
	var none core.LoadedImage
	name, err := normalName(r.Name)
	if err != nil {
		return none, err
	}
	var names []reference.Named
	if name != nil {
		names = append(names, name)
	}
	config, err := configOf(r.Changes)
	if err != nil {
		return none, err
	}
	file, err := s.openRoot(ctx, r.Source)
	if err != nil {
		return none, err
	}
	defer file.Close()
	if err := s.vetRoot(ctx, file); err != nil {
		return none, fmt.Errorf("import %s: %w", r.Source, err)
	}
	ref, err := tarball.NewReference([]string{pathOf(file)}, nil)
	if err != nil {
		return none, err
	}
	updater, ok := ref.(tarball.ConfigUpdater)
	if !ok {
		return none, errors.New("containers/image's tarball takes no configuration")
	}
	err = updater.ConfigUpdate(imgspec.Image{
		Platform: imgspec.Platform{OS: r.OS, Architecture: r.Architecture, Variant: r.Variant},
		Config:   config,
		History:  []imgspec.History{{Comment: r.Message}},
	}, nil)
	if err != nil {
		return none, err
	}
	c, err := s.beginCopy(ctx, r.Copy)
	if err != nil {
		return none, err
	}
	defer func() { err = errors.Join(err, c.end()) }()
	// It reads the file once for its digests.
	source, err := ref.NewImageSource(ctx, c.system)
	if err != nil {
		return none, fmt.Errorf("read %s: %w", r.Source, err)
	}
	data, _, err := source.GetManifest(ctx, nil)
	var manifest imgspec.Manifest
	if err == nil {
		err = json.Unmarshal(data, &manifest)
	}
	if err != nil {
		return none, fmt.Errorf("read the manifest that was made: %w", err)
	}
	loaded, err := c.copy(ctx, &fenced{ImageReference: ref, identity: ref, opened: source}, core.ImageID(manifest.Config.Digest.Encoded()), names)
	if err != nil {
		return loaded, fmt.Errorf("import %s: %w", r.Source, err)
	}
	return loaded, nil
}

// openRoot opens a regular file, or copies a stream into a temporary one.
func (s *Store) openRoot(ctx context.Context, source core.ImageSource) (*os.File, error) {
	if source.Path == "" {
		return s.spool(ctx, source, &bounded{source.Stream, ctx.Err, limit(source), tooBig(source)})
	}
	info, err := os.Stat(source.Path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", source)
	}
	return os.Open(source.Path)
}

func (s *Store) vetRoot(ctx context.Context, file *os.File) error {
	left, err := s.layerRoom()
	if err != nil {
		return err
	}
	again, err := os.Open(pathOf(file))
	if err != nil {
		return err
	}
	defer again.Close()
	return vetLayer(ctx, &bounded{again, ctx.Err, math.MaxInt64, nil}, left.budget())
}
