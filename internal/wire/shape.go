package wire

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/varlink/go/varlink/idl"
)

// shape is what a value must look like, by an interface's description or by a Go type.
type shape struct {
	kind    kind
	element *shape   // of a maybe, an array or a map
	fields  []field  // of a struct
	names   []string // of an enum
}

type field struct {
	name  string
	shape *shape
}

type kind uint8

const (
	kindAny    kind = iota // any value but null
	kindObject             // any object
	kindBool
	kindInt
	kindFloat
	kindString
	kindEnum
	kindArray
	kindMap
	kindStruct
	kindMaybe // its element, null or absent
)

func (k kind) String() string {
	return [...]string{"a value", "an object", "true or false", "a 64-bit integer", "a number", "a string",
		"one of its names", "an array", "an object", "an object", "anything"}[k]
}

// field returns the index of the field of that name, or -1.
func (s *shape) field(name []byte) int {
	for i := range s.fields {
		if s.fields[i].name == string(name) {
			return i
		}
	}
	return -1
}

// description is what an interface's description says.
type description struct {
	name    string
	methods []*method
	errors  map[string]*shape // by full name
}

// method is one that an interface describes.
type method struct {
	name    string // in full
	in, out *shape
}

// parse reads an interface's description.
func parse(text string) (*description, error) {
	parsed, err := idl.New(text)
	if err != nil {
		return nil, err
	}
	p := &shaper{types: map[string]*idl.Type{}, aliases: map[string]*shape{}}
	for _, a := range parsed.Aliases {
		p.types[a.Name] = a.Type
	}
	d := &description{name: parsed.Name, errors: map[string]*shape{}}
	for _, m := range parsed.Methods {
		d.methods = append(d.methods, &method{d.name + "." + m.Name, p.parameters(m.In), p.parameters(m.Out)})
	}
	for _, e := range parsed.Errors {
		d.errors[d.name+"."+e.Name] = p.parameters(e.Type)
	}
	return d, p.err
}

// shaper makes shapes of the types of one description.
type shaper struct {
	types   map[string]*idl.Type
	aliases map[string]*shape
	err     error
}

// parameters is the shape of a method's or an error's; the parser lets an error pass that has none.
func (p *shaper) parameters(t *idl.Type) *shape {
	if t == nil {
		return &shape{kind: kindStruct}
	}
	s := p.shape(t)
	if s.kind != kindStruct {
		p.err = errors.New("parameters that are no struct")
	}
	return s
}

func (p *shaper) shape(t *idl.Type) *shape {
	switch t.Kind {
	case idl.TypeBool:
		return &shape{kind: kindBool}
	case idl.TypeInt:
		return &shape{kind: kindInt}
	case idl.TypeFloat:
		return &shape{kind: kindFloat}
	case idl.TypeString:
		return &shape{kind: kindString}
	case idl.TypeObject:
		return &shape{kind: kindObject}
	case idl.TypeArray:
		return &shape{kind: kindArray, element: p.shape(t.ElementType)}
	case idl.TypeMap:
		return &shape{kind: kindMap, element: p.shape(t.ElementType)}
	case idl.TypeMaybe:
		return &shape{kind: kindMaybe, element: p.shape(t.ElementType)}
	case idl.TypeEnum:
		s := &shape{kind: kindEnum}
		for _, f := range t.Fields {
			s.names = append(s.names, f.Name)
		}
		return s
	case idl.TypeStruct:
		s := &shape{kind: kindStruct}
		for _, f := range t.Fields {
			s.fields = append(s.fields, field{f.Name, p.shape(f.Type)})
		}
		return s
	case idl.TypeAlias:
		return p.alias(t.Alias)
	}
	p.err = fmt.Errorf("a type of kind %d, which is unknown", t.Kind)
	return &shape{}
}

// alias is filled in after it is known, since types may name themselves.
func (p *shaper) alias(name string) *shape {
	if s, ok := p.aliases[name]; ok {
		return s
	}
	s := &shape{}
	p.aliases[name] = s
	t, ok := p.types[name]
	switch {
	case !ok:
		p.err = fmt.Errorf("type %s is not defined", name)
	case t.Kind != idl.TypeStruct && t.Kind != idl.TypeEnum:
		p.err = fmt.Errorf("type %s is neither struct nor enum", name)
	default:
		*s = *p.shape(t)
	}
	return s
}

var goShapes sync.Map // of reflect.Type: *shape

// shapeOf is what encoding/json makes t of: every field that is no pointer must be there.
func shapeOf(t reflect.Type) (*shape, error) {
	if s, ok := goShapes.Load(t); ok {
		return s.(*shape), nil
	}
	r := &reflector{known: map[reflect.Type]*shape{}}
	s := r.shape(t)
	if r.err != nil {
		return nil, fmt.Errorf("%s: %w", t, r.err)
	}
	goShapes.Store(t, s)
	return s, nil
}

// reflector makes shapes of Go types.
type reflector struct {
	known map[reflect.Type]*shape // structs
	err   error
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (r *reflector) shape(t reflect.Type) *shape {
	if t.Kind() == reflect.Pointer {
		return &shape{kind: kindMaybe, element: r.shape(t.Elem())}
	}
	if p := reflect.PointerTo(t); p.Implements(unmarshaler) {
		return &shape{}
	} else if p.Implements(textUnmarshaler) {
		return &shape{kind: kindString}
	}
	switch t.Kind() {
	case reflect.Bool:
		return &shape{kind: kindBool}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &shape{kind: kindInt}
	case reflect.Float32, reflect.Float64:
		return &shape{kind: kindFloat}
	case reflect.String:
		return &shape{kind: kindString}
	case reflect.Interface:
		return &shape{}
	case reflect.Slice, reflect.Array:
		if t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8 {
			return &shape{kind: kindString} // base64
		}
		return &shape{kind: kindArray, element: r.shape(t.Elem())}
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			r.err = errors.New("a map whose keys are no strings")
		}
		return &shape{kind: kindMap, element: r.shape(t.Elem())}
	case reflect.Struct:
		return r.structure(t)
	default:
		r.err = fmt.Errorf("no JSON for a %s", t.Kind())
		return &shape{}
	}
}

func (r *reflector) structure(t reflect.Type) *shape {
	if s, ok := r.known[t]; ok {
		return s
	}
	s := &shape{kind: kindStruct}
	r.known[t] = s
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous:
			r.err = errors.New("an embedded field") // whose fields may hide one another
		case !f.IsExported() || name == "-":
		default:
			if name == "" {
				name = f.Name
			}
			s.fields = append(s.fields, field{name, r.shape(f.Type)})
		}
	}
	return s
}
