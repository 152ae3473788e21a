package cstore_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

// file is a regular file for an archive.
func file(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}, content}
}

// entry is a member of an archive as it is written, right or not.
type entry struct {
	tar.Header
	content string
}

// tarOf writes an archive of entries.
func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data) // to memory
	_ = w.Close()
	return b.Bytes()
}

func zstandard(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// made is an image to write into an archive.
type made struct {
	names []string
	// layers are tar archives, the lowest first, and plain what they unpack to where they are compressed.
	layers, plain [][]byte
	label         string
}

// small is a sound image of two layers.
func small(t testing.TB, names ...string) made {
	return made{names: names, label: strings.Join(names, " "), layers: [][]byte{
		tarOf(t, file("etc/name", "lower"), entry{tar.Header{Name: "lib", Typeflag: tar.TypeSymlink, Linkname: "/../../usr/lib"}, ""}),
		tarOf(t, file("etc/upper", "upper "+strings.Join(names, " "))),
	}}
}

// hostile is an image with one layer that somebody made with care.
func hostile(layer []byte) made { return made{names: []string{"hostile:1"}, layers: [][]byte{layer}} }

func (m made) diffs() []digest.Digest {
	layers := m.layers
	if m.plain != nil {
		layers = m.plain
	}
	var ids []digest.Digest
	for _, l := range layers {
		ids = append(ids, digest.FromBytes(l))
	}
	return ids
}

func (m made) config() []byte {
	return encode(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Labels": map[string]string{"label": m.label}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": m.diffs()},
	})
}

func (m made) id() core.ImageID { return core.ImageID(digest.FromBytes(m.config()).Encoded()) }

// encode is JSON of what cannot fail to be.
func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// dockerArchive lists the members of a Docker archive.
func dockerArchive(images ...made) []entry {
	var members []entry
	var manifest []map[string]any
	written := make(map[string]bool)
	for _, m := range images {
		config := m.config()
		item := map[string]any{"Config": digest.FromBytes(config).Encoded() + ".json", "RepoTags": m.names}
		members = append(members, file(item["Config"].(string), string(config)))
		var layers []string
		for _, l := range m.layers {
			name := digest.FromBytes(l).Encoded() + ".tar"
			layers = append(layers, name)
			if !written[name] {
				written[name] = true
				members = append(members, file(name, string(l)))
			}
		}
		item["Layers"] = layers
		manifest = append(manifest, item)
	}
	return append(members, file("manifest.json", string(encode(manifest))))
}

// ociLayout lists the members of an OCI layout.
func ociLayout(images ...made) []entry {
	members := []entry{file("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)}
	blob := func(kind string, data []byte) map[string]any {
		sum := digest.FromBytes(data)
		members = append(members, file("blobs/sha256/"+sum.Encoded(), string(data)))
		return map[string]any{"mediaType": kind, "digest": sum, "size": len(data)}
	}
	var index []map[string]any
	for _, m := range images {
		manifest := map[string]any{
			"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": blob("application/vnd.oci.image.config.v1+json", m.config()),
		}
		var layers []map[string]any
		for i, l := range m.layers {
			kind := "application/vnd.oci.image.layer.v1.tar"
			if m.plain != nil && !bytes.Equal(m.plain[i], l) {
				kind += "+gzip"
			}
			layers = append(layers, blob(kind, l))
		}
		manifest["layers"] = layers
		descriptor := blob("application/vnd.oci.image.manifest.v1+json", encode(manifest))
		if len(m.names) > 0 {
			descriptor["annotations"] = map[string]string{"org.opencontainers.image.ref.name": m.names[0]}
		}
		index = append(index, descriptor)
	}
	return append(members, file("index.json", string(encode(map[string]any{"schemaVersion": 2, "manifests": index}))))
}

// fileWith puts bytes into a file of the test's.
func fileWith(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// unpacked puts members into a directory of the test's.
func unpacked(t testing.TB, members []entry) string {
	t.Helper()
	dir := t.TempDir()
	for _, m := range members {
		path := filepath.Join(dir, m.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(m.content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// loader is a store to load into, with a directory of its own for temporary files.
type loader struct {
	*storetest.Fixture
	*cstore.Store
	temp, policy string
}

func newLoader(t *testing.T, driver string) *loader {
	t.Helper()
	if raceDetector { // see TestDeletesOfOneStore: layers are copied side by side
		t.Skip("the storage library reads LockFile.locked beside a write of the same value")
	}
	storetest.Root(t)
	temp := filepath.Join(t.TempDir(), "temp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	policy := fileWith(t, "policy.json", []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
	f := storetest.New(t, driver)
	return &loader{f, f.Open(), temp, policy}
}

func (l *loader) request(path string) core.LoadRequest {
	return core.LoadRequest{Source: core.ImageSource{Path: path}, Copy: core.CopyOptions{SignaturePolicy: l.policy}}
}

// empty fails the test where anything is left of a load: in the store, of temporary files, of journals.
func (l *loader) empty(t *testing.T) {
	t.Helper()
	if images := l.Fixture.Snapshot().Images; len(images) > 0 {
		t.Errorf("an image is left: %v %v", images[0].ID, images[0].Names)
	}
	if layers := l.Layers(); len(layers) > 0 {
		t.Errorf("layers are left: %v", layers)
	}
	for _, home := range []string{"overlay", "vfs/dir"} {
		for _, e := range entriesOf(t, filepath.Join(l.Options.GraphRoot, home)) {
			if len(e) == 64 {
				t.Errorf("a layer's directory is left: %s", e)
			}
		}
	}
	l.tidy(t)
	l.Clean()
}

// tidy fails the test where temporary files or a journal are left.
func (l *loader) tidy(t *testing.T) {
	t.Helper()
	if left := entriesOf(t, l.temp); len(left) > 0 {
		t.Errorf("temporary files are left: %v", left)
	}
	left := slices.DeleteFunc(entriesOf(t, filepath.Join(l.Options.GraphRoot, "unmoor")), func(name string) bool { return strings.HasSuffix(name, "lock") })
	if len(left) > 0 {
		t.Errorf("journals are left: %v", left)
	}
}

func entriesOf(t testing.TB, directory string) []string {
	t.Helper()
	entries, err := os.ReadDir(directory)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// texts are images as a test compares them.
func texts(images []core.LoadedImage) string {
	var all []string
	for _, i := range images {
		all = append(all, fmt.Sprintf("%s%v", i.ID.Short(), i.Names))
	}
	return strings.Join(all, " ")
}
