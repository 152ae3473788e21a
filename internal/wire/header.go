package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// call is a call as it came.
type call struct {
	method     []byte
	parameters []byte // an object, or nil
	more       bool
	oneway     bool
	upgrade    bool
}

// reply is a reply as it came.
type reply struct {
	parameters []byte // an object, or nil
	continues  bool
	error      []byte // nil where it is none
}

var errObject = errors.New("it is no object")

// readCall reads a call's header, strictly: for what breaks it there is no reply (UAPI.20, Connection
// Lifecycle). The slices lie in message, or are their own.
func readCall(message []byte) (call, error) {
	var c call
	err := readHeader(message, func(name []byte, s *scanner) (bool, error) {
		var err error
		switch string(name) {
		case "method":
			c.method, err = s.nonempty()
		case "parameters":
			c.parameters, err = s.object()
		case "more":
			c.more, err = s.flag()
		case "oneway":
			c.oneway, err = s.flag()
		case "upgrade":
			c.upgrade, err = s.flag()
		default:
			return false, nil
		}
		return true, err
	})
	switch {
	case err != nil:
		return call{}, err
	case c.method == nil:
		return call{}, errors.New("it names no method")
	case c.more && c.oneway || c.more && c.upgrade || c.oneway && c.upgrade:
		return call{}, errors.New("it has more than one of more, oneway and upgrade")
	}
	return c, nil
}

// readReply reads a reply's header, as strictly.
func readReply(message []byte) (reply, error) {
	var r reply
	err := readHeader(message, func(name []byte, s *scanner) (bool, error) {
		var err error
		switch string(name) {
		case "parameters":
			r.parameters, err = s.object()
		case "continues":
			r.continues, err = s.flag()
		case "error":
			if !s.null() {
				r.error, err = s.nonempty()
			}
		default:
			return false, nil
		}
		return true, err
	})
	if err == nil && r.continues && r.error != nil {
		err = errors.New("it is an error and continues")
	}
	if err != nil {
		return reply{}, err
	}
	return r, nil
}

// readHeader hands every member to known, which reads its value or says that it does not know it. Members
// of others have a dot in their names and are objects.
func readHeader(message []byte, known func(name []byte, s *scanner) (bool, error)) error {
	s, err := newScanner(message)
	if err != nil {
		return err
	}
	if s.peek() != '{' {
		return errObject
	}
	if err := s.open('{'); err != nil {
		return err
	}
	var seen keys
	for first := true; ; first = false {
		more, err := s.more(first, '}')
		if err != nil {
			return err
		}
		if !more {
			return s.end()
		}
		name, err := s.key()
		if err != nil {
			return err
		}
		if !seen.add(name) {
			return fmt.Errorf("%s: %w", shown(name), errDoubled)
		}
		ok, err := known(name, &s)
		if !ok {
			if bytes.IndexByte(name, '.') < 0 {
				return fmt.Errorf("it has a member %q, which is unknown", shown(name))
			}
			_, err = s.object()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", shown(name), err)
		}
	}
}

// object reads an object, or null, which is nil.
func (s *scanner) object() ([]byte, error) {
	if s.null() {
		return nil, nil
	}
	if s.peek() != '{' {
		return nil, errObject
	}
	return s.skip(true)
}

// flag reads a boolean, or null, which is false.
func (s *scanner) flag() (bool, error) {
	raw, err := s.scalar()
	if err != nil {
		return false, err
	}
	switch raw[0] {
	case 't':
		return true, nil
	case 'f', 'n':
		return false, nil
	}
	return false, errors.New("it is neither true nor false")
}

// nonempty reads a string that is not empty, and returns what it means.
func (s *scanner) nonempty() ([]byte, error) {
	if s.peek() != '"' {
		return nil, errors.New("it is no string")
	}
	raw, err := s.text()
	if err != nil {
		return nil, err
	}
	text, err := unescape(raw)
	if err == nil && len(text) == 0 {
		err = errors.New("it is empty")
	}
	return text, err
}
