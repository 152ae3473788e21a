package cstore

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/containers/image/v5/directory"
	dockerarchive "github.com/containers/image/v5/docker/archive"
	"github.com/containers/image/v5/docker/reference"
	ociarchive "github.com/containers/image/v5/oci/archive"
	"github.com/containers/image/v5/oci/layout"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/unmoor/unmoor/core"
)

// Load puts the images of an archive into the store: a Docker archive, an OCI archive, an OCI layout, or a
// directory of containers/image's. The formats are tried in the order of `podman load` (containers/common
// v0.62.3, libimage/load.go), and names are what it makes of them: a bare one gets localhost/, an image
// without a name, or in a directory, gets none. What Podman refuses and this does not: an OCI layout or
// archive with several images, which have the names of its index.
//
// An archive with several images is read to its end before the first is made. What fails or is cancelled
// leaves nothing behind but images that were complete; those are returned with the error. Errors are
// *core.FormatError where no format fits, and wrap core.ErrArchiveRefused where the archive would do harm.
func (s *Store) Load(ctx context.Context, r core.LoadRequest) (_ []core.LoadedImage, err error) {
	name, err := normalName(r.Name)
	if err != nil {
		return nil, err
	}
	a, err := s.openArchive(ctx, r.Source)
	if err != nil {
		return nil, err
	}
	defer a.close()
	c, err := s.beginCopy(ctx, r.Copy)
	if err != nil {
		return nil, err
	}
	l := &load{copying: c, archive: a, name: name}
	loaded, err := l.run(ctx)
	for _, reader := range l.readers {
		_ = reader.Close() // it has no file of its own
	}
	return loaded, errors.Join(err, c.end())
}

// load is one load under way.
type load struct {
	*copying
	archive *archive
	name    reference.Named
	readers []*dockerarchive.Reader
}

// found is an image in an archive.
type found struct {
	ref   *fenced
	names []reference.Named
}

// format is a way to read an archive.
type format struct {
	name string
	find func(ctx context.Context) ([]found, error)
}

