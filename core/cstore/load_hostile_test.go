package cstore_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// header is a member as the tar package does not write it: with holes.
func header(name string, kind byte, size int64, change func(block []byte)) []byte {
	block := make([]byte, 512)
	copy(block, name)
	copy(block[100:], "0000644\x000000000\x000000000\x00")
	copy(block[124:], fmt.Sprintf("%011o\x00", size))
	copy(block[136:], "00000000000\x00        ")
	block[156] = kind
	copy(block[257:], "ustar  \x00")
	if change != nil {
		change(block)
	}
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	return block
}

// holes are files with sizes of exbibytes and no contents: GNU's old way, and the one with extended headers.
func holes() map[string][]byte {
	end := make([]byte, 1024)
	old := header("hole", 'S', 0, func(b []byte) {
		copy(b[483:], "\x80\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00")
	})
	record := func(key, value string) string {
		text := " " + key + "=" + value + "\n"
		n := len(text) + 1
		for len(fmt.Sprint(n))+len(text) != n {
			n++
		}
		return fmt.Sprint(n) + text
	}
	records := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "hole") + record("GNU.sparse.realsize", "1152921504606846976")
	extended := header("PaxHeaders/hole", 'x', int64(len(records)), func(b []byte) { copy(b[257:], "ustar\x0000") })
	extended = append(extended, append([]byte(records), make([]byte, 512-len(records))...)...)
	extended = append(extended, header("hole", '0', 512, func(b []byte) { copy(b[257:], "ustar\x0000") })...)
	extended = append(extended, append([]byte("0\n"), make([]byte, 510)...)...)
	return map[string][]byte{"old": append(old, end...), "extended": append(extended, end...)}
}

// evil are layers that no image has, by what is wrong with them.
func evil(t testing.TB) map[string][]byte {
	many := make([]entry, 0, 300)
	for i := range 300 {
		many = append(many, file(fmt.Sprint("f", i), ""))
	}
	long := tarOf(t, file("a", "a"))
	return map[string][]byte{
		"a name that leads out":            tarOf(t, file("a/../../out", "x")),
		"an absolute name that leads out":  tarOf(t, file("/../out", "x")),
		"a hard link out":                  tarOf(t, entry{tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}, ""}),
		"a hole":                           holes()["old"],
		"a hole, told otherwise":           holes()["extended"],
		"more files than there is room":    tarOf(t, many...),
		"more bytes than there is room":    tarOf(t, file("big", strings.Repeat("0", 3<<20))),
		"more bytes than there is, packed": gzipped(tarOf(t, file("big", strings.Repeat("0", 3<<20)))),
		"more after its end, packed":       gzipped(append(bytes.Clone(long), make([]byte, 8<<20)...)),
	}
}

// What would do harm is refused before the library sees it.
func TestLoadRefusesLayers(t *testing.T) {
	l := newLoader(t, "overlay")
	l.SetRoom(2<<20, 200)
	for scenario, layer := range evil(t) {
		image := hostile(layer)
		for kind, members := range map[string][]entry{"docker": dockerArchive(image), "oci": ociLayout(image)} {
			path := fileWith(t, "a.tar", tarOf(t, members...))
			_, err := l.Load(t.Context(), l.request(path))
			if !errors.Is(err, core.ErrArchiveRefused) {
				t.Errorf("%s, %s: %v", scenario, kind, err)
			}
			if kind == "oci" {
				_, err := l.Load(t.Context(), l.request(unpacked(t, members)))
				if !errors.Is(err, core.ErrArchiveRefused) {
					t.Errorf("%s, unpacked: %v", scenario, err)
				}
			}
			l.empty(t)
		}
		_, err := l.Import(t.Context(), core.ImportRequest{Source: core.ImageSource{Path: fileWith(t, "root.tar", layer)}, Copy: core.CopyOptions{SignaturePolicy: l.policy}})
		if !errors.Is(err, core.ErrArchiveRefused) {
			t.Errorf("%s, imported: %v", scenario, err)
		}
		if t.Failed() {
			return
		}
	}
}

func TestLoadRefusesArchives(t *testing.T) {
	l := newLoader(t, "vfs")
	l.SetRoom(2<<20, 200)
	sound := dockerArchive(small(t, "one:1"))
	with := func(more ...entry) []byte { return tarOf(t, append(more, sound...)...) }
	link := func(kind byte, name, to string) entry {
		return entry{tar.Header{Name: name, Typeflag: kind, Linkname: to}, ""}
	}
	many := make([]entry, 0, 100_001)
	for range 100_001 {
		many = append(many, file("m", ""))
	}
	layout := func(change func(members []entry) []entry) []byte {
		return tarOf(t, change(ociLayout(small(t, "one:1")))...)
	}
	for scenario, data := range map[string][]byte{
		"a name that leads out":            with(file("../../../../../../tmp/out", "x")),
		"an absolute name that leads out":  with(file("/../etc/out", "x")),
		"a link out":                       with(link(tar.TypeSymlink, "a/b", "../../out")),
		"an absolute link":                 with(link(tar.TypeSymlink, "blobs", "/etc")),
		"a hard link out":                  with(link(tar.TypeLink, "index.json", "../../etc/passwd")),
		"a device":                         with(entry{tar.Header{Name: "index.json", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 5}, ""}),
		"a named pipe":                     with(link(tar.TypeFifo, "manifest.json", "")),
		"a hole":                           append(holes()["old"][:512], with()...),
		"a hole, told otherwise":           append(holes()["extended"][:2048], with()...),
		"a hole, packed":                   gzipped(append(holes()["extended"][:2048], with()...)),
		"too many members":                 tarOf(t, many...),
		"more bytes than there is, packed": gzipped(with(file("big", strings.Repeat("0", 3<<20)))),
		"a part that unpacks to too much":  with(file("big", string(gzipped(make([]byte, 3<<20))))),
		"an index of 5 MiB": layout(func(m []entry) []entry {
			return append(m, file("index.json", strings.Repeat(" ", 5<<20)))
		}),
		"a manifest of 5 MiB": layout(func(m []entry) []entry {
			big := strings.Repeat(" ", 5<<20)
			sum := digest.FromString(big)
			return append(m, file("blobs/sha256/"+sum.Encoded(), big),
				file("index.json", `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":1,"digest":"`+sum.String()+`"}]}`))
		}),
	} {
		path := fileWith(t, "a.tar", data)
		_, err := l.Load(t.Context(), l.request(path))
		if !errors.Is(err, core.ErrArchiveRefused) {
			t.Errorf("%s: %v", scenario, err)
		}
		l.empty(t)
		if t.Failed() {
			return
		}
	}
}

