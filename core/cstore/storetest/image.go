package storetest

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/unmoor/unmoor/core"
)

// Image describes an image to make.
type Image struct {
	Names []string
	// Files are the contents of the files of its own layer, by path.
	Files map[string]string
	// Base is the image to build on; none makes it from scratch.
	Base core.ImageID
	// NoLayer makes it a mere change of the base's configuration, or an image without layers.
	NoLayer bool
	// Label makes its configuration, and so its ID, another one.
	Label string
}

// The parts of an OCI image that the fixture writes.
type (
	descriptor struct {
		MediaType string        `json:"mediaType"`
		Digest    digest.Digest `json:"digest"`
		Size      int64         `json:"size"`
	}
	history struct {
		Created    time.Time `json:"created"`
		CreatedBy  string    `json:"created_by"`
		EmptyLayer bool      `json:"empty_layer,omitempty"`
	}
	config struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Config       struct {
			Labels map[string]string `json:"Labels,omitempty"`
		} `json:"config"`
		RootFS struct {
			Type    string          `json:"type"`
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
		History []history `json:"history"`
	}
	manifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        *descriptor  `json:"config,omitempty"`
		Layers        []descriptor `json:"layers,omitempty"`
		Manifests     []descriptor `json:"manifests,omitempty"`
	}
)

const (
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar"
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
)

// epoch is when the fixture's images were made.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// AddImage makes an image as an engine would record it: layer, configuration and manifest.
func (f *Fixture) AddImage(i Image) core.ImageID {
	f.t.Helper()
	var c config
	var m manifest
	top := ""
	if i.Base != "" {
		base, err := f.lib.Image(string(i.Base))
		f.must(err)
		top = base.TopLayer
		f.read(base.ID, "sha256:"+base.ID, &c)
		f.read(base.ID, storage.ImageDigestBigDataKey, &m)
	}
	c.Architecture, c.OS, c.RootFS.Type = "amd64", "linux", "layers"
	if i.Label != "" {
		c.Config.Labels = map[string]string{"label": i.Label}
	}
	c.History = append(c.History, history{epoch.Add(time.Duration(len(c.History)) * time.Second), "storetest " + i.Label, i.NoLayer})
	if !i.NoLayer {
		archive := archive(i.Files)
		diffID := digest.FromBytes(archive)
		layer, _, err := f.lib.PutLayer("", top, nil, "", false, nil, bytes.NewReader(archive))
		f.must(err)
		top = layer.ID
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, diffID)
		m.Layers = append(m.Layers, descriptor{mediaLayer, diffID, int64(len(archive))})
	}
	configData := f.encode(c)
	configDigest := digest.FromBytes(configData)
	m.SchemaVersion, m.MediaType = 2, mediaManifest
	m.Config = &descriptor{mediaConfig, configDigest, int64(len(configData))}
	manifestData := f.encode(m)
	manifestDigest := digest.FromBytes(manifestData)
	image, err := f.lib.CreateImage(configDigest.Encoded(), i.Names, top, "", &storage.ImageOptions{
		Digest: manifestDigest,
		BigData: []storage.ImageBigDataOption{
			{Key: configDigest.String(), Data: configData, Digest: configDigest},
			{Key: storage.ImageDigestBigDataKey, Data: manifestData, Digest: manifestDigest},
			{Key: "manifest-" + manifestDigest.String(), Data: manifestData, Digest: manifestDigest},
		},
	})
	f.must(err)
	return core.ImageID(image.ID)
}

// AddList makes a manifest list of images.
func (f *Fixture) AddList(name string, images ...core.ImageID) core.ImageID {
	f.t.Helper()
	list := manifest{SchemaVersion: 2, MediaType: mediaIndex}
	for _, id := range images {
		image, err := f.lib.Image(string(id))
		f.must(err)
		list.Manifests = append(list.Manifests, descriptor{mediaManifest, image.Digest, 1})
	}
	data := f.encode(list)
	sum := digest.FromBytes(data)
	image, err := f.lib.CreateImage("", []string{name}, "", "", &storage.ImageOptions{
		Digest:  sum,
		BigData: []storage.ImageBigDataOption{{Key: storage.ImageDigestBigDataKey, Data: data, Digest: sum}},
	})
	f.must(err)
	return core.ImageID(image.ID)
}

// AddImageOver makes an image record with a given top layer and nothing else.
func (f *Fixture) AddImageOver(layer string, names ...string) core.ImageID {
	f.t.Helper()
	image, err := f.lib.CreateImage("", names, layer, "", &storage.ImageOptions{})
	f.must(err)
	return core.ImageID(image.ID)
}

// archive is a tar of files.
// Tag gives an image one more name.
func (f *Fixture) Tag(image core.ImageID, name string) {
	f.t.Helper()
	f.must(f.lib.AddNames(string(image), []string{name}))
}

// Layers lists all layers of the store.
func (f *Fixture) Layers() []core.LayerID {
	f.t.Helper()
	layers, err := f.lib.Layers()
	f.must(err)
	var ids []core.LayerID
	for _, l := range layers {
		ids = append(ids, core.LayerID(l.ID))
	}
	return ids
}

// Content is what an image is made of: its configuration, and the digests of its layers' contents, the top
// one first.
func (f *Fixture) Content(id core.ImageID) (configuration string, layers []string) {
	f.t.Helper()
	image, err := f.lib.Image(string(id))
	f.must(err)
	data, err := f.lib.ImageBigData(image.ID, "sha256:"+image.ID)
	f.must(err)
	for at := image.TopLayer; at != ""; {
		layer, err := f.lib.Layer(at)
		f.must(err)
		layers = append(layers, layer.UncompressedDigest.String())
		at = layer.Parent
	}
	return string(data), layers
}

// DeleteRecord deletes an image as an engine does.
func (f *Fixture) DeleteRecord(image core.ImageID) {
	f.t.Helper()
	_, err := f.lib.DeleteImage(string(image), true)
	f.must(err)
}

func archive(files map[string]string) []byte {
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, path := range slices.Sorted(maps.Keys(files)) {
		// Writing to memory cannot fail, and these headers are right.
		_ = w.WriteHeader(&tar.Header{Name: path, Mode: 0o755, Size: int64(len(files[path])), ModTime: epoch, Typeflag: tar.TypeReg})
		_, _ = w.Write([]byte(files[path]))
	}
	_ = w.Close()
	return buffer.Bytes()
}

func (f *Fixture) read(image, item string, into any) {
	f.t.Helper()
	data, err := f.lib.ImageBigData(image, item)
	f.must(err)
	f.must(json.Unmarshal(data, into))
}

func (f *Fixture) encode(v any) []byte {
	f.t.Helper()
	data, err := json.Marshal(v)
	f.must(err)
	return data
}

func (f *Fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// AddLayer makes a layer that no image refers to, over another one or none.
func (f *Fixture) AddLayer(parent string) string {
	f.t.Helper()
	layer, err := f.lib.CreateLayer("", parent, nil, "", true, nil)
	f.must(err)
	return layer.ID
}
