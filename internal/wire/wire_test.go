package wire

import (
	"context"
	"path/filepath"
	"testing"
)

func TestInfo(t *testing.T) {
	s, err := NewServer(ServerOptions{Vendor: "Unmoor", Product: "test", Version: "1", URL: "https://example.org"})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "socket")
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.Serve(ctx, l) }()
	c, err := Dial(ctx, "unix:"+path, DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		Vendor     string   `json:"vendor"`
		Interfaces []string `json:"interfaces"`
	}
	if err := c.Call(ctx, "org.varlink.service.GetInfo", nil, &info); err != nil {
		t.Fatal(err)
	}
	if info.Vendor != "Unmoor" || len(info.Interfaces) != 1 {
		t.Errorf("got %+v", info)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
