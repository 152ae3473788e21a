package crio

import (
	"encoding/json"
	"strings"
)

// The keys of the store's metadata that make a container CRI-O's.
const (
	keyPodName = "pod-name"
	keyPodID   = "pod-id"
)

// metadata is what this package reads of the metadata that CRI-O keeps with a storage container.
type metadata struct {
	// hinted is whether either key is there, own whether both are, with text in them: CRI-O's own
	// test (internal/storage/utils.go, IsCrioContainer).
	hinted, own bool
	// sandbox is whether it is a pod's own storage container.
	sandbox bool
	// pod and podID are the pod's name in CRI-O (k8s_NAME_NAMESPACE_UID_ATTEMPT) and ID, name is the
	// container's in its pod.
	pod, podID, name string
}

// parseMetadata reads a container's metadata. What is no JSON object is not CRI-O's.
func parseMetadata(id, text string) metadata {
	var keys map[string]json.RawMessage
	if text == "" || json.Unmarshal([]byte(text), &keys) != nil {
		return metadata{}
	}
	_, byName := keys[keyPodName]
	_, byID := keys[keyPodID]
	m := metadata{hinted: byName || byID}
	word := func(key string) string {
		var s string
		if raw, ok := keys[key]; ok && json.Unmarshal(raw, &s) != nil {
			return "" // another type than CRI-O writes: not its own
		}
		return s
	}
	m.pod, m.podID, m.name = word(keyPodName), word(keyPodID), word("metadata-name")
	m.own = m.pod != "" && m.podID != ""
	m.sandbox = m.own && m.podID == id
	return m
}

// group is the pod as its users call it, namespace/name.
func (m metadata) group() string {
	// Neither a name nor a namespace has an underscore in it (Kubernetes: DNS labels).
	parts := strings.Split(m.pod, "_")
	if len(parts) == 5 && parts[0] == "k8s" {
		return clip(parts[2] + "/" + parts[1])
	}
	return clip(m.pod)
}
