package cstore

import (
	"context"
	"io"
)

// SetStep has f called before each step of a deletion.
func (s *Store) SetStep(f func(name string)) { s.step = f }

// SetRoom has a store believe that there is room for so much.
func (s *Store) SetRoom(bytes, entries int64) {
	s.room = func(string) (room, error) { return room{bytes, entries}, nil }
}

// VetLayer is vetLayer with room for so much.
func VetLayer(ctx context.Context, layer io.Reader, bytes, entries int64) error {
	return vetLayer(ctx, layer, room{bytes, entries}.budget())
}

// NormalName is normalName, as text.
func NormalName(name string) (string, error) {
	named, err := normalName(name)
	if err != nil || named == nil {
		return "", err
	}
	return named.String(), nil
}

// For fuzzing.
var (
	ParseManifest = parseManifest
	ParseHistory  = parseHistory
	BuiltOn       = builtOn
	ParseIntent   = parseIntent
	ConfigOf      = configOf
)

func (m manifest) IsList() bool   { return m.list }
func (m manifest) Config() string { return m.config }
