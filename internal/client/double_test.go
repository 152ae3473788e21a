package client_test

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unmoor/unmoor/internal/client"
)

// double is a daemon that says what it is told to.
type double struct {
	address string
	quiet   time.Duration
	// gone is closed when a client's end of a connection was closed.
	gone chan struct{}
	once sync.Once
}

// answers maps a method, without its interface, to the messages that are sent in answer. After them the
// connection is left as it is, unless the last is hangUp.
type answers map[string][]string

const (
	hangUp = "(hang up)"
	info   = `{"parameters":{"vendor":"v","product":"Unmoor","version":"1.2","url":"u","interfaces":["org.varlink.service","io.unmoor.Removal"]}}`
)

// serve starts a double. Where answers has no GetInfo, it has the right one.
func serve(t *testing.T, answers answers) *double {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	d := &double{address: "unix:" + path, quiet: 20 * time.Second, gone: make(chan struct{})}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			wg.Go(func() { d.converse(conn, answers) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return d
}

func (d *double) converse(conn net.Conn, answers answers) {
	in := bufio.NewReader(conn)
	for {
		message, err := in.ReadString(0)
		if err != nil {
			d.once.Do(func() { close(d.gone) })
			return
		}
		var call struct{ Method string }
		if json.Unmarshal([]byte(strings.TrimSuffix(message, "\x00")), &call) != nil {
			conn.Close()
			return
		}
		method := call.Method[strings.LastIndexByte(call.Method, '.')+1:]
		texts, ok := answers[method]
		if !ok && method == "GetInfo" {
			texts = []string{info}
		}
		for _, text := range texts {
			if text == hangUp {
				conn.Close()
				return
			}
			if _, err := conn.Write(append([]byte(text), 0)); err != nil {
				return
			}
		}
	}
}

func (d *double) dial(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), d.address, client.Options{Patience: 20 * time.Second, Quiet: d.quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
