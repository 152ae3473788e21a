package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/wire"
)

// dialAs connects as somebody else: with a thread that becomes that user and then ends.
func (s *scene) dialAs(uid, gid int, groups ...int) *wire.Conn {
	s.Helper()
	if os.Getuid() != 0 {
		lacking(s.T, "needs root, to call as other users")
	}
	dir := filepath.Dir(s.path)
	for path, mode := range map[string]os.FileMode{s.path: 0o666, dir: 0o755, filepath.Dir(dir): 0o755} {
		if err := os.Chmod(path, mode); err != nil {
			s.Fatal(err)
		}
	}
	type answer struct {
		fd  int
		err error
	}
	answers := make(chan answer)
	go func() {
		runtime.LockOSThread() // and never unlocked
		fd, err := connectAs(s.path, uid, gid, groups)
		answers <- answer{fd, err}
	}()
	a := <-answers
	if a.err != nil {
		s.Fatal(a.err)
	}
	f := os.NewFile(uintptr(a.fd), "socket")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		s.Fatal(err)
	}
	c := wire.NewConn(conn, wire.DialOptions{})
	s.Cleanup(func() { c.Close() })
	return c
}

// connectAs changes the thread alone: the library's functions change all threads.
func connectAs(path string, uid, gid int, groups []int) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	list := make([]uint32, len(groups)+1)
	for i, g := range groups {
		list[i] = uint32(g)
	}
	_, _, e1 := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&list[0])), 0)
	_, _, e2 := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
	_, _, e3 := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
	for _, e := range []unix.Errno{e1, e2, e3} {
		if e != 0 {
			return 0, e
		}
	}
	return fd, unix.Connect(fd, &unix.SockaddrUnix{Name: path})
}

// anyCall is one that the method takes.
func anyCall(method string) object {
	switch method {
	case "Plan", "Remove":
		return object{"targets": object{"images": []string{"none"}}}
	case "PlanPrune", "Prune":
		return object{"policy": object{}}
	case "RemoveImage":
		return object{"image": "none"}
	case "RemoveContainer":
		return object{"container": "none"}
	case "ListContainers":
		return object{"container": "none"}
	case "ListImages":
		return object{"image": "none"}
	case "Explain":
		return object{"reference": "none"}
	case "Build":
		return object{"build": object{"context": "/none"}}
	case "RegisterPlugin":
		return object{"address": "none"}
	case "UnregisterPlugin":
		return object{"name": "none"}
	}
	return object{}
}

const denied = "org.varlink.service.PermissionDenied"

// TestDenied: over a real socket, by the kernel's word, each method is for those that it is for.
func TestDenied(t *testing.T) {
	s := serve(t, newFakeService(0), Options{})
	access, err := NewAccess([]string{"4001"}, []string{"@5001"})
	if err != nil {
		t.Fatal(err)
	}
	s.daemon.Replace(&Setup{Service: newFakeService(0), Plugins: &fakePlugins{}, Access: access})
	stranger, reader, writer := s.dialAs(4000, 4000), s.dialAs(4001, 4001), s.dialAs(4002, 4002, 1, 5001)
	for _, method := range methods() {
		for name, tt := range map[string]struct {
			conn *wire.Conn
			may  []class
		}{
			"a stranger":        {stranger, nil},
			"one who may look":  {reader, []class{reading}},
			"one who may write": {writer, []class{reading, removing}},
			"root":              {s.dial(), []class{reading, removing, administering}},
		} {
			may := false
			for _, c := range tt.may {
				may = may || classes[method] == c
			}
			if _, failed := callOn(s, tt.conn, method, anyCall(method)); (failed == denied) == may {
				t.Errorf("%s: %s answers %s", name, method, failed)
			}
		}
	}
	if _, failed := s.answer(stranger.Call(t.Context(), methodPrefix+"Nothing", object{}, nil)); failed != "org.varlink.service.MethodNotFound" {
		t.Errorf("a method that there is not: %s", failed)
	}
	var info struct {
		Product string `json:"product"`
	}
	if err := stranger.Call(t.Context(), "org.varlink.service.GetInfo", object{}, &info); err != nil || info.Product != "Unmoor" {
		t.Errorf("who serves here, a stranger may know: %v %v", info, err)
	}
}

