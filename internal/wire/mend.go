package wire

// mend returns a copy of what we send ourselves, with empty arrays and objects for the nulls that
// Go's nil slices and maps became: null is the lack of an optional value, and these are not optional.
func mend(value []byte, s *shape) ([]byte, error) {
	m := mender{scanner: scanner{in: value}}
	if err := m.value(s); err != nil {
		return nil, err
	}
	return m.out, m.end()
}

type mender struct {
	scanner
	out []byte
}

func (m *mender) value(s *shape) error {
	optional := s.kind == kindMaybe
	if optional {
		s = s.element
	}
	first := m.peek()
	switch {
	case first == 'n' && !optional && s.kind == kindArray:
		m.null()
		m.out = append(m.out, "[]"...)
	case first == 'n' && !optional && (s.kind == kindMap || s.kind == kindObject):
		m.null()
		m.out = append(m.out, "{}"...)
	case first == '[' && s.kind == kindArray:
		return m.elements(first, ']', s)
	case first == '{' && (s.kind == kindStruct || s.kind == kindMap):
		return m.elements(first, '}', s)
	default:
		return m.asIs()
	}
	return nil
}

func (m *mender) asIs() error {
	raw, err := m.skip(true)
	m.out = append(m.out, raw...)
	return err
}

// elements copies an array or an object.
func (m *mender) elements(begin, end byte, s *shape) error {
	if err := m.open(begin); err != nil {
		return err
	}
	m.out = append(m.out, begin)
	for first := true; ; first = false {
		more, err := m.more(first, end)
		if err != nil {
			return err
		}
		if !more {
			m.out = append(m.out, end)
			return nil
		}
		if !first {
			m.out = append(m.out, ',')
		}
		inner := s.element
		if end == '}' {
			m.peek()
			start := m.at
			key, err := m.key()
			if err != nil {
				return err
			}
			m.out = append(m.out, m.in[start:m.at]...)
			if s.kind == kindStruct {
				inner = nil
				if i := s.field(key); i >= 0 {
					inner = s.fields[i].shape
				}
			}
		}
		if inner == nil {
			err = m.asIs()
		} else {
			err = m.value(inner)
		}
		if err != nil {
			return err
		}
	}
}
