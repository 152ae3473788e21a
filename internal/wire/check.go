package wire

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// fieldError is of a parameter that does not do.
type fieldError struct {
	path string // as in reports[3].use
	why  string
}

func (e *fieldError) Error() string {
	if e.path == "" {
		return "parameters: " + e.why
	}
	return e.path + ": " + e.why
}

// within puts the parameter below another, or below an element of one.
func (e *fieldError) within(outer string) *fieldError {
	switch {
	case e.path == "":
		e.path = outer
	case e.path[0] == '[':
		e.path = outer + e.path
	default:
		e.path = outer + "." + e.path
	}
	return e
}

// checker copies parameters that are as a shape says, without spaces and without what the shape does not
// know: encoding/json, which reads the copy, takes a key in another case for a field's.
type checker struct {
	scanner
	out  []byte
	open bool // unknown fields are passed over, as a client should; a service should refuse them
}

// check appends a copy of parameters to out. What is not as s says is a *fieldError; any other error says
// that it is no JSON, or too much.
func check(out, parameters []byte, s *shape, open bool) ([]byte, error) {
	sc, err := newScanner(parameters)
	if err != nil {
		return nil, err
	}
	c := checker{scanner: sc, out: out, open: open}
	if err := c.value(s); err != nil {
		return nil, err
	}
	return c.out, c.end()
}

func (c *checker) value(s *shape) error {
	if s.kind == kindMaybe {
		if c.null() {
			c.out = append(c.out, "null"...)
			return nil
		}
		s = s.element
	}
	switch s.kind {
	case kindStruct:
		return c.structure(s)
	case kindMap:
		return c.dictionary(s)
	case kindArray:
		return c.array(s)
	case kindAny, kindObject:
		first := c.peek()
		if first == 'n' || s.kind == kindObject && first != '{' {
			return c.wrong(s)
		}
		raw, err := c.skip(false)
		if err == errDoubled { //nolint:errorlint // it is never wrapped
			return &fieldError{why: err.Error()}
		}
		c.out = append(c.out, raw...)
		return err
	default:
		return c.simple(s)
	}
}

// wrong says what ought to be there, where it is JSON at all that is.
func (c *checker) wrong(s *shape) error {
	if c.null() {
		return &fieldError{why: "it is null"}
	}
	if _, err := c.skip(true); err != nil {
		return err
	}
	return &fieldError{why: "it is not " + s.kind.String()}
}

func (c *checker) simple(s *shape) error {
	if first := c.peek(); first == '{' || first == '[' || first == 'n' {
		return c.wrong(s)
	}
	raw, err := c.scalar()
	if err != nil {
		return err
	}
	good := false
	switch first := raw[0]; s.kind {
	case kindBool:
		good = first == 't' || first == 'f'
	case kindInt:
		_, err := strconv.ParseInt(string(raw), 10, 64)
		good = err == nil
	case kindFloat:
		_, err := strconv.ParseFloat(string(raw), 64)
		good = err == nil
	case kindString:
		good = first == '"'
	case kindEnum:
		good = first == '"' && s.has(raw)
	default: // those that are not simple
	}
	if !good {
		return &fieldError{why: "it is not " + s.kind.String()}
	}
	c.out = append(c.out, raw...)
	return nil
}

// has says whether an enum has the name that stands in raw. Names need no escapes, but may have them.
func (s *shape) has(raw []byte) bool {
	text, err := unescape(raw)
	if err != nil {
		return false
	}
	for _, name := range s.names {
		if name == string(text) {
			return true
		}
	}
	return false
}

func (c *checker) array(s *shape) error {
	if c.peek() != '[' {
		return c.wrong(s)
	}
	if err := c.scanner.open('['); err != nil {
		return err
	}
	c.out = append(c.out, '[')
	for i := 0; ; i++ {
		more, err := c.more(i == 0, ']')
		if err != nil {
			return err
		}
		if !more {
			c.out = append(c.out, ']')
			return nil
		}
		if i > 0 {
			c.out = append(c.out, ',')
		}
		if err := c.value(s.element); err != nil {
			return below(err, "["+strconv.Itoa(i)+"]")
		}
	}
}

func (c *checker) dictionary(s *shape) error {
	if c.peek() != '{' {
		return c.wrong(s)
	}
	if err := c.scanner.open('{'); err != nil {
		return err
	}
	c.out = append(c.out, '{')
	var seen keys
	for first := true; ; first = false {
		more, err := c.more(first, '}')
		if err != nil {
			return err
		}
		if !more {
			c.out = append(c.out, '}')
			return nil
		}
		c.peek()
		start := c.at
		key, err := c.key()
		if err != nil {
			return err
		}
		if !seen.add(key) {
			return &fieldError{path: shown(key), why: errDoubled.Error()}
		}
		if !first {
			c.out = append(c.out, ',')
		}
		c.out = append(c.out, bytes.TrimRight(c.in[start:c.at-1], " \t\r\n")...)
		c.out = append(c.out, ':')
		if err := c.value(s.element); err != nil {
			return below(err, shown(key))
		}
	}
}

func (c *checker) structure(s *shape) error {
	if c.peek() != '{' {
		return c.wrong(s)
	}
	if err := c.scanner.open('{'); err != nil {
		return err
	}
	c.out = append(c.out, '{')
	var seen fieldSet
	var unknown keys
	for first, empty := true, true; ; first = false {
		more, err := c.more(first, '}')
		if err != nil {
			return err
		}
		if !more {
			break
		}
		key, err := c.key()
		if err != nil {
			return err
		}
		i := s.field(key)
		if i < 0 && !c.open {
			return &fieldError{shown(key), "there is no such parameter"}
		}
		if i < 0 && !unknown.add(key) || i >= 0 && !seen.add(i) {
			return &fieldError{shown(key), errDoubled.Error()}
		}
		if i < 0 {
			if err := c.pass(true); err != nil {
				return err
			}
			continue
		}
		f := s.fields[i]
		if f.shape.kind == kindMaybe && c.null() { // as if it were not there
			continue
		}
		if !empty {
			c.out = append(c.out, ',')
		}
		empty = false
		c.out = append(append(append(c.out, '"'), f.name...), '"', ':')
		if err := c.value(f.shape); err != nil {
			return below(err, f.name)
		}
	}
	c.out = append(c.out, '}')
	for i, f := range s.fields {
		if f.shape.kind != kindMaybe && !seen.has(i) {
			return &fieldError{f.name, "it is missing"}
		}
	}
	return nil
}

// below says where err was found, if it is of a parameter.
func below(err error, outer string) error {
	if e, ok := err.(*fieldError); ok { //nolint:errorlint // it is never wrapped
		return e.within(outer)
	}
	return err
}

// shown is a caller's key, cut to what a message can bear.
func shown(key []byte) string {
	const most = 100
	if len(key) <= most {
		return string(key)
	}
	key = key[:most]
	for !utf8.Valid(key) {
		key = key[:len(key)-1]
	}
	return string(key) + "…"
}

// fieldSet says which fields of a struct were there.
type fieldSet struct {
	few  uint64
	many map[int]bool // from 64 on
}

func (f *fieldSet) has(i int) bool {
	return i < 64 && f.few&(1<<i) != 0 || f.many[i]
}

func (f *fieldSet) add(i int) bool {
	switch {
	case f.has(i):
		return false
	case i < 64:
		f.few |= 1 << i
	case f.many == nil:
		f.many = map[int]bool{i: true}
	default:
		f.many[i] = true
	}
	return true
}