// A link within an archive is none out of it: containers/image writes them, for old versions of Docker.
func TestLoadTakesLinksWithinArchive(t *testing.T) {
	l := newLoader(t, "vfs")
	members := dockerArchive(small(t, "one:1"))
	members = append(members, entry{tar.Header{Name: "ab12/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../" + members[1].Name}, ""})
	images, err := l.Load(t.Context(), l.request(fileWith(t, "a.tar", tarOf(t, members...))))
	if err != nil || len(images) != 1 {
		t.Errorf("loaded %s, %v", texts(images), err)
	}
	l.tidy(t)
}

func TestLoadRefusesDirectories(t *testing.T) {
	l := newLoader(t, "vfs")
	for scenario, spoil := range map[string]func(directory string) error{
		"a named pipe": func(d string) error { return unix.Mkfifo(filepath.Join(d, "version"), 0o600) },
		"a device":     func(d string) error { return os.Symlink("/dev/zero", filepath.Join(d, "index.json")) },
		"a manifest of a gibibyte": func(d string) error {
			f, err := os.Create(filepath.Join(d, "manifest.json"))
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Truncate(1 << 30)
		},
		"a signature of a gibibyte": func(d string) error {
			f, err := os.Create(filepath.Join(d, "signature-1"))
			if err != nil {
				return err
			}
			defer f.Close()
			return f.Truncate(1 << 30)
		},
	} {
		directory := t.TempDir()
		if err := spoil(directory); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Load(t.Context(), l.request(directory)); !errors.Is(err, core.ErrArchiveRefused) {
			t.Errorf("%s: %v", scenario, err)
		}
	}
	l.empty(t)
}

// A layer that says where else it may be had is not fetched from there.
func TestLoadAsksNoNetwork(t *testing.T) {
	l := newLoader(t, "vfs")
	var asked atomic.Int32
	one := small(t, "one:1")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(one.layers[0])
	}))
	defer server.Close()
	directory := unpacked(t, ociLayout(one))
	blobs := filepath.Join(directory, "blobs/sha256")
	for _, name := range entriesOf(t, blobs) {
		data, err := os.ReadFile(filepath.Join(blobs, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(data, []byte(`"layers"`)) || !bytes.Contains(data, []byte(`"config"`)) || bytes.Contains(data, []byte("diff_ids")) {
			continue
		}
		changed := bytes.Replace(data, []byte(`"mediaType":"application/vnd.oci.image.layer.v1.tar"`),
			[]byte(`"urls":["`+server.URL+`/layer"],"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar"`), 1)
		sum := digest.FromBytes(changed)
		if err := os.WriteFile(filepath.Join(blobs, sum.Encoded()), changed, 0o600); err != nil {
			t.Fatal(err)
		}
		index, err := os.ReadFile(filepath.Join(directory, "index.json"))
		if err == nil {
			err = os.WriteFile(filepath.Join(directory, "index.json"), bytes.Replace(index, []byte(name), []byte(sum.Encoded()), 1), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(blobs, digest.FromBytes(one.layers[0]).Encoded())); err != nil {
		t.Fatal(err)
	}
	_, err := l.Load(t.Context(), l.request(directory))
	if err == nil || !strings.Contains(err.Error(), "no such file") || asked.Load() > 0 {
		t.Errorf("asked %d times, %v", asked.Load(), err)
	}
	l.empty(t)
}

// Ten million files in an archive of a few kilobytes.
func TestLoadRefusesTenMillionFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("packs and unpacks gigabytes of headers")
	}
	l := newLoader(t, "overlay")
	path := fileWith(t, "root.tar.zst", nil)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packed, err := zstd.NewWriter(f, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	headers := bytes.Repeat(header("f", '0', 0, nil), 10_000)
	for range 1000 {
		if _, err := packed.Write(headers); err != nil {
			t.Fatal(err)
		}
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = l.Import(t.Context(), core.ImportRequest{Source: core.ImageSource{Path: path}, Copy: core.CopyOptions{SignaturePolicy: l.policy}})
	if !errors.Is(err, core.ErrArchiveRefused) || !strings.Contains(err.Error(), "more than 2000000") {
		t.Errorf("imported: %v", err)
	}
	t.Logf("refused after %v", time.Since(start))
	l.empty(t)
}
