package main

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/plugins/podman"
)

// subject is what a message is about.
type subject struct {
	kind string
	name string
	id   string
}

func imageSubject(id core.ImageID, name string) subject {
	return subject{"image", name, string(id)}
}

func containerSubject(id core.ContainerID, name string) subject {
	return subject{"container", name, string(id)}
}

func (s subject) String() string {
	if s.name == "" || s.name == s.id {
		return s.kind + " " + short(s.id)
	}
	return fmt.Sprintf("%s %s (%s)", s.kind, plain(s.name), short(s.id))
}

// verb is the command that removes it.
func (s subject) verb() string {
	if s.kind == "container" {
		return "rm"
	}
	return "rmi"
}

func short(id string) string {
	if len(id) > 12 {
		id = id[:12]
	}
	return plain(id)
}

// groupWords is "in pod shop": Podman names the pod alone, CRI-O and Buildah say what it is.
func groupWords(group string, owners ...string) string {
	if len(owners) == 1 && owners[0] == podman.Name {
		group = "pod " + strings.TrimPrefix(group, "pod ")
	}
	return "in " + plain(group)
}

// plain makes a text from elsewhere, a command line say, fit for a terminal: one line without
// control characters.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// oneLine is plain without runs of spaces.
func oneLine(s string) string { return strings.Join(strings.Fields(plain(s)), " ") }

// cut shortens a text to n characters.
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// plural is "1 container", "2 containers".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