func (l *load) run(ctx context.Context) ([]core.LoadedImage, error) {
	none := &core.FormatError{Source: l.archive.source.String()}
	// several are the layouts with several images, which are tried last, since Podman takes only one of
	// them: `docker save` writes archives that are an OCI layout and a Docker archive at once.
	type layoutImages struct {
		format string
		images []found
	}
	var several []layoutImages
	try := func(images []found) ([]core.LoadedImage, error) {
		if l.name != nil {
			if len(images) > 1 {
				return nil, refused("it has %d images, and one name cannot be theirs", len(images))
			}
			images[0].names = append(images[0].names, l.name)
		}
		return l.copyAll(ctx, images)
	}
	fail := func(name string, err error) {
		none.Trials = append(none.Trials, core.FormatTrial{Format: name, Err: err})
	}
	for _, f := range []format{
		{layout.Transport.Name(), l.layout},
		{ociarchive.Transport.Name(), l.ociArchive},
		{dockerarchive.Transport.Name(), l.dockerArchive},
		{directory.Transport.Name(), l.directory},
	} {
		images, err := f.find(ctx)
		if err == nil && len(images) > 1 && f.name != dockerarchive.Transport.Name() {
			several = append(several, layoutImages{f.name, images})
			err = fmt.Errorf("it has %d images", len(images))
		} else if err == nil {
			var loaded []core.LoadedImage
			if loaded, err = try(images); err == nil || len(loaded) > 0 {
				return loaded, err
			}
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if final(ctx, err) {
			return nil, fmt.Errorf("load %s: %w", l.archive.source, err)
		}
		fail(f.name, err)
	}
	for _, s := range several {
		loaded, err := try(s.images)
		if err == nil || len(loaded) > 0 || final(ctx, err) {
			return loaded, err
		}
		fail(s.format, err)
	}
	return nil, none
}

// final is whether another format would not fare better.
func final(ctx context.Context, err error) bool {
	for _, f := range []error{core.ErrArchiveRefused, core.ErrStoreUnavailable, syscall.ENOSPC, syscall.EDQUOT} {
		if errors.Is(err, f) {
			return true
		}
	}
	return ctx.Err() != nil
}

// copyAll puts images into the store, none where one of them is damaged.
func (l *load) copyAll(ctx context.Context, images []found) ([]core.LoadedImage, error) {
	free, err := l.store.layerRoom()
	if err != nil {
		return nil, err
	}
	left := free.budget()
	ids := make([]core.ImageID, len(images))
	for i, image := range images {
		if ids[i], err = l.vet(ctx, image.ref, len(images) > 1, left); err != nil {
			return nil, err
		}
		if ids[i] == "" && len(image.names) == 0 {
			return nil, errors.New("it has neither a name nor an ID")
		}
	}
	var loaded []core.LoadedImage
	for i, image := range images {
		one, err := l.copy(ctx, image.ref, ids[i], image.names)
		if one.ID != "" {
			loaded = append(loaded, one)
		}
		if err != nil {
			return loaded, err
		}
	}
	return loaded, nil
}

var (
	errNoDirectory = errors.New("it is no directory")
	errDirectory   = errors.New("it is a directory")
)

// layout finds the images of an OCI layout. Those in a directory have no name, as with Podman 5.
func (l *load) layout(context.Context) ([]found, error) {
	if !l.archive.directory {
		return nil, errNoDirectory
	}
	images, err := listLayout(l.archive.path, nil)
	if len(images) == 1 {
		images[0].names = nil
	}
	return images, err
}

// ociArchive unpacks an OCI layout.
func (l *load) ociArchive(ctx context.Context) ([]found, error) {
	if l.archive.directory {
		return nil, errDirectory
	}
	to := filepath.Join(l.journal.Directory, "layout")
	packed, err := l.archive.unpackLayout(ctx, to)
	if err != nil {
		return nil, err
	}
	// What came as a stream, or in a file without a name, has no place that a policy could name.
	place := to
	if _, err := filepath.EvalSymlinks(l.archive.source.Path); err == nil && l.archive.source.Path != "" {
		place = l.archive.source.Path
	}
	identity, err := ociarchive.NewReference(place, "")
	if err != nil {
		return nil, err
	}
	images, err := listLayout(to, identity)
	for _, image := range images {
		image.ref.packed = packed
	}
	return images, err
}

// listLayout lists the images of an OCI layout. identity is what signature policies know them by; nil: what
// the layout is.
func listLayout(directory string, identity types.ImageReference) ([]found, error) {
	info, err := os.Stat(filepath.Join(directory, imgspec.ImageIndexFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("it has no index.json")
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxDocument {
		return nil, refused("its index has more than %d bytes", maxDocument)
	}
	listed, err := layout.List(directory)
	if err != nil {
		return nil, fmt.Errorf("read its index: %w", err)
	}
	if len(listed) == 0 {
		return nil, errors.New("its index names no image")
	}
	var images []found
	for i, entry := range listed {
		ref, err := layout.NewIndexReference(directory, i)
		if err != nil {
			return nil, err
		}
		f := &fenced{ImageReference: ref, identity: identity, layout: directory, manifest: entry.ManifestDescriptor.Digest}
		if identity == nil {
			f.identity = ref
		}
		image := found{ref: f}
		// As containers/common has it (v0.62.3, libimage/pull.go, nameFromAnnotations).
		name := entry.ManifestDescriptor.Annotations["io.containerd.image.name"]
		if name == "" {
			name = entry.ManifestDescriptor.Annotations[imgspec.AnnotationRefName]
		}
		named, err := normalName(name)
		if err != nil {
			return nil, err
		}
		if named != nil {
			image.names = []reference.Named{named}
		}
		images = append(images, image)
	}
	return images, nil
}

// layoutMember is what of an archive belongs to an OCI layout.
var layoutMember = regexp.MustCompile(`^(oci-layout|index\.json|blobs/[a-z0-9]+/[a-f0-9]+)$`)

// packed are blobs that are read where they lie in an archive.
type packed struct {
	// archive is the path of the archive, uncompressed.
	archive string
	// places are where the contents of each begin, and how many bytes they have, by ALGORITHM:DIGEST.
	places map[digest.Digest]place
}

type place struct{ offset, size int64 }

// unpackLayout unpacks what an OCI layout has into a directory that is not there yet, but for the large blobs,
// layers that is.
func (a *archive) unpackLayout(ctx context.Context, to string) (*packed, error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, err
	}
	large := &packed{archive: a.path, places: make(map[digest.Digest]place)}
	return large, a.survey(ctx, func(h *tar.Header, content io.Reader, offset int64) error {
		name := path.Clean(strings.TrimLeft(h.Name, "/"))
		if h.Typeflag != tar.TypeReg || !layoutMember.MatchString(name) {
			return nil
		}
		if blob, ok := strings.CutPrefix(name, "blobs/"); ok && h.Size > maxDocument {
			large.places[digest.Digest(strings.Replace(blob, "/", ":", 1))] = place{offset, h.Size}
			return nil
		}
		file := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		// The last one of a name counts, as with tar.
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, &bounded{content, ctx.Err, h.Size, nil})
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		return err
	})
}

// dockerArchive finds the images of a Docker archive.
func (l *load) dockerArchive(ctx context.Context) ([]found, error) {
	if l.archive.directory {
		return nil, errDirectory
	}
	left, err := l.store.layerRoom()
	if err != nil {
		return nil, err
	}
	if err := l.archive.unpackable(ctx, left); err != nil {
		return nil, err
	}
	reader, err := dockerarchive.NewReader(l.system, l.archive.path)
	if err != nil {
		return nil, err
	}
	l.readers = append(l.readers, reader)
	lists, err := reader.List()
	if err != nil {
		return nil, err
	}
	if len(lists) == 0 {
		return nil, errors.New("its manifest names no image")
	}
	var images []found
	for _, refs := range lists {
		image := found{ref: &fenced{ImageReference: refs[0], identity: refs[0]}}
		for _, ref := range refs {
			tags, err := reader.ManifestTagsForReference(ref)
			if err != nil {
				return nil, err
			}
			for _, tag := range tags {
				named, err := normalName(tag)
				if err != nil {
					return nil, err
				}
				image.names = append(image.names, named)
			}
		}
		images = append(images, image)
	}
	return images, nil
}

// directory finds the image in a directory as `skopeo copy … dir:` makes it. It has no name.
func (l *load) directory(context.Context) ([]found, error) {
	if !l.archive.directory {
		return nil, errNoDirectory
	}
	ref, err := directory.NewReference(l.archive.path)
	return []found{{ref: &fenced{ImageReference: ref, identity: ref, open: true}}}, err
}

// normalName is a name as Podman and Buildah make it whole (containers/common v0.62.3,
// libimage/normalize.go): localhost/ before a bare one, latest behind one without a tag, and no tag where there
// is a digest. The empty name is nil.
func normalName(name string) (reference.Named, error) {
	if name == "" {
		return nil, nil
	}
	parsed, err := reference.Parse(name)
	if err != nil {
		return nil, fmt.Errorf("%q is no name of an image: %w", name, err)
	}
	named, ok := parsed.(reference.Named)
	if !ok {
		return nil, fmt.Errorf("%q is no name of an image", name)
	}
	if domain := reference.Domain(named); !strings.ContainsAny(domain, ".:") && domain != "localhost" {
		name = "localhost/" + strings.TrimLeft(parsed.String(), "/")
	}
	if named, err = reference.ParseNormalizedNamed(name); err != nil {
		return nil, fmt.Errorf("%q is no name of an image: %w", name, err)
	}
	if digested, ok := named.(reference.Digested); ok {
		return reference.WithDigest(reference.TrimNamed(named), digested.Digest())
	}
	return reference.TagNameOnly(named), nil
}
