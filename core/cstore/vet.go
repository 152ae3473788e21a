package cstore

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/containers/image/v5/pkg/compression"
)

// vetLayer reads a layer, compressed or not, before the library does, and refuses what it would do harm
// with: it writes the holes of sparse files, follows an archive for as long as that goes on, and looks at
// no context. What the layer takes is taken from left.
//
// Names that lead out of the root are refused too, though the library unpacks within a root of its own
// (containers/storage v1.59.1, pkg/chrootarchive): no image has them. Symbolic links may lead anywhere, as
// they do in images.
func vetLayer(ctx context.Context, layer io.Reader, left *budget) error {
	plain, compressed, err := compression.AutoDecompress(layer)
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }() // it was read
	stream := io.Reader(plain)
	if compressed {
		// The names of files take room too, and so does what follows the last of them.
		most := left.bytes.Load() + 2048*left.entries.Load()
		stream = &bounded{plain, ctx.Err, most, refused("it unpacks to more than %d bytes, and there is no room for more", most)}
	}
	t := tar.NewReader(stream)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read it as a tar archive: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if left.entries.Add(-1) < 0 {
			return refused("its layers have more files than there is room for, or more than %d in all", maxEntries)
		}
		if rest := left.bytes.Add(-h.Size); rest < 0 { // with its holes
			return refused("%q takes %d bytes, and there is room for %d", h.Name, h.Size, rest+h.Size)
		}
		if leaves(h.Name) {
			return refused("the name %q leads out of the image", h.Name)
		}
		if h.Typeflag == tar.TypeLink && leaves(h.Linkname) {
			return refused("%q is a link to %q, out of the image", h.Name, h.Linkname)
		}
	}
	_, err = io.Copy(io.Discard, stream)
	return err
}

// leaves is whether a name in an archive leads out of where that is unpacked.
func leaves(name string) bool {
	name = path.Clean(strings.TrimLeft(name, "/"))
	return name == ".." || strings.HasPrefix(name, "../")
}

// vetMember refuses what no member of an image archive needs to be. Such archives are not unpacked, but
// read where they are, or only what an OCI layout has is.
func vetMember(h *tar.Header, left *int64) error {
	if leaves(h.Name) {
		return refused("the name %q leads out of the archive", h.Name)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		// More than there is of the archive: it has holes.
		if *left -= h.Size; *left < 0 {
			return refused("%q claims more bytes than the archive has", h.Name)
		}
	case tar.TypeDir, tar.TypeXGlobalHeader:
	case tar.TypeLink:
		if leaves(h.Linkname) {
			return refused("%q is a link to %q, out of the archive", h.Name, h.Linkname)
		}
	case tar.TypeSymlink:
		// Docker has links between the layers of an archive.
		if path.IsAbs(h.Linkname) || leaves(path.Join(path.Dir(strings.TrimLeft(h.Name, "/")), h.Linkname)) {
			return refused("%q is a link to %q, out of the archive", h.Name, h.Linkname)
		}
	default:
		return refused("%q is neither a file nor a directory", h.Name)
	}
	return nil
}

// survey looks at every member of an image archive that lies uncompressed in a file. visit is called for
// each, and may read it; its contents begin at an offset.
func survey(ctx context.Context, file io.ReadSeeker, visit func(h *tar.Header, content io.Reader, offset int64) error) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	t := tar.NewReader(file)
	for members := 0; ; members++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read it as a tar archive: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if members == maxMembers {
			return refused("it has more than %d members, and an image archive has four a layer", maxMembers)
		}
		if err := vetMember(h, &size); err != nil {
			return err
		}
		offset, err := file.Seek(0, io.SeekCurrent) // it reads header by header, and nothing ahead
		if err == nil {
			err = visit(h, t, offset)
		}
		if err != nil {
			return fmt.Errorf("read %q: %w", h.Name, err)
		}
	}
}

// unpackable reads what is compressed within a Docker archive to its end, since the library does so to learn
// its size, however long that takes.
func unpackable(ctx context.Context, file io.ReadSeeker, left room) error {
	return survey(ctx, file, func(h *tar.Header, content io.Reader, _ int64) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		plain, compressed, err := compression.AutoDecompress(content)
		if err != nil {
			return err
		}
		defer func() { _ = plain.Close() }() // it was read
		if !compressed {
			return nil
		}
		n, err := io.Copy(io.Discard, &bounded{plain, ctx.Err, left.bytes, refused("it unpacks to more than there is room for, %d bytes", left.bytes)})
		left.bytes -= n
		return err
	})
}
