package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmoor/unmoor/core"
)

// Load of the fake takes the words of a text for the names of an image each.
func (f *fake) Load(_ context.Context, r core.LoadRequest) ([]core.LoadedImage, error) {
	text, err := f.read(r.Source, r.Copy)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, &core.FormatError{Source: r.Source.String(), Trials: []core.FormatTrial{{Format: "oci", Err: errors.New("it is\x1b empty")}}}
	}
	var images []core.LoadedImage
	for i, word := range strings.Fields(text) {
		image := core.LoadedImage{ID: core.ImageID(id(fmt.Sprint("a", i)))}
		if word != "-" {
			image.Names = append(image.Names, word)
		}
		if r.Name != "" {
			image.Names = append(image.Names, r.Name)
		}
		images = append(images, image)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return images, f.loadErr
}

func (f *fake) Import(_ context.Context, r core.ImportRequest) (core.LoadedImage, error) {
	text, err := f.read(r.Source, r.Copy)
	if err != nil {
		return core.LoadedImage{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.imported = r
	return core.LoadedImage{ID: core.ImageID(id("b" + text))}, nil
}

func (f *fake) read(s core.ImageSource, o core.CopyOptions) (string, error) {
	if o.Report != nil {
		fmt.Fprintln(o.Report, "Copying sha256:1")
	}
	if o.Progress != nil {
		o.Progress(core.CopyProgress{Digest: "sha256:1", Size: -1, Done: true})
	}
	if s.Path != "" {
		data, err := os.ReadFile(s.Path)
		return string(data), err
	}
	data, err := io.ReadAll(s.Stream)
	if s.Limit > 0 && int64(len(data)) > s.Limit {
		return "", core.ErrArchiveRefused
	}
	return string(data), err
}

// file is one with contents.
func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// from has standard input come from a file until the end of the test.
func from(t *testing.T, content string) {
	t.Helper()
	f, err := os.Open(file(t, content))
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stdin
	os.Stdin = f
	t.Cleanup(func() { os.Stdin = before; f.Close() })
}

func TestLoadCommand(t *testing.T) {
	ways(t, "", func(t *testing.T, on func(*fake) caller) {
		f := newFake()
		c := on(f)
		got := c.call(t, "load", "-i", file(t, "localhost/a:1 - localhost/\x1bc:1"))
		want := "Loaded image: localhost/a:1\nLoaded image: sha256:" + id("a1") + "\nLoaded image: localhost/?c:1\n"
		if got.code != 0 || got.stdout != want || got.stderr != "Copying sha256:1\n" {
			t.Errorf("%+v", got)
		}
		from(t, "localhost/a:1")
		if got := c.call(t, "load", "-q", "more:1"); got != (call{"Loaded image: localhost/a:1\nLoaded image: more:1\n", "", 0}) {
			t.Errorf("from standard input: %+v", got)
		}
		from(t, "localhost/a:1")
		if got := c.call(t, "load", "-q", "-i", "-", "--max-size", "5b"); got.code != exitOther || !strings.Contains(got.stderr, "archive refused") {
			t.Errorf("more than is allowed: %+v", got)
		}
		empty := file(t, "")
		if got := c.call(t, "load", "-q", "-i", empty); got != (call{"", "Error: " + empty + " is no image archive in any of the known formats:\n        * oci: it is? empty\n", exitOther}) {
			t.Errorf("no format: %+v", got)
		}
		f.mu.Lock()
		f.loadErr = errors.New("no space")
		f.mu.Unlock()
		if got := c.call(t, "load", "-q", "-i", file(t, "localhost/a:1")); got != (call{"Loaded image: localhost/a:1\n", "Error: no space\n", exitOther}) {
			t.Errorf("half of it: %+v", got)
		}
	})
}

func TestImportCommand(t *testing.T) {
	ways(t, "", func(t *testing.T, on func(*fake) caller) {
		f := newFake()
		c := on(f)
		got := c.call(t, "import", "-c", "CMD a", "--change", "ENV b=c", "-m", "text", "--os", "o", "--arch", "a", "--variant", "v", file(t, "1"), "name")
		if got != (call{"sha256:" + id("b1") + "\n", "Copying sha256:1\n", 0}) {
			t.Errorf("%+v", got)
		}
		f.mu.Lock()
		r := f.imported
		f.mu.Unlock()
		if r.Name != "name" || !slices.Equal(r.Changes, []string{"CMD a", "ENV b=c"}) || r.Message != "text" || r.OS != "o" || r.Architecture != "a" || r.Variant != "v" {
			t.Errorf("asked for %+v", r)
		}
		from(t, "2")
		if got := c.call(t, "import", "-q", "-"); got != (call{"sha256:" + id("b2") + "\n", "", 0}) {
			t.Errorf("from standard input: %+v", got)
		}
	})
}

// What is behind a web address is copied into a file that nobody sees.
func TestImportFromWeb(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/root.tar" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, "3")
	}))
	t.Cleanup(server.Close)
	ways(t, "", func(t *testing.T, on func(*fake) caller) {
		temp := t.TempDir()
		t.Setenv("TMPDIR", temp)
		c := on(newFake())
		if got := c.call(t, "import", "-q", server.URL+"/root.tar"); got != (call{"sha256:" + id("b3") + "\n", "", 0}) {
			t.Errorf("%+v", got)
		}
		if got := c.call(t, "load", "-q", "-i", server.URL+"/root.tar"); got != (call{"Loaded image: 3\n", "", 0}) {
			t.Errorf("%+v", got)
		}
		if got := c.call(t, "import", "-q", server.URL+"/gone"); got.code != exitOther || !strings.Contains(got.stderr, "the server answered 404 Not Found") {
			t.Errorf("%+v", got)
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	})
}

func TestImportCommandLine(t *testing.T) {
	f := newFake()
	directory := t.TempDir()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"import"}, "name the archive: a file, a web address, or - for standard input\nSee 'unmoor import --help'"},
		{[]string{"import", "a", "b", "c"}, "at most 2 arguments"},
		{[]string{"load", "a", "b"}, "at most 1 argument"},
		{[]string{"load", "--max-size", "0"}, "wants a positive number of bytes, such as 500m or 2g"},
		{[]string{"import", directory}, directory + " is a directory: pack it, tar -C " + directory + " -c . | unmoor import -"},
		{[]string{"import", "/does/not/exist"}, "stat /does/not/exist: no such file or directory"},
	} {
		if got := f.call(t, tt.args...); got.code != exitOther || !strings.Contains(got.stderr, tt.want) {
			t.Errorf("%v: %+v", tt.args, got)
		}
	}
	c := caller{fake: f, socket: f.serve(t, core.Protection{})}
	if got := c.call(t, "load", "--signature-policy", "/x", "-i", file(t, "a")); got.code != exitOther || !strings.Contains(got.stderr, "has a signature policy of its own: leave that out") {
		t.Errorf("%+v", got)
	}
}
