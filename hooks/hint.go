package hooks

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/unmoor/unmoor/core"
)

// fits is whether a container looks like one of the hints' engine. Where they do not tell, every container
// may be that engine's.
func fits(hints []core.ClaimHint, c core.Container) bool {
	return !tell(hints) || slices.ContainsFunc(hints, func(h core.ClaimHint) bool { return usable(h) && fitsOne(h, c) })
}

// tell is whether the hints say anything at all of what the engine's containers look like.
func tell(hints []core.ClaimHint) bool { return slices.ContainsFunc(hints, usable) }

func usable(h core.ClaimHint) bool { return h.File != "" || h.MetadataKey != "" || h.NoMetadata }

func fitsOne(h core.ClaimHint, c core.Container) bool {
	if h.File != "" && !mayHaveFile(c, h.File) {
		return false
	}
	if h.NoMetadata && c.Metadata != "" {
		return false
	}
	if h.MetadataKey == "" && h.MetadataKeyAbsent == "" {
		return true
	}
	keys := metadataKeys(c.Metadata)
	if h.MetadataKey != "" && !keys[h.MetadataKey] {
		return false
	}
	return h.MetadataKeyAbsent == "" || !keys[h.MetadataKeyAbsent]
}

// mayHaveFile is false only where the file is known not to be there.
func mayHaveFile(c core.Container, name string) bool {
	if c.Directory == "" {
		return true
	}
	_, err := os.Lstat(filepath.Join(c.Directory, name))
	return !errors.Is(err, fs.ErrNotExist)
}

// metadataKeys are the keys of a JSON object; none for anything else.
func metadataKeys(metadata string) map[string]bool {
	var object map[string]json.RawMessage
	if json.Unmarshal([]byte(metadata), &object) != nil {
		return nil
	}
	keys := make(map[string]bool, len(object))
	for k := range object {
		keys[k] = true
	}
	return keys
}
