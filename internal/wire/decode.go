package wire

import (
	"encoding/json"
	"fmt"
)

// Decode reads parameters into what into points at. Every field that is no pointer must be there and not
// null, in nested structs, slices and maps too. Unknown fields are ignored, keys count in their exact
// case, and a doubled one is an error. No parameters at all are an empty object.
func Decode(parameters json.RawMessage, into any) error {
	if len(parameters) == 0 {
		parameters = json.RawMessage("{}")
	}
	if err := json.Unmarshal(parameters, into); err != nil {
		return fmt.Errorf("decode parameters: %w", err)
	}
	return nil
}
