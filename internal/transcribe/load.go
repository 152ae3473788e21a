package transcribe

import (
	"errors"

	"github.com/unmoor/unmoor/core"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// FromCopyProgress writes how far a copy has come.
func FromCopyProgress(p core.CopyProgress) removal.CopyProgress {
	out := removal.CopyProgress{Digest: p.Digest, Copied: p.Copied, Done: p.Done, Skipped: p.Skipped}
	if p.Size >= 0 {
		out.Size = &p.Size
	}
	return out
}

// ToCopyProgress reads how far a copy has come.
func ToCopyProgress(p removal.CopyProgress) (core.CopyProgress, error) {
	out := core.CopyProgress{Digest: p.Digest, Done: p.Done, Skipped: p.Skipped, Size: -1}
	var copied, size error
	out.Copied, copied = count(p.Copied, "what is copied")
	if p.Size != nil {
		out.Size, size = count(*p.Size, "its size")
	}
	return out, errors.Join(copied, size)
}

// FromLoadedImage writes an image that is in the store.
func FromLoadedImage(i core.LoadedImage) removal.LoadedImage {
	return removal.LoadedImage{Id: string(i.ID), Names: texts[string, string](i.Names)}
}

// ToLoadedImage reads an image that is in the store.
func ToLoadedImage(i removal.LoadedImage) (core.LoadedImage, error) {
	if i.Id == "" {
		return core.LoadedImage{}, errors.New("an image has no ID")
	}
	return core.LoadedImage{ID: core.ImageID(i.Id), Names: i.Names}, nil
}

// FromLoadedImages writes images that are in the store.
func FromLoadedImages(all []core.LoadedImage) []removal.LoadedImage {
	return list(all, FromLoadedImage)
}

// ToLoadedImages reads images that are in the store.
func ToLoadedImages(all []removal.LoadedImage) ([]core.LoadedImage, error) {
	return read(all, ToLoadedImage)
}

// FromImport writes what is to be imported, but for the archive itself.
func FromImport(r core.ImportRequest) ImportIn {
	return ImportIn{Name: text(r.Name), Changes: names(r.Changes), Message: text(r.Message), OS: text(r.OS),
		Architecture: text(r.Architecture), Variant: text(r.Variant), MaxBytes: optional(r.Source.Limit)}
}

// ToImport reads what is to be imported, but for the archive itself. Errors: *ParameterError.
func ToImport(in ImportIn) (core.ImportRequest, error) {
	limit, err := ToMaxBytes(in.MaxBytes)
	return core.ImportRequest{Source: core.ImageSource{Limit: limit}, Name: value(in.Name), Changes: value(in.Changes), Message: value(in.Message),
		OS: value(in.OS), Architecture: value(in.Architecture), Variant: value(in.Variant)}, err
}

// FromLoad writes what is to be loaded, but for the archive itself.
func FromLoad(r core.LoadRequest) LoadIn {
	return LoadIn{Name: text(r.Name), MaxBytes: optional(r.Source.Limit)}
}

// ToMaxBytes reads a bound. Errors: *ParameterError.
func ToMaxBytes(n *int64) (int64, error) {
	if n == nil {
		return 0, nil
	}
	if *n <= 0 {
		return 0, &ParameterError{"maxBytes", errors.New("it is not positive")}
	}
	return *n, nil
}

// IncompleteError says that some images of an archive are in the store, and the rest are not.
type IncompleteError struct {
	Images []core.LoadedImage
	Reason string
}

func (e *IncompleteError) Error() string { return e.Reason }

func fromTrial(t core.FormatTrial) removal.FormatTrial {
	return removal.FormatTrial{Format: t.Format, Reason: t.Err.Error()}
}

func toTrial(t removal.FormatTrial) (core.FormatTrial, error) {
	return core.FormatTrial{Format: t.Format, Err: errors.New(t.Reason)}, nil
}
