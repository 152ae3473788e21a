package conformance

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/unmoor/unmoor/core"
)

// fits is whether all the set fields of a hint match a container.
func fits(hint loose, c core.Container) bool {
	var metadata map[string]any
	if json.Unmarshal([]byte(c.Metadata), &metadata) != nil {
		metadata = nil
	}
	_, has := metadata[hint.text("metadataKey")]
	_, hasOther := metadata[hint.text("metadataKeyAbsent")]
	switch {
	case hint.text("file") != "" && !exists(filepath.Join(c.Directory, hint.text("file"))),
		hint.flag("noMetadata") && c.Metadata != "",
		hint.text("metadataKey") != "" && !has,
		hint.text("metadataKeyAbsent") != "" && hasOther:
		return false
	}
	return true
}

// exists is false only where it is known that nothing is there.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
