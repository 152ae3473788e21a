package cstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/cli/environment"
	"github.com/containers/image/v5/pkg/shortnames"
	"github.com/containers/image/v5/types"

	"github.com/unmoor/unmoor/core"
)

// ResolveImage finds the image that a reference means, as Podman's lookup of local images does
// (libimage, runtime.go, LookupImage), in this order:
//
//   - a full ID, with or without "sha256:";
//   - a name: the short-name alias, localhost/, the unqualified-search registries, docker.io, with
//     the tag "latest" where there is none; or repository@digest, for an image of that repository;
//   - the exact text of a name;
//   - a unique ID prefix;
//   - the end of a name: repo:tag or repo@digest for registry/project/repo:tag.
//
// It differs where Podman guesses, since this is for removal: a prefix of several IDs, or the end of
// several images' names, is refused with the candidates; the name of a manifest list means the list,
// never one of its instances; "sha256:" may stand before a manifest's digest too.
func (s *Store) ResolveImage(ctx context.Context, snapshot *core.Snapshot, ref string) (core.ImageID, string, error) {
	if err := ctx.Err(); err != nil {
		return "", "", err
	}
	unknown := fmt.Errorf("%s: %w", ref, core.ErrImageUnknown)
	if hex, ok := strings.CutPrefix(ref, "sha256:"); ok || reference.IsFullIdentifier(ref) {
		if !reference.IsFullIdentifier(hex) {
			return "", "", unknown
		}
		if image, ok := snapshot.Image(core.ImageID(hex)); ok {
			return image.ID, "", nil
		}
		id, err := only(ref, imagesWith(snapshot, func(i core.Image) bool { return ok && slices.Contains(i.Digests, ref) }))
		return id, "", err
	}
	candidates, err := names(ref)
	if err != nil {
		return "", "", err
	}
	for _, candidate := range candidates {
		if id, name, err := byName(snapshot, candidate); err == nil || !errors.Is(err, core.ErrImageUnknown) {
			return id, name, err
		}
	}
	for _, image := range snapshot.Images {
		if slices.Contains(image.Names, ref) {
			return image.ID, ref, nil
		}
	}
	if ref == "" {
		return "", "", unknown
	}
	id, err := only(ref, imagesWith(snapshot, func(i core.Image) bool { return strings.HasPrefix(string(i.ID), ref) }))
	if err == nil || !errors.Is(err, core.ErrImageUnknown) {
		return id, "", err
	}
	return byEnd(snapshot, ref)
}

// names are the full names that ref may stand for, the likelier ones first; none where it cannot be
// a name.
func names(ref string) ([]reference.Named, error) {
	if _, err := reference.Parse(ref); err != nil {
		return nil, nil //nolint:nilerr // Perhaps the exact text of a name, which other tools may choose freely.
	}
	system := new(types.SystemContext)
	if err := environment.UpdateRegistriesConf(system); err != nil {
		return nil, fmt.Errorf("look for registries.conf to resolve %q: %w", ref, err)
	}
	candidates, err := shortnames.ResolveLocally(system, ref)
	if err != nil {
		// Without registries.conf the name might mean another image than the engines take it for.
		if _, docker := reference.ParseDockerRef(ref); docker == nil {
			return nil, fmt.Errorf("read registries.conf and the short-name aliases to resolve %q: %w", ref, err)
		}
		return nil, nil // No name: an upper-case letter in it, say.
	}
	if docker, err := reference.ParseDockerRef(ref); err == nil {
		candidates = append(candidates, docker)
	}
	return candidates, nil
}

// byName finds the image of a full name.
func byName(snapshot *core.Snapshot, named reference.Named) (core.ImageID, string, error) {
	text := named.String()
	for _, image := range snapshot.Images {
		if slices.Contains(image.Names, text) {
			return image.ID, text, nil
		}
	}
	digested, ok := named.(reference.Digested)
	if !ok {
		return "", "", core.ErrImageUnknown
	}
	digest := digested.Digest().String()
	id, err := only(text, imagesWith(snapshot, func(i core.Image) bool {
		return slices.Contains(i.Digests, digest) && slices.ContainsFunc(i.Names, func(name string) bool {
			own, err := reference.ParseNormalizedNamed(name)
			return err == nil && own.Name() == named.Name()
		})
	}))
	return id, "", err
}

// byEnd finds the image one of whose names ends in ref, after a slash.
func byEnd(snapshot *core.Snapshot, ref string) (core.ImageID, string, error) {
	unknown := fmt.Errorf("%s: %w", ref, core.ErrImageUnknown)
	parsed, err := reference.Parse(ref)
	if err != nil {
		return "", "", unknown
	}
	wanted, ok := parsed.(reference.Named)
	if !ok || !shortnames.IsShortName(reference.TrimNamed(wanted).String()) {
		return "", "", unknown
	}
	digest := ""
	if digested, ok := wanted.(reference.Digested); ok {
		digest = digested.Digest().String()
		wanted = reference.TrimNamed(wanted)
	}
	tagged, ok := reference.TagNameOnly(wanted).(reference.NamedTagged)
	if !ok {
		return "", "", unknown
	}
	found := make(map[core.ImageID]string)
	matches := imagesWith(snapshot, func(i core.Image) bool {
		if digest != "" && !slices.Contains(i.Digests, digest) {
			return false
		}
		for _, name := range i.Names {
			if endsIn(name, tagged, digest != "") {
				found[i.ID] = name
				return true
			}
		}
		return false
	})
	id, err := only(ref, matches)
	if err != nil || digest != "" {
		return id, "", err
	}
	return id, found[id], nil
}

// endsIn is whether an image's name is wanted's repository, or that below a registry or project,
// with the same tag.
func endsIn(name string, wanted reference.NamedTagged, anyTag bool) bool {
	own, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return false
	}
	tagged, ok := own.(reference.NamedTagged)
	if !anyTag && (!ok || tagged.Tag() != wanted.Tag()) {
		return false
	}
	return own.Name() == wanted.Name() || strings.HasSuffix(own.Name(), "/"+wanted.Name())
}

func imagesWith(snapshot *core.Snapshot, fits func(core.Image) bool) []core.Image {
	var images []core.Image
	for _, i := range snapshot.Images {
		if fits(i) {
			images = append(images, i)
		}
	}
	return images
}

// only is the one image that a reference fits.
func only(ref string, images []core.Image) (core.ImageID, error) {
	switch len(images) {
	case 0:
		return "", fmt.Errorf("%s: %w", ref, core.ErrImageUnknown)
	case 1:
		return images[0].ID, nil
	}
	ambiguous := &core.AmbiguousError{Reference: ref}
	for _, i := range images {
		candidate := string(i.ID)
		if len(i.Names) > 0 {
			candidate = i.ID.Short() + " (" + strings.Join(i.Names, ", ") + ")"
		}
		ambiguous.Candidates = append(ambiguous.Candidates, candidate)
	}
	return "", ambiguous
}
