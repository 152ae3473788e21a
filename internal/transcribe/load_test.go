package transcribe_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

func TestImportRequest(t *testing.T) {
	for _, r := range []core.ImportRequest{
		{},
		{Source: core.ImageSource{Limit: 7}, Name: "n", Changes: []string{"CMD x", ""}, Message: "m", OS: "o", Architecture: "a", Variant: "v"},
	} {
		back, err := transcribe.ToImport(transcribe.FromImport(r))
		if err != nil || !cmp.Equal(back, r) {
			t.Errorf("%+v became %+v, %v", r, back, err)
		}
	}
	for _, n := range []int64{0, -1} {
		_, err := transcribe.ToImport(transcribe.ImportIn{MaxBytes: &n})
		if parameter, ok := errors.AsType[*transcribe.ParameterError](err); !ok || parameter.Parameter != "maxBytes" {
			t.Errorf("%d: %v", n, err)
		}
	}
}

// What makes no sense is an error.
func TestLoadNonsense(t *testing.T) {
	if _, err := transcribe.ToLoadedImage(removal.LoadedImage{Names: []string{"a"}}); err == nil {
		t.Error("an image without ID")
	}
	if _, err := transcribe.ToLoadedImages([]removal.LoadedImage{{Id: "a"}, {}}); err == nil {
		t.Error("images without ID")
	}
	less := int64(-1)
	for _, p := range []removal.CopyProgress{{Copied: -1}, {Size: &less}} {
		if _, err := transcribe.ToCopyProgress(p); err == nil {
			t.Errorf("%+v", p)
		}
	}
}
