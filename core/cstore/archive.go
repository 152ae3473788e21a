package cstore

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containers/image/v5/pkg/compression"

	"github.com/unmoor/unmoor/core"
)

// archive is a file or a directory with images in it, that was looked at: the library can read it
// without coming to harm.
type archive struct {
	source core.ImageSource
	// path is the directory, or an uncompressed tar archive.
	path      string
	directory bool
	// unpacked is a temporary file that path leads to; nil where there is none.
	unpacked *os.File
}

// openArchive finds out what a source is. A stream, or a compressed file, is unpacked into a temporary file
// first, since the library reads archives several times.
func (s *Store) openArchive(ctx context.Context, source core.ImageSource) (_ *archive, err error) {
	a := &archive{source: source, path: source.Path}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	if source.Path == "" {
		return a, a.unpack(ctx, s, source.Stream)
	}
	info, err := os.Stat(source.Path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		a.directory = true
		return a, surveyDirectory(ctx, source.Path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is neither a file nor a directory", source)
	}
	file, err := os.Open(source.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	decompressor, _, err := compression.DetectCompression(file)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", source, err)
	}
	if decompressor != nil {
		return a, a.unpack(ctx, s, file)
	}
	return a, nil
}

// unpack copies a stream into a temporary file, uncompressed.
func (a *archive) unpack(ctx context.Context, s *Store, stream io.Reader) error {
	plain, _, err := compression.AutoDecompress(&bounded{stream, ctx.Err, limit(a.source), tooBig(a.source)})
	if err != nil {
		return fmt.Errorf("read %s: %w", a.source, err)
	}
	defer func() { _ = plain.Close() }() // it was read
	a.unpacked, err = s.spool(ctx, a.source, plain)
	if err == nil {
		a.path = pathOf(a.unpacked)
	}
	return err
}

// spool copies a stream into a temporary file without a name.
func (s *Store) spool(ctx context.Context, source core.ImageSource, stream io.Reader) (_ *os.File, err error) {
	left, err := s.room(tempDirectory())
	if err != nil {
		return nil, err
	}
	file, err := nameless()
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close() // nobody needs it
		}
	}()
	// A read that waits for a peer ends with the context where the stream can be told.
	if d, ok := source.Stream.(interface{ SetReadDeadline(time.Time) error }); ok {
		defer context.AfterFunc(ctx, func() { _ = d.SetReadDeadline(time.Unix(1, 0)) })() // a file that has none is read to its end
	}
	_, err = io.Copy(file, &bounded{stream, ctx.Err, left.bytes,
		refused("it has more than %d bytes, and there is no room for more in %s", left.bytes, tempDirectory())})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", source, err)
	}
	return file, nil
}

// limit is how many bytes a stream may have, and tooBig says so.
func limit(source core.ImageSource) int64 {
	if source.Limit > 0 {
		return source.Limit
	}
	return 1<<63 - 1
}

func tooBig(source core.ImageSource) error {
	return refused("it has more than the %d bytes that it may have", source.Limit)
}

func (a *archive) close() {
	if a.unpacked != nil {
		_ = a.unpacked.Close() // it was read
	}
}

// survey looks at the members of a tar archive.
func (a *archive) survey(ctx context.Context, visit func(*tar.Header, io.Reader, int64) error) error {
	file, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer file.Close()
	return survey(ctx, file, visit)
}

// unpackable looks at what is compressed within a Docker archive.
func (a *archive) unpackable(ctx context.Context, left room) error {
	file, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unpackable(ctx, file, left)
}

// surveyDirectory refuses a directory that the library would not come back from: it opens whatever is there,
// and reads documents whole.
func surveyDirectory(ctx context.Context, root string) error {
	members := 0
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if members++; members > maxMembers {
			return refused("it has more than %d files", maxMembers)
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.IsDir() && !info.Mode().IsRegular() {
			return refused("%s is neither a file nor a directory", path)
		}
		document := strings.HasSuffix(path, ".json") || strings.Contains(e.Name(), "signature-")
		if document && info.Size() > maxDocument {
			return refused("%s has more than %d bytes", path, maxDocument)
		}
		return nil
	})
}