// TestDenialsAreWrittenDown, and cannot fill the log.
func TestDenialsAreWrittenDown(t *testing.T) {
	process := func(pid int) (core.Process, bool) {
		return core.Process{PID: pid, UID: 4000, Command: "varlinkctl call " + strings.Repeat("x", 1000), Unit: "session-1.scope", Cgroup: "/user.slice"}, true
	}
	s := serve(t, newFakeService(0), Options{})
	s.daemon.mu.Lock()
	s.setup.Process = process
	s.daemon.mu.Unlock()
	c := s.dialAs(4000, 4003)
	for range 50 {
		if _, failed := callOn(s, c, "RemoveImage", object{"image": "localhost/web:1"}); failed != denied {
			t.Fatal(failed)
		}
	}
	callOn(s, c, "GetStore", nil)
	r := s.records()
	if words(r) != "denied RemoveImage, denied GetStore" {
		t.Fatalf("the audit log has %s", words(r))
	}
	who := r[0].Caller
	if who.UID != 4000 || who.GID != 4003 || who.PID != os.Getpid() || who.Unit != "session-1.scope" || who.Cgroup != "/user.slice" ||
		!strings.HasPrefix(who.Command, "varlinkctl call") || len(who.Command) > recordText+10 || r[1].Unwritten != 49 {
		t.Errorf("%+v, unwritten %d", who, r[1].Unwritten)
	}
}

// TestPidOfAnother: what has the pid by now is not taken for the caller where it is another user's.
func TestPidOfAnother(t *testing.T) {
	s := &Setup{Process: func(pid int) (core.Process, bool) {
		return core.Process{PID: pid, UID: 7, Command: "mallory"}, true
	}}
	if r := s.recordCaller(t.Context(), ordinary(8)); r.UID != 8 || r.Command != "" {
		t.Errorf("%+v", r)
	}
	if r := s.recordCaller(t.Context(), ordinary(7)); r.Command != "mallory" {
		t.Errorf("%+v", r)
	}
	if r := s.recordCaller(t.Context(), root); r.User != "root" {
		t.Errorf("%+v", r)
	}
}

func TestDenialsAreFew(t *testing.T) {
	var n denials
	now := time.Unix(1000, 0)
	written, told := 0, 0
	for uid := range 1000 {
		for _, method := range []string{"Remove", "Remove", "Plan"} {
			if unwritten, write := n.note(denial{uid, method}, now); write {
				written++
				told += unwritten
			}
		}
	}
	if written != denialsMost {
		t.Errorf("%d were written", written)
	}
	unwritten, write := n.note(denial{1, "Remove"}, now.Add(denialWindow))
	if told += unwritten; !write || told != 3000-denialsMost {
		t.Errorf("in the next window: %v, %d in all", write, told)
	}
}

// TestRecordsAreBounded: who asks for a lot cannot have it all written down.
func TestRecordsAreBounded(t *testing.T) {
	var long []string
	for i := range 10 * recordEntries {
		long = append(long, fmt.Sprint(i, strings.Repeat("x", 10*recordText)))
	}
	got := clips(long)
	if len(got) != recordEntries+1 || len(got[0]) > recordText+10 || !strings.HasSuffix(got[recordEntries], " more") {
		t.Errorf("%d entries, the first of %d bytes, the last %q", len(got), len(got[0]), got[len(got)-1])
	}
	if s := clip(strings.Repeat("é", recordText)); !strings.HasSuffix(s, "é…") {
		t.Errorf("cut within a letter: %q", s[len(s)-10:])
	}
	out := &core.Result{}
	for range 3 * recordEntries {
		out.Done = append(out.Done, core.Action{Verb: core.VerbUntag})
		out.Failed = append(out.Failed, core.Failure{Err: errors.New("x")})
	}
	r := recordResult(result{outcome: outcomeOf(*out)})
	if n := len(r.Done) + len(r.Failures); n != recordEntries || r.Omitted != 5*recordEntries {
		t.Errorf("%d entries, %d omitted", n, r.Omitted)
	}
}
