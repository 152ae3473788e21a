package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// What any message may have, so that reading it costs a bounded multiple of its bytes: the smallest
// values become the largest structs.
const (
	maxDepth  = 128
	maxValues = 1 << 19
)

var (
	errSyntax  = errors.New("it is no JSON")
	errUTF8    = errors.New("it is no UTF-8")
	errDepth   = fmt.Errorf("it is nested more than %d deep", maxDepth)
	errValues  = fmt.Errorf("it has more than %d values", maxValues)
	errDoubled = errors.New("a key is doubled")
)

// scanner reads JSON (RFC 8259) from in, which is UTF-8. encoding/json tells neither doubled keys nor keys
// in another case from good ones.
type scanner struct {
	in     []byte
	at     int
	depth  int
	values int
}

func newScanner(in []byte) (scanner, error) {
	if !utf8.Valid(in) {
		return scanner{}, errUTF8
	}
	return scanner{in: in}, nil
}

// peek returns the first byte of the next token, or 0 at the end.
func (s *scanner) peek() byte {
	for ; s.at < len(s.in); s.at++ {
		switch c := s.in[s.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// end is an error where anything but space follows.
func (s *scanner) end() error {
	if s.peek() != 0 || s.at < len(s.in) {
		return errSyntax
	}
	return nil
}

// open reads the brace or bracket that begins an object or an array.
func (s *scanner) open(c byte) error {
	if s.peek() != c {
		return errSyntax
	}
	if s.depth++; s.depth > maxDepth {
		return errDepth
	}
	s.at++
	return s.count()
}

// more reads what stands between two members, or after the last, and says whether there is another.
func (s *scanner) more(first bool, end byte) (bool, error) {
	switch c := s.peek(); {
	case c == end:
		s.at++
		s.depth--
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.at++
		return true, nil
	}
	return false, errSyntax
}

// key reads a key and its colon, and returns it unescaped. It may lie in in.
func (s *scanner) key() ([]byte, error) {
	raw, err := s.text()
	if err != nil {
		return nil, err
	}
	if s.peek() != ':' {
		return nil, errSyntax
	}
	s.at++
	return unescape(raw)
}

// scalar reads a value that is neither object nor array, and returns it as it stands.
func (s *scanner) scalar() ([]byte, error) {
	if err := s.count(); err != nil {
		return nil, err
	}
	switch c := s.peek(); {
	case c == '"':
		return s.text()
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	for _, word := range [...]string{"true", "false", "null"} {
		if bytes.HasPrefix(s.in[s.at:], []byte(word)) {
			s.at += len(word)
			return s.in[s.at-len(word) : s.at], nil
		}
	}
	return nil, errSyntax
}

func (s *scanner) count() error {
	if s.values++; s.values > maxValues {
		return errValues
	}
	return nil
}

// null reads a null, if that is what comes.
func (s *scanner) null() bool {
	if s.peek() == 'n' && bytes.HasPrefix(s.in[s.at:], []byte("null")) {
		s.at += len("null")
		return true
	}
	return false
}

// text reads a string, quotes included.
func (s *scanner) text() ([]byte, error) {
	if s.peek() != '"' {
		return nil, errSyntax
	}
	start := s.at
	for s.at++; s.at < len(s.in); s.at++ {
		switch c := s.in[s.at]; {
		case c == '"':
			s.at++
			return s.in[start:s.at], nil
		case c < ' ':
			return nil, errSyntax
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		}
	}
	return nil, errSyntax
}

// escape reads an escape, but for its last byte. Half a surrogate pair is no character.
func (s *scanner) escape() error {
	s.at++
	if s.at == len(s.in) {
		return errSyntax
	}
	switch s.in[s.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
	default:
		return errSyntax
	}
	r, err := s.hex()
	switch {
	case err != nil:
		return err
	case r < 0xd800 || r > 0xdfff:
		return nil
	case r > 0xdbff || !bytes.HasPrefix(s.in[s.at+1:], []byte(`\u`)):
		return errSyntax
	}
	s.at += 2
	if r, err = s.hex(); err == nil && (r < 0xdc00 || r > 0xdfff) {
		err = errSyntax
	}
	return err
}

// hex reads the four digits after the byte that the scanner is at, and stops at the last.
func (s *scanner) hex() (rune, error) {
	if s.at+4 >= len(s.in) {
		return 0, errSyntax
	}
	var r rune
	for range 4 {
		s.at++
		switch c := rune(s.in[s.at]); {
		case '0' <= c && c <= '9':
			r = r<<4 | (c - '0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | ((c | 0x20) - 'a' + 10)
		default:
			return 0, errSyntax
		}
	}
	return r, nil
}

// number reads a number.
func (s *scanner) number() ([]byte, error) {
	start := s.at
	s.accept('-', '-')
	if !s.accept('0', '0') && s.digits() == 0 {
		return nil, errSyntax
	}
	if s.accept('.', '.') && s.digits() == 0 {
		return nil, errSyntax
	}
	if s.accept('e', 'e') || s.accept('E', 'E') {
		_ = s.accept('+', '+') || s.accept('-', '-')
		if s.digits() == 0 {
			return nil, errSyntax
		}
	}
	return s.in[start:s.at], nil
}

func (s *scanner) accept(from, to byte) bool {
	if s.at < len(s.in) && from <= s.in[s.at] && s.in[s.at] <= to {
		s.at++
		return true
	}
	return false
}

func (s *scanner) digits() (n int) {
	for s.accept('0', '9') {
		n++
	}
	return n
}

// skip reads any value, and returns it as it stands. Doubled keys pass where they may.
func (s *scanner) skip(doubled bool) ([]byte, error) {
	s.peek()
	start := s.at
	if err := s.pass(doubled); err != nil {
		return nil, err
	}
	return s.in[start:s.at], nil
}

func (s *scanner) pass(doubled bool) error {
	switch c := s.peek(); c {
	case '{':
		return s.passObject(doubled)
	case '[':
		if err := s.open(c); err != nil {
			return err
		}
		for first := true; ; first = false {
			if more, err := s.more(first, ']'); err != nil || !more {
				return err
			}
			if err := s.pass(doubled); err != nil {
				return err
			}
		}
	default:
		_, err := s.scalar()
		return err
	}
}

func (s *scanner) passObject(doubled bool) error {
	if err := s.open('{'); err != nil {
		return err
	}
	var seen keys
	for first := true; ; first = false {
		if more, err := s.more(first, '}'); err != nil || !more {
			return err
		}
		key, err := s.key()
		if err != nil {
			return err
		}
		if !doubled && !seen.add(key) {
			return errDoubled
		}
		if err := s.pass(doubled); err != nil {
			return err
		}
	}
}

// unescape returns what a string means.
func unescape(raw []byte) ([]byte, error) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1], nil
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, errSyntax
	}
	return []byte(text), nil
}

// keys are those of one object.
type keys struct {
	few  [8][]byte
	n    int
	many map[string]struct{}
}

// add is false where key is there already.
func (k *keys) add(key []byte) bool {
	if k.many == nil {
		for _, other := range k.few[:k.n] {
			if bytes.Equal(key, other) {
				return false
			}
		}
		if k.n < len(k.few) {
			k.few[k.n] = key
			k.n++
			return true
		}
		k.many = make(map[string]struct{}, 4*len(k.few))
		for _, other := range k.few {
			k.many[string(other)] = struct{}{}
		}
	}
	if _, there := k.many[string(key)]; there {
		return false
	}
	k.many[string(key)] = struct{}{}
	return true
}
