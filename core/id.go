package core

// ImageID is the full ID of an image in the store: 64 hexadecimal digits.
type ImageID string

// ContainerID is the full ID of a container in the store: 64 hexadecimal digits.
type ContainerID string

// LayerID is the full ID of a layer in the store: 64 hexadecimal digits.
type LayerID string

// Short is the first twelve digits, as engines show an ID to people.
func (id ImageID) Short() string { return short(string(id)) }

// Short is the first twelve digits, as engines show an ID to people.
func (id ContainerID) Short() string { return short(string(id)) }

// Short is the first twelve digits, as engines show an ID to people.
func (id LayerID) Short() string { return short(string(id)) }

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
