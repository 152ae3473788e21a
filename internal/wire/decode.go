package wire

import (
	"encoding/json"
	"fmt"
	"reflect"
)

// Decode reads parameters into what into points at. Every field that is no pointer must be there and not
// null, in nested structs, slices and maps too. Unknown fields are passed over, keys count in their exact
// case, and a doubled one is an error. No parameters at all are an empty object. What into points at is
// undefined after an error.
func Decode(parameters json.RawMessage, into any) error {
	t := reflect.TypeOf(into)
	if t == nil || t.Kind() != reflect.Pointer {
		return fmt.Errorf("decode parameters into %T, which is no pointer", into)
	}
	s, err := shapeOf(t.Elem())
	if err != nil {
		return fmt.Errorf("decode parameters into %w", err)
	}
	if len(parameters) == 0 {
		parameters = json.RawMessage("{}")
	}
	clean, err := check(make([]byte, 0, len(parameters)), parameters, s, true)
	if err == nil {
		err = json.Unmarshal(clean, into)
	}
	if err != nil {
		return fmt.Errorf("decode parameters: %w", err)
	}
	return nil
}
