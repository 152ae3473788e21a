package hooks_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/hooks"
)

// rawPlugin is a double of a plugin: a socket that writes what its functions say, byte for byte.
type rawPlugin struct {
	name     string
	listener net.Listener
	// on are what it does about each method, by its last part; a method that is missing is answered as a
	// good plugin would that owns nothing.
	on map[string]answerer

	mu    sync.Mutex
	calls map[string]int
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// answerer answers one call; more is whether it may be in several replies. After false the connection is
// closed.
type answerer func(c net.Conn, in request) bool

type request struct {
	Method     string
	More       bool
	Parameters struct {
		Containers    []struct{ ID string }
		Images        []struct{ ID string }
		Handles       []struct{ Container struct{ ID string } }
		GracePeriodMs json.Number
	}
}

// ids are what is asked about.
func (r request) ids() []string {
	var all []string
	for _, c := range r.Parameters.Containers {
		all = append(all, c.ID)
	}
	for _, i := range r.Parameters.Images {
		all = append(all, i.ID)
	}
	for _, h := range r.Parameters.Handles {
		all = append(all, h.Container.ID)
	}
	return all
}

// serveRaw serves a plugin at NAME.sock in the directory until the test ends.
func serveRaw(t testing.TB, directory, name string, on map[string]answerer) *rawPlugin {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(directory, name+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	p := &rawPlugin{name: name, listener: l, on: on, calls: make(map[string]int), conns: make(map[net.Conn]bool)}
	p.wg.Go(p.serve)
	t.Cleanup(p.close)
	return p
}

func (p *rawPlugin) address() string { return "unix:" + p.listener.Addr().String() }

func (p *rawPlugin) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns[c] = true
		p.mu.Unlock()
		p.wg.Go(func() {
			p.converse(c)
			c.Close()
			p.mu.Lock()
			delete(p.conns, c)
			p.mu.Unlock()
		})
	}
}

// close ends it as the death of a process does.
func (p *rawPlugin) close() {
	p.listener.Close()
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *rawPlugin) converse(c net.Conn) {
	in := bufio.NewReader(c)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var r request
		if err := json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &r); err != nil {
			panic(err)
		}
		method := r.Method[strings.LastIndexByte(r.Method, '.')+1:]
		p.mu.Lock()
		p.calls[method]++
		p.mu.Unlock()
		answer := p.on[method]
		if answer == nil {
			answer = honest(p.name)[method]
		}
		if !answer(c, r) {
			return
		}
	}
}

// called is how often a method was.
func (p *rawPlugin) called(method string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[method]
}

const testHint = `{"metadataKey":"image-name","metadataKeyAbsent":"pod-id"}`

// describing is the description of a plugin with the hint of these tests.
func describing(name string) string {
	return fmt.Sprintf(`{"name":%q,"engine":%q,"engineVersion":"1.2","protocolVersions":[1],"capabilities":["stop","remove","pin","list","build"],"claimHints":[%s],"ready":true}`,
		name, name, testHint)
}

// honest are the answers of a good plugin that owns nothing.
func honest(name string) map[string]answerer {
	return map[string]answerer{
		"Describe": described(describing(name)),
		"Claim":    each("reports", `{"id":%q,"ownership":"not_mine","evidence":[]}`),
		"Pins":     each("pins", `{"id":%q,"pinned":"no"}`),
		"Stop":     each("outcomes", `{"id":%q}`),
		"Remove":   each("outcomes", `{"id":%q,"storageRemoved":true}`),
		"List":     saying1(`{"parameters":{"reports":[]}}`),
		"Build":    saying1(`{"parameters":{"lines":["built"],"imageId":"` + string(id(7)) + `"}}`),
	}
}

// described gives a description, and keeps the call open where that is wanted.
func described(description string) answerer {
	return func(c net.Conn, r request) bool {
		if !r.More {
			return send(c, `{"parameters":`+description+`}`)
		}
		return send(c, `{"continues":true,"parameters":`+description+`}`)
	}
}

// saying1 says one message.
func saying1(message string) answerer {
	return func(c net.Conn, _ request) bool { return send(c, message) }
}

// each gives an item for each id that is asked about.
func each(list, item string) answerer {
	return about(list, func(ids []string) []string {
		var items []string
		for _, id := range ids {
			items = append(items, fmt.Sprintf(item, id))
		}
		return items
	})
}

// about gives a list made of the ids that are asked about.
func about(list string, items func(ids []string) []string) answerer {
	return func(c net.Conn, r request) bool {
		return send(c, fmt.Sprintf(`{"parameters":{%q:[%s]}}`, list, strings.Join(items(r.ids()), ",")))
	}
}

func send(c net.Conn, message string) bool {
	_, err := c.Write(append([]byte(message), 0))
	return err == nil
}

// with are the answers of a good plugin, but for some.
func with(method string, a answerer) map[string]answerer { return map[string]answerer{method: a} }

// socketEntry is a configured plugin at an address, with the deadlines of these tests and without hints.
func socketEntry(name, address string) hooks.Entry {
	return hooks.Entry{Name: name, Address: address,
		ClaimTimeout: 5 * time.Second, StopMargin: 5 * time.Second, RemoveTimeout: 5 * time.Second}
}

// theStore is one that can be named to a plugin on a socket.
var theStore = core.StoreInfo{GraphRoot: "/var/lib/containers/storage", RunRoot: "/run/containers/storage", GraphDriver: "overlay"}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// noLeaks fails the test where more goroutines or descriptors are left at its end than there were.
func noLeaks(t testing.TB) {
	t.Helper()
	goroutines, descriptors := runtime.NumGoroutine(), countDescriptors(t)
	t.Cleanup(func() {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			g, d := runtime.NumGoroutine(), countDescriptors(t)
			if g <= goroutines && d <= descriptors {
				return
			}
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines and %d descriptors became %d and %d:\n%s", goroutines, descriptors, g, d,
					stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
}

func countDescriptors(t testing.TB) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// sendDescriptors sends a message with a descriptor.
func sendDescriptors(c net.Conn, message string) bool {
	null, err := os.Open("/dev/null")
	if err != nil {
		panic(err)
	}
	defer null.Close()
	_, _, err = c.(*net.UnixConn).WriteMsgUnix(append([]byte(message), 0), unix.UnixRights(int(null.Fd())), nil)
	return err == nil
}
