package protocol

import (
	"fmt"
	"path/filepath"
	"time"
	"unicode/utf8"
)

// checkID wants 64 hexadecimal digits in lower case.
func checkID[T ~string](what string, id T) error {
	if len(id) != 64 {
		return fmt.Errorf("%s %.80q is no ID of 64 digits", what, string(id))
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("%s %q is no ID of hexadecimal digits in lower case", what, string(id))
		}
	}
	return nil
}

func checkIDs[T ~string](what string, ids []T) error {
	for _, id := range ids {
		if err := checkID(what, id); err != nil {
			return err
		}
	}
	return nil
}

// checkOptionalID takes an empty one too.
func checkOptionalID[T ~string](what string, id T) error {
	if id == "" {
		return nil
	}
	return checkID(what, id)
}

// checkPath wants an absolute path that JSON can carry.
func checkPath(what, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%s %q is no absolute path", what, path)
	}
	return checkText(what, path)
}

func checkOptionalPath(what, path string) error {
	if path == "" {
		return nil
	}
	return checkPath(what, path)
}

// checkText wants what JSON carries unchanged.
func checkText(what, text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s %.80q is not UTF-8", what, text)
	}
	return nil
}

func checkTexts(what string, texts []string) error {
	for _, t := range texts {
		if err := checkText(what, t); err != nil {
			return err
		}
	}
	return nil
}

func fromTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

func toTime(what, s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s %.80q is no time of RFC 3339", what, s)
	}
	return t.UTC(), nil
}

// optional is nil for the zero value.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// value is zero for nil.
func value[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// texts makes plain strings of typed ones, never nil.
func texts[T ~string](of []T) []string {
	all := make([]string, len(of))
	for i, s := range of {
		all[i] = string(s)
	}
	return all
}

func optionalTexts[T ~string](of []T) *[]string {
	if len(of) == 0 {
		return nil
	}
	all := texts(of)
	return &all
}

// typed is the opposite; nil where there is none.
func typed[T ~string](of []string) []T {
	if len(of) == 0 {
		return nil
	}
	all := make([]T, len(of))
	for i, s := range of {
		all[i] = T(s)
	}
	return all
}
