package core

import (
	"fmt"
	"slices"
	"strings"
)

// Protection is what an operator wants kept, whatever the force. The zero value protects nothing.
//
// In a pattern, * stands for any run of characters, slashes included, and ? for one; all of the text
// has to fit. A label is KEY or KEY=VALUE, without patterns.
type Protection struct {
	// Images are patterns for an image's full names, with and without tag or digest, and its full ID.
	Images []string
	// Containers are patterns for the name that the owner shows, the record's names and the full ID.
	Containers []string
	// Labels are those of an image, or of a container as its owner reports them.
	Labels []string
	// File is where the lists stand, for messages.
	File string
}

// image says in one clause what protects an image, empty where nothing does, and what to do about it.
func (p Protection) image(i Image) (detail, advice string) {
	texts := []string{string(i.ID), "sha256:" + string(i.ID)}
	for _, name := range i.Names {
		texts = append(texts, name, repository(name))
	}
	found := append(fitting("images", p.Images, texts), p.labelled(i.Labels)...)
	if len(found) == 0 && !i.LabelsKnown && len(p.Labels) > 0 {
		return "perhaps protected by [protect] labels: its configuration cannot be read",
			"pull or build it anew, or take labels out of [protect] in " + p.file()
	}
	return protectedBy(found), p.advice()
}

// container says in one clause what protects a container; empty where nothing does. The labels of one
// that has no owner, or whose owner does not answer, are not known: that is for its holding to tell.
func (p Protection) container(c Container, h Holding) string {
	texts := append([]string{string(c.ID), h.Claim.DisplayName}, c.Names...)
	return protectedBy(append(fitting("containers", p.Containers, texts), p.labelled(h.Claim.Labels)...))
}

// advice is how to go on with what is protected.
func (p Protection) advice() string { return "take it out of [protect] in " + p.file() }

func (p Protection) file() string {
	if p.File == "" {
		return "config.toml"
	}
	return p.File
}

// fitting lists the patterns that one of the texts fits, as they stand in the configuration.
func fitting(key string, patterns, texts []string) []string {
	var found []string
	for _, pattern := range patterns {
		if slices.ContainsFunc(texts, func(text string) bool { return text != "" && fits(pattern, text) }) {
			found = append(found, fmt.Sprintf("%s = %q", key, pattern))
		}
	}
	return found
}

func (p Protection) labelled(labels map[string]string) []string {
	var found []string
	for _, label := range p.Labels {
		key, want, valued := strings.Cut(label, "=")
		if value, ok := labels[key]; ok && (!valued || value == want) {
			found = append(found, fmt.Sprintf("labels = %q", label))
		}
	}
	return found
}

func protectedBy(found []string) string {
	if len(found) == 0 {
		return ""
	}
	return "protected by [protect] " + list(found)
}

// repository is an image's name without tag and digest.
func repository(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if at := strings.LastIndexByte(name, ':'); at > strings.LastIndexByte(name, '/') {
		name = name[:at]
	}
	return name
}

// fits is whether a text is what a pattern stands for. Of the stars the last one alone is ever tried
// anew, so that it takes pattern times text at most.
func fits(pattern, text string) bool {
	p, t := []rune(pattern), []rune(text)
	star, resume := -1, 0
	i, j := 0, 0
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == '*':
			star, resume = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == t[j]):
			i, j = i+1, j+1
		case star >= 0:
			resume++
			i, j = star+1, resume
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// shields lists what keeps an image from every removal, that of a mere name included.
func (d *decision) shields(image Image) []Blocker {
	var found []Blocker
	if detail, advice := d.facts.Protection.image(image); detail != "" {
		found = append(found, Blocker{Reason: ReasonProtected, Detail: detail, Advice: advice})
	}
	if b, kept := d.facts.Pins[image.ID].blocker(); kept {
		found = append(found, b)
	}
	return found
}

// guard lists what keeps a container from every removal.
func (d *decision) guard(c Container, h Holding) []Blocker {
	detail := d.facts.Protection.container(c, h)
	if detail == "" {
		return nil
	}
	b := about(c, h)
	b.Reason, b.Detail, b.Advice = ReasonProtected, detail, d.facts.Protection.advice()
	return []Blocker{b}
}
