package wire

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/varlink/go/varlink"
)

// Descriptors of a client's reach the service, with calls of any size, and stay the client's too.
func TestStreamWithDescriptors(t *testing.T) {
	r := serveTest(t, ServerOptions{TakesFiles: func(m string) bool { return m == "org.example.Test.Act" }})
	long := strings.Repeat("x", 8<<20) // not written in one go
	for _, what := range []string{"short", long} {
		r.service.on(what, func(ctx context.Context, c varlink.Call) error {
			var text string
			for _, f := range c.RequestFDs() {
				data, err := io.ReadAll(f)
				f.Close()
				if err != nil {
					return err
				}
				text += string(data)
			}
			ok := text == "content"
			return c.Reply(ctx, &struct {
				OK *bool `json:"ok"`
			}{&ok})
		})
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := Dial(t.Context(), "unix:"+r.path, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, what := range []string{"short", long} {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		var out struct {
			OK bool `json:"ok"`
		}
		err := c.StreamWith(t.Context(), "org.example.Test.Act", map[string]string{"what": what}, []*os.File{f},
			func(parameters json.RawMessage, _ bool) error { return Decode(parameters, &out) })
		if err != nil || !out.OK {
			t.Errorf("with %d bytes: %v", len(what), err)
		}
	}
	if _, err := f.Stat(); err != nil {
		t.Errorf("the file: %v", err)
	}
}

// Through ssh none come: the call is not made, and the connection is as good as before.
func TestNoDescriptorsThroughSSH(t *testing.T) {
	c := doubled(t, DialOptions{}, func(d *double, _ string) { d.say(`{}`) })
	c.process = &process{name: "ssh"}
	defer func() { c.process = nil }()
	err := c.StreamWith(t.Context(), "org.example.Test.Files", nil, []*os.File{os.Stdin}, func(json.RawMessage, bool) error { return nil })
	if !errors.Is(err, ErrNoFiles) {
		t.Errorf("%v", err)
	}
	if err := c.Call(t.Context(), "org.example.Test.Ping", nil, nil); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
