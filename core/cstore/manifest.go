package cstore

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// manifest is what matters here of an image's manifest, or of a list of manifests.
type manifest struct {
	// config is the digest of the image's configuration; empty for a list and for Docker's schema 1.
	config string
	// list is whether it lists images, instances their manifests' digests.
	list      bool
	instances []string
}

// The media types of lists (OCI image-spec v1.1, image-index.md; Docker distribution, manifest
// version 2, schema 2).
const (
	ociIndex   = "application/vnd.oci.image.index.v1+json"
	dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// parseManifest reads what an engine stored as a manifest.
func parseManifest(data []byte) (manifest, error) {
	var m struct {
		MediaType string `json:"mediaType"`
		Config    *struct {
			Digest string `json:"digest"`
		} `json:"config"`
		Manifests []struct {
			Digest string `json:"digest"`
		} `json:"manifests"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return manifest{}, fmt.Errorf("parse the manifest: %w", err)
	}
	var parsed manifest
	if m.Config != nil {
		parsed.config = m.Config.Digest
	}
	// An OCI index need not name its media type.
	parsed.list = m.MediaType == ociIndex || m.MediaType == dockerList || m.MediaType == "" && m.Config == nil && m.Manifests != nil
	if parsed.list {
		parsed.config = ""
		for _, instance := range m.Manifests {
			if instance.Digest != "" {
				parsed.instances = append(parsed.instances, instance.Digest)
			}
		}
	}
	return parsed, nil
}

// historyEntry is one step of an image's making, as its configuration tells it.
type historyEntry struct {
	Created    timestamp `json:"created"`
	CreatedBy  string    `json:"created_by"`
	Author     string    `json:"author"`
	Comment    string    `json:"comment"`
	EmptyLayer bool      `json:"empty_layer"`
}

// parseHistory reads the history out of an image's configuration, OCI's or Docker's.
func parseHistory(data []byte) ([]historyEntry, error) {
	var config struct {
		History []historyEntry `json:"history"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("parse the image's configuration: %w", err)
	}
	return config.History, nil
}

// parseLabels reads the labels out of an image's configuration, OCI's or Docker's.
func parseLabels(data []byte) (map[string]string, error) {
	var config struct {
		Config struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("parse the labels of the image's configuration: %w", err)
	}
	return config.Config.Labels, nil
}

// timestamp is a point in time in the spelling that makes equal ones equal; what is none stays as
// it was written.
type timestamp string

func (t *timestamp) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	if text == "null" {
		text = ""
	}
	if parsed, err := time.Parse(time.RFC3339Nano, text); err == nil {
		text = parsed.UTC().Format(time.RFC3339Nano)
	}
	*t = timestamp(text)
	return nil
}

// builtOn is whether a history is another one and one step more, which is Podman's rule (libimage,
// layer_tree.go). Under a wider one every image would be the child of whatever base it was pulled
// with, and the base could never be deleted before it.
func builtOn(child, parent []historyEntry) bool {
	if len(child) != len(parent)+1 {
		return false
	}
	for i := range parent {
		if parent[i] != child[i] {
			return false
		}
	}
	return true
}
