package core

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrArchiveRefused: an archive wants to do what no image or root file system needs to, such as to leave
// its root, or unpacks to more than there is room for. Nothing of it is in the store.
var ErrArchiveRefused = errors.New("archive refused")

// LoadRequest asks for the images of an archive to be put into a store.
type LoadRequest struct {
	Source ImageSource
	// Name is one more name for the image, as an engine's user writes it; an archive with several images
	// is refused then.
	Name string
	Copy CopyOptions
}

// ImportRequest asks for an image with the root file system that a tar archive holds.
type ImportRequest struct {
	Source ImageSource
	// Name is the image's name, as an engine's user writes it; empty for none.
	Name string
	// Changes are instructions of a Containerfile, as `podman import --change` takes them.
	Changes []string
	// Message is the comment in the image's history.
	Message string
	// OS, Architecture and Variant are this machine's where they are empty; Variant is none then.
	OS, Architecture, Variant string
	Copy                      CopyOptions
}

// ImageSource is what an image is made of.
type ImageSource struct {
	// Path is a regular file, or for images a directory too. Where it is empty, Stream is read to its end.
	Path   string
	Stream io.Reader
	// Called is what errors call it; empty is Path, or else "the archive".
	Called string
	// Limit is how many bytes Stream may have. Zero: as many as there is room for.
	Limit int64
}

func (s ImageSource) String() string {
	switch {
	case s.Called != "":
		return s.Called
	case s.Path != "":
		return s.Path
	}
	return "the archive"
}

// CopyOptions say how images come into a store.
type CopyOptions struct {
	// SignaturePolicy is the file that says which images are let in; empty is the engines' own,
	// ~/.config/containers/policy.json or /etc/containers/policy.json.
	SignaturePolicy string
	// Report gets lines for people and, where it is a terminal, progress bars; nil for none.
	Report io.Writer
	// Progress is told what is copied, from one goroutine; nil for nobody.
	Progress func(CopyProgress)
}

// CopyProgress is how far the copying of one part of an image has come.
type CopyProgress struct {
	// Digest names the part, a layer or a configuration.
	Digest string
	// Copied are the bytes so far. Size is -1 where it is not known.
	Copied, Size int64
	// Done is whether it is there. Skipped: the store had it already.
	Done, Skipped bool
}

// LoadedImage is an image that is in the store.
type LoadedImage struct {
	ID ImageID
	// Names are those that the archive gives it, and LoadRequest.Name.
	Names []string
}

// FormatError says that an archive is none of the formats that are known.
type FormatError struct {
	Source string
	Trials []FormatTrial
}

// FormatTrial is one format that was tried, and why that failed.
type FormatTrial struct {
	// Format is as engines call it: oci, oci-archive, docker-archive, dir.
	Format string
	Err    error
}

func (e *FormatError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is no image archive in any of the known formats:", e.Source)
	for _, t := range e.Trials {
		fmt.Fprintf(&b, "\n * %s: %v", t.Format, t.Err)
	}
	return b.String()
}

// Unwrap lists why each of the formats failed.
func (e *FormatError) Unwrap() []error {
	errs := make([]error, 0, len(e.Trials))
	for _, t := range e.Trials {
		errs = append(errs, t.Err)
	}
	return errs
}
