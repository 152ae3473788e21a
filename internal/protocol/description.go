package protocol

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/unmoor/unmoor/core"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// What a description may have at most.
const (
	maxHints   = 64
	maxEntries = 256 // of protocolVersions and of capabilities
	maxWord    = 256 // bytes
)

// Description is all that a plugin says of itself.
type Description struct {
	core.Description
	// Versions are the revisions of the protocol that it speaks.
	Versions     []int64
	Capabilities Capabilities
	// Ready is whether the engine behind the plugin can answer.
	Ready bool
}

// Speaks is whether it can be talked to.
func (d Description) Speaks() bool { return slices.Contains(d.Versions, Version) }

// Capabilities are what a plugin can do besides claiming.
type Capabilities struct{ Stop, Remove, Pin, List, Build bool }

// Words are the capabilities in the protocol's words.
func (c Capabilities) Words() []string {
	words := []string{}
	for _, w := range c.each() {
		if *w.has {
			words = append(words, w.word)
		}
	}
	return words
}

type capability struct {
	word string
	has  *bool
}

func (c *Capabilities) each() []capability {
	return []capability{{"stop", &c.Stop}, {"remove", &c.Remove}, {"pin", &c.Pin}, {"list", &c.List}, {"build", &c.Build}}
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckName wants a name that a plugin may have.
func CheckName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("%.80q is no name of a plugin: lower case letters, digits and -, which is not the first, at most 63", name)
	}
	return nil
}

// FromDescription makes a description for the wire.
func FromDescription(d Description) (DescribeOut, error) {
	w := DescribeOut{Name: d.Name, Engine: cmp.Or(d.Engine, d.Name), EngineVersion: optional(d.EngineVersion),
		ProtocolVersions: append([]int64{}, d.Versions...), Capabilities: d.Capabilities.Words(),
		ClaimHints: make([]iounmoorplugin.ClaimHint, len(d.Hints)), Ready: d.Ready}
	for i, h := range d.Hints {
		w.ClaimHints[i] = iounmoorplugin.ClaimHint{File: optional(h.File), MetadataKey: optional(h.MetadataKey),
			MetadataKeyAbsent: optional(h.MetadataKeyAbsent), NoMetadata: optional(h.NoMetadata)}
	}
	return w, checkDescription(w)
}

// ToDescription reads a description. Capabilities that are not known here are left out.
func ToDescription(w DescribeOut) (Description, error) {
	if err := checkDescription(w); err != nil {
		return Description{}, err
	}
	d := Description{
		Description: core.Description{Name: w.Name, Engine: w.Engine, EngineVersion: value(w.EngineVersion)},
		Versions:    slices.Clone(w.ProtocolVersions), Ready: w.Ready,
	}
	for _, h := range w.ClaimHints {
		d.Hints = append(d.Hints, core.ClaimHint{File: value(h.File), MetadataKey: value(h.MetadataKey),
			MetadataKeyAbsent: value(h.MetadataKeyAbsent), NoMetadata: value(h.NoMetadata)})
	}
	for _, c := range d.Capabilities.each() {
		*c.has = slices.Contains(w.Capabilities, c.word)
	}
	return d, nil
}

func checkDescription(w DescribeOut) error {
	var err error
	switch {
	case w.Engine == "" || len(w.Engine) > maxWord:
		err = fmt.Errorf("its engine's name has %d bytes, and not 1 to %d", len(w.Engine), maxWord)
	case len(value(w.EngineVersion)) > maxWord:
		err = fmt.Errorf("its engine's version has more than %d bytes", maxWord)
	case len(w.ProtocolVersions) == 0 || len(w.ProtocolVersions) > maxEntries:
		err = fmt.Errorf("it speaks %d revisions of the protocol, and not 1 to %d", len(w.ProtocolVersions), maxEntries)
	case slices.Min(w.ProtocolVersions) < 1:
		err = fmt.Errorf("it speaks revision %d of the protocol, which does not exist", slices.Min(w.ProtocolVersions))
	case len(w.Capabilities) > maxEntries:
		err = fmt.Errorf("it has more than %d capabilities", maxEntries)
	case len(w.ClaimHints) > maxHints:
		err = fmt.Errorf("it has more than %d hints", maxHints)
	}
	for _, h := range w.ClaimHints {
		err = cmp.Or(err, checkHint(h))
	}
	if err := cmp.Or(CheckName(w.Name), err); err != nil {
		return fmt.Errorf("description: %w", err)
	}
	return nil
}

// checkHint wants a hint that can fit something.
func checkHint(h iounmoorplugin.ClaimHint) error {
	file := value(h.File)
	switch {
	case file == "" && value(h.MetadataKey) == "" && !value(h.NoMetadata):
		return fmt.Errorf("a hint fits nothing: it has neither file nor metadataKey nor noMetadata")
	case file != "" && filepath.Base(file) != file, file == ".", file == "..":
		return fmt.Errorf("a hint's file %.80q is no name of a file", file)
	case len(file)+len(value(h.MetadataKey))+len(value(h.MetadataKeyAbsent)) > 4*maxWord:
		return fmt.Errorf("a hint has more than %d bytes", 4*maxWord)
	}
	return cmp.Or(checkText("file of a hint", file), checkText("key of a hint", value(h.MetadataKey)),
		checkText("key of a hint", value(h.MetadataKeyAbsent)))
}
