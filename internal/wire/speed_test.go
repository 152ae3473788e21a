package wire

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varlink/go/varlink"
)

const smallCall = `{"method":"org.example.Test.Ping","parameters":{"text":"a short text"}}` + "\x00"

// bareLibrary serves a testService by the library alone.
func bareLibrary(t testing.TB) string {
	t.Helper()
	s, err := varlink.NewService("", "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RegisterInterface(newQuietService()); err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/bare"
	ctx, cancel := context.WithCancel(context.Background())
	if err := s.Bind(ctx, "unix:"+path); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.DoListen(ctx, 0) }()
	t.Cleanup(func() {
		cancel()
		s.Shutdown()
		<-done
	})
	return path
}

// quietService is a testService that keeps no record.
type quietService struct{ *testService }

func newQuietService() quietService { return quietService{newTestService()} }

func (s quietService) VarlinkDispatch(ctx context.Context, c varlink.Call, methodname string) error {
	var in struct {
		Text *string `json:"text,omitempty"`
	}
	if err := c.GetParameters(&in); err != nil {
		return c.ReplyInvalidParameter(ctx, "parameters")
	}
	return c.Reply(ctx, &in)
}

// guarded serves the same by a Server.
func guarded(t testing.TB) string {
	t.Helper()
	s, err := NewServer(ServerOptions{}, newQuietService())
	if err != nil {
		t.Fatal(err)
	}
	path := t.TempDir() + "/guarded"
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

// calls makes n calls by so many clients, each its own connection, one call after another, and returns
// how long that took.
func calls(t testing.TB, path string, clients, n int) time.Duration {
	t.Helper()
	conns := make([]net.Conn, clients)
	for i := range conns {
		var err error
		if conns[i], err = net.Dial("unix", path); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	start := time.Now()
	for _, conn := range conns {
		all.Go(func() {
			in := bufio.NewReader(conn)
			for left.Add(-1) >= 0 {
				if _, err := conn.Write([]byte(smallCall)); err != nil {
					t.Error(err)
					return
				}
				if _, err := in.ReadSlice(0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return time.Since(start)
}

func BenchmarkSmallCalls(b *testing.B) {
	for _, clients := range []int{1, 50} {
		for name, serve := range map[string]func(testing.TB) string{"guarded": guarded, "bare": bareLibrary} {
			b.Run(fmt.Sprintf("%s/clients=%d", name, clients), func(b *testing.B) {
				path := serve(b)
				b.ReportAllocs()
				b.ResetTimer()
				d := calls(b, path, clients, b.N)
				b.ReportMetric(float64(b.N)/d.Seconds(), "calls/s")
			})
		}
	}
}

// How fast small calls are beside the bare library in the same run. Benchmarks are no tests: it fails only
// where there can be no doubt.
func TestSpeed(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("measured without -short and without the race detector")
	}
	ours, bare := guarded(t), bareLibrary(t)
	for _, clients := range []int{1, 50} {
		const n = 4000
		best := map[string]time.Duration{}
		for range 8 { // in turn, so that what else happens on the machine meets both
			for _, path := range []string{ours, bare} {
				if d := calls(t, path, clients, n); best[path] == 0 || d < best[path] {
					best[path] = d
				}
			}
		}
		rate := func(path string) float64 { return n / best[path].Seconds() }
		ratio := rate(ours) / rate(bare)
		t.Logf("measured: %d client(s): %.0f small calls/s, the bare library %.0f, ratio %.2f", clients, rate(ours), rate(bare), ratio)
		if ratio < 0.5 {
			t.Errorf("the guard costs more than half")
		}
	}
}
