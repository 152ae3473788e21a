package daemon

import (
	"path/filepath"
	"testing"

	"github.com/unmoor/unmoor/internal/wire"
)

// BenchmarkSmallCalls is what a call costs that looks at nothing: by one client, and by fifty.
func BenchmarkSmallCalls(b *testing.B) {
	access, err := NewAccess(nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	d := New(&Setup{Service: newFakeService(0), Plugins: &fakePlugins{}, Access: access}, Options{})
	server, err := wire.NewServer(wire.ServerOptions{}, d.Interface())
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "socket")
	l, err := wire.Listen(path, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(b.Context(), l) }()
	b.Cleanup(func() {
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	call := func(b *testing.B, more func() bool) {
		c, err := wire.Dial(b.Context(), "unix:"+path, wire.DialOptions{})
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		var out struct {
			GraphRoot string `json:"graphRoot"`
		}
		for more() {
			if err := c.Call(b.Context(), methodPrefix+"GetStore", object{}, &out); err != nil {
				b.Error(err)
				return
			}
		}
	}
	b.Run("one", func(b *testing.B) { call(b, b.Loop) })
	b.Run("fifty", func(b *testing.B) {
		b.SetParallelism(25)
		b.RunParallel(func(p *testing.PB) { call(b, p.Next) })
	})
}
