package cstore

// SetStep has f called before each step of a deletion.
func (s *Store) SetStep(f func(name string)) { s.step = f }

// SetRoom has a store believe that there is room for so much.
func (s *Store) SetRoom(bytes, entries int64) {
	s.room = func(string) (room, error) { return room{bytes, entries}, nil }
}

// For fuzzing.
var (
	ParseManifest = parseManifest
	ParseHistory  = parseHistory
	BuiltOn       = builtOn
	ParseIntent   = parseIntent
)

func (m manifest) IsList() bool   { return m.list }
func (m manifest) Config() string { return m.config }
