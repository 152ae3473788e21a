package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore/storetest"
	"github.com/unmoor/unmoor/internal/wire"
)

// servant is `unmoor serve` as a process of its own, on a real store.
type servant struct {
	*testing.T
	process *exec.Cmd
	stderr  *screen
	dir     string
	socket  string
	config  string
	// told are the messages to the service manager, of which this is a double.
	told  <-chan string
	ended chan struct{}
}

// quiet is a configuration that asks no engine of this machine.
const quiet = `[plugin.podman]
enabled = false
[plugin.buildah]
enabled = false
[plugin.crio]
enabled = false
`

// newServant makes what startServant starts. more is added to its configuration.
func newServant(t *testing.T, f *storetest.Fixture, more string) *servant {
	t.Helper()
	s := &servant{T: t, stderr: new(screen), dir: t.TempDir(), ended: make(chan struct{})}
	s.socket, s.config = filepath.Join(s.dir, "run/socket"), filepath.Join(s.dir, "config.toml")
	s.configure(f, more)
	notify := filepath.Join(s.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: notify})
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1000)
	s.told = told
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			told <- string(b[:n])
		}
	}()
	t.Cleanup(func() { conn.Close(); <-reading })
	program, err := exec.LookPath("unmoor") // this test's own, see TestMain
	if err != nil {
		t.Fatal(err)
	}
	s.process = exec.Command(program, "--config", s.config, "serve")
	s.process.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify, "XDG_STATE_HOME="+s.dir)
	s.process.Stderr = s.stderr
	return s
}

// configure writes the configuration.
func (s *servant) configure(f *storetest.Fixture, more string) {
	s.Helper()
	text := fmt.Sprintf("%s\n%s[store]\nroot = %q\nrunroot = %q\ndriver = \"overlay\"\n[service]\nsocket = %q\n[audit]\nfile = %q\n[plugins]\ndirectory = %q\nhints = %q\n",
		more, quiet, f.Options.GraphRoot, f.Options.RunRoot, s.socket, s.dir+"/log/audit.log", s.dir+"/plugins", s.dir+"/hints")
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
}

func (s *servant) start() {
	s.Helper()
	if err := s.process.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		_ = s.process.Wait() // exit looks at what became of it
		close(s.ended)
	}()
	s.Cleanup(func() {
		_ = s.process.Process.Kill() // gone already: as good
		<-s.ended
		if s.Failed() {
			s.Logf("the service said:\n%s", s.stderr)
		}
	})
}

// serving starts a service and waits until it is ready.
func startServant(t *testing.T, f *storetest.Fixture, more string) *servant {
	t.Helper()
	s := newServant(t, f, more)
	s.start()
	s.wait("READY=1")
	return s
}

// wait waits for a message that begins so.
func (s *servant) wait(prefix string) string {
	s.Helper()
	for {
		select {
		case m := <-s.told:
			if strings.HasPrefix(m, prefix) {
				return m
			}
		case <-s.ended:
			s.Fatalf("it ended before it told %s:\n%s", prefix, s.stderr)
		case <-time.After(20 * time.Second):
			s.Fatalf("it did not tell %s:\n%s", prefix, s.stderr)
		}
	}
}

func (s *servant) signal(sig syscall.Signal) {
	s.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		s.Fatal(err)
	}
}

// exit waits for the end.
func (s *servant) exit() *os.ProcessState {
	s.Helper()
	select {
	case <-s.ended:
	case <-time.After(20 * time.Second):
		s.Fatalf("it did not end:\n%s", s.stderr)
	}
	return s.process.ProcessState
}

func (s *servant) dial() *wire.Conn {
	s.Helper()
	c, err := wire.Dial(s.Context(), "unix:"+s.socket, wire.DialOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { c.Close() })
	return c
}

type object = map[string]any

// call makes a call with more, and returns all answers, or the error's name and its parameters.
func (s *servant) call(method string, in object) (answers []object, failed string, parameters object) {
	s.Helper()
	return callOn(s, s.dial(), method, in)
}

func callOn(s *servant, c *wire.Conn, method string, in object) (answers []object, failed string, parameters object) {
	s.Helper()
	err := c.Stream(s.Context(), "io.unmoor.Removal."+method, in, func(p json.RawMessage, _ bool) error {
		var o object
		err := json.Unmarshal(p, &o)
		answers = append(answers, o)
		return err
	})
	if reply, ok := errors.AsType[*wire.Error](err); ok {
		if err := json.Unmarshal(reply.Parameters, &parameters); err != nil && len(reply.Parameters) > 0 {
			s.Error(err)
		}
		return answers, strings.TrimPrefix(reply.Name, "io.unmoor.Removal."), parameters
	}
	if err != nil {
		s.Error(err)
	}
	return answers, "", nil
}

func TestServe(t *testing.T) {
	f := storetest.New(t, "overlay")
	web := f.AddImage(storetest.Image{Names: []string{"localhost/web:1"}, Files: map[string]string{"etc/name": "web"}})
	leftover := f.AddContainer(web, storetest.Container{Names: []string{"leftover"}})
	f.Mount(leftover)
	s := newServant(t, f, "")
	// The umask does not keep others from the socket.
	s.process.Args = append([]string{"sh", "-c", `umask 077; exec "$@"`, "sh", s.process.Path}, s.process.Args[1:]...)
	s.process.Path = "/bin/sh"
	s.start()
	s.wait("READY=1")

	answers, failed, _ := s.call("GetStore", object{})
	if failed != "" || answers[0]["graphRoot"] != f.Options.GraphRoot || answers[0]["graphDriver"] != "overlay" {
		t.Errorf("%v %s", answers, failed)
	}
	if info, err := os.Stat(s.socket); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket: %v %v", info, err)
	}
	if info, err := os.Stat(filepath.Dir(s.socket)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("its directory: %v %v", info, err)
	}
	if answers, failed, _ = s.call("ListContainers", object{}); failed != "" || len(answers) != 1 || answers[0]["container"].(object)["use"] != "idle" {
		t.Errorf("%v %s", answers, failed)
	}
	if _, failed, p := s.call("RemoveImage", object{"image": "localhost/web:1"}); failed != "Blocked" || p["blockers"].([]any)[0].(object)["container"] != string(leftover) {
		t.Errorf("without force: %s %v", failed, p)
	}
	answers, failed, _ = s.call("RemoveImage", object{"image": "localhost/web:1", "force": "idle"})
	if failed != "" {
		t.Fatal(failed)
	}
	var verbs []string
	for _, a := range answers[:len(answers)-1] {
		verbs = append(verbs, a["action"].(object)["verb"].(string))
	}
	last := answers[len(answers)-1]
	if got := strings.Join(verbs, " "); got != "unmount delete_container untag delete_image" ||
		last["deletedImages"].([]any)[0] != string(web) || last["deletedContainers"].([]any)[0] != string(leftover) {
		t.Errorf("%s: %v", got, last)
	}
	if answers, _, _ = s.call("ListImages", object{}); answers[0]["image"] != nil {
		t.Errorf("an image is left: %v", answers)
	}
	log, err := os.ReadFile(s.dir + "/log/audit.log")
	if err != nil || strings.Count(string(log), "\n") != 4 || !strings.Contains(string(log), `"event":"ended","method":"RemoveImage"`) ||
		!strings.Contains(string(log), fmt.Sprintf(`"pid":%d`, os.Getpid())) {
		t.Errorf("the audit log (%v):\n%s", err, log)
	}

	second := newServant(t, f, "")
	second.process.Args = append(second.process.Args, "--socket", s.socket)
	second.start()
	if state := second.exit(); state.ExitCode() != exitOther || !strings.Contains(second.stderr.String(), "another process serves it") {
		t.Errorf("a second one: %s: %s", state, second.stderr)
	}
	if _, failed, _ := s.call("GetStore", object{}); failed != "" {
		t.Errorf("the first one, after that: %s", failed)
	}

	s.signal(syscall.SIGTERM)
	s.wait("STOPPING=1")
	if state := s.exit(); state.ExitCode() != 0 {
		t.Errorf("%s", state)
	}
	if _, err := os.Lstat(s.socket); err == nil {
		t.Error("the socket is still there")
	}
	f.Clean()
}

// TestServeJournal: what went is in the journal, where nothing else is below a warning.
func TestServeJournal(t *testing.T) {
	f := storetest.New(t, "overlay")
	web := f.AddImage(storetest.Image{Names: []string{"localhost/web:1"}})
	s := newServant(t, f, "")
	stream, err := os.Create(filepath.Join(s.dir, "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(stream.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	s.process.Stderr = stream
	s.process.Env = append(s.process.Env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", stat.Dev, stat.Ino))
	s.start()
	s.wait("READY=1")
	if _, failed, _ := s.call("RemoveImage", object{"image": "localhost/web:1"}); failed != "" {
		t.Fatal(failed)
	}
	s.signal(syscall.SIGTERM)
	s.exit()
	text, err := os.ReadFile(stream.Name())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], "<6>msg=image_untagged ") ||
		!strings.HasPrefix(lines[1], "<6>msg=image_removed ") || !strings.Contains(lines[1], " image="+string(web)) ||
		!strings.Contains(lines[1], fmt.Sprintf(" uid=%d ", os.Getuid())) {
		t.Errorf("the journal:\n%s", text)
	}
	f.Clean()
}

func TestServeReload(t *testing.T) {
	f := storetest.New(t, "overlay")
	f.AddImage(storetest.Image{Names: []string{"localhost/web:1"}})
	s := startServant(t, f, "")

	s.configure(f, "[protect]\nimages = [\"localhost/*\"]\n[access]\nread = [\"*\"]\n[log]\nlevel = \"info\"\n")
	s.signal(syscall.SIGHUP)
	if m := s.wait("RELOADING=1"); !strings.Contains(m, "\nMONOTONIC_USEC=") {
		t.Errorf("%q", m)
	}
	if m := s.wait("READY=1"); strings.Contains(m, "not taken") {
		t.Errorf("%q", m)
	}
	if _, failed, p := s.call("RemoveImage", object{"image": "localhost/web:1"}); failed != "Blocked" || p["blockers"].([]any)[0].(object)["reason"] != "protected" {
		t.Errorf("what is protected now: %s %v", failed, p)
	}

	// The audit log cannot be opened where a file is in the way of its directory.
	for name, more := range map[string]string{"no TOML": "[store\n", "an unknown key": "[removal]\ngrace = 1\n", "no such engine": "[plugin.x]\naddress = \"tcp:\"\n"} {
		s.configure(f, more)
		s.signal(syscall.SIGHUP)
		s.wait("RELOADING=1")
		if m := s.wait("READY=1"); !strings.Contains(m, "not taken") || !strings.Contains(m, s.config+":") {
			t.Errorf("%s: %q", name, m)
		}
	}
	s.configure(f, "")
	text, err := os.ReadFile(s.config)
	if err != nil {
		t.Fatal(err)
	}
	wrong := strings.ReplaceAll(string(text), s.dir+"/log/audit.log", s.config+"/audit.log")
	if err := os.WriteFile(s.config, []byte(wrong), 0o600); err != nil {
		t.Fatal(err)
	}
	s.signal(syscall.SIGHUP)
	s.wait("RELOADING=1")
	if m := s.wait("READY=1"); !strings.Contains(m, "not taken") || !strings.Contains(m, "open the audit log") {
		t.Errorf("%q", m)
	}
	if _, failed, _ := s.call("RemoveImage", object{"image": "localhost/web:1"}); failed != "Blocked" {
		t.Errorf("the configuration before is not in force: %s", failed)
	}

	s.configure(f, "")
	s.signal(syscall.SIGHUP)
	s.wait("RELOADING=1")
	s.wait("READY=1")
	if _, failed, _ := s.call("RemoveImage", object{"image": "localhost/web:1"}); failed != "" {
		t.Errorf("what is no longer protected: %s", failed)
	}
	s.signal(syscall.SIGTERM)
	if state := s.exit(); state.ExitCode() != 0 {
		t.Errorf("%s", state)
	}
}

// busy makes an image with a container that a process uses, which does not end by SIGTERM.
func busy(t *testing.T, f *storetest.Fixture) core.ContainerID {
	t.Helper()
	image := f.AddImage(storetest.Image{Names: []string{"localhost/busy:1"}})
	c := f.AddContainer(image, storetest.Container{Names: []string{"busy"}})
	holder := exec.Command("sh", "-c", `trap "" TERM; echo ready; while :; do sleep 1000; done`)
	holder.Dir = f.Mount(c)
	holder.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := holder.StdoutPipe()
	if err == nil {
		err = holder.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = holder.Wait() // killed: by the removal or below
		close(ended)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-holder.Process.Pid, syscall.SIGKILL) // gone already: as good
		<-ended
	})
	return c
}

// TestServeStopsInARemoval: it waits for nobody's grace period, and the caller learns how far it came.
func TestServeStopsInARemoval(t *testing.T) {
	f := storetest.New(t, "overlay")
	c := busy(t, f)
	s := startServant(t, f, "")
	conn := s.dial()
	began := make(chan struct{})
	type result struct {
		failed     string
		parameters object
	}
	results := make(chan result)
	go func() {
		var r result
		_, r.failed, r.parameters = callOn(s, conn, "RemoveImage", object{"image": "localhost/busy:1", "force": "kill", "gracePeriodMs": 600000})
		results <- r
	}()
	go func() {
		defer close(began)
		err := s.dial().Stream(t.Context(), "io.unmoor.Removal.Monitor", object{"afterSequence": 0}, func(p json.RawMessage, _ bool) error {
			if bytes.Contains(p, []byte("action_started")) {
				return errors.New("enough")
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "enough") {
			t.Errorf("watch: %v", err)
		}
	}()
	<-began
	s.signal(syscall.SIGTERM)
	r := <-results
	if r.failed != "Incomplete" {
		t.Fatalf("%s %v", r.failed, r.parameters)
	}
	failure := r.parameters["failures"].([]any)[0].(object)
	if len(r.parameters["done"].([]any)) != 0 || failure["action"].(object)["verb"] != "kill" || failure["problem"].(object)["reason"] != "canceled" {
		t.Errorf("%v", r.parameters)
	}
	if state := s.exit(); state.ExitCode() != 0 {
		t.Errorf("%s", state)
	}
	// The same removal goes on from there.
	again := startServant(t, f, "")
	if answers, failed, p := again.call("RemoveImage", object{"image": "localhost/busy:1", "force": "kill", "gracePeriodMs": 0}); failed != "" ||
		answers[len(answers)-1]["deletedContainers"].([]any)[0] != string(c) {
		t.Errorf("%v %s %v", answers, failed, p)
	}
	f.Clean()
}

// TestServeEndsAtOnce by a second signal, while it waits for what cannot be broken off: another program
// holds the store's lock.
func TestServeEndsAtOnce(t *testing.T) {
	f := storetest.New(t, "overlay")
	f.AddImage(storetest.Image{Names: []string{"localhost/web:1"}})
	s := startServant(t, f, "")
	lock, err := os.OpenFile(filepath.Join(f.Options.GraphRoot, "overlay-layers/layers.lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	// The service may just be looking at the store.
	if err := unix.FcntlFlock(lock.Fd(), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, `{"method":"io.unmoor.Removal.RemoveImage","parameters":{"image":"localhost/web:1"},"oneway":true}`+"\x00")
	eventually(t, "it waits for the lock", func() bool { return waitsForLock(t, s.process.Process.Pid) })
	s.signal(syscall.SIGTERM)
	s.wait("STOPPING=1")
	if isOver(s.ended, 100*time.Millisecond) {
		t.Fatalf("it did not wait: %s", s.process.ProcessState)
	}
	s.signal(syscall.SIGTERM)
	if state := s.exit(); state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("%s", state)
	}
}

// TestServeEndsWithItsLocks: where the storage library breaks, it may hold locks that only the end of the
// process releases; the service manager starts it again.
func TestServeEndsWithItsLocks(t *testing.T) {
	f := storetest.New(t, "overlay")
	f.AddContainer(f.AddImage(storetest.Image{Names: []string{"localhost/web:1"}}), storetest.Container{})
	s := startServant(t, f, "")
	path := filepath.Join(f.Options.GraphRoot, "overlay-containers", "containers.lock")
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	// Whoever looks at the store first has it break, the service's own watch or a caller, who may get no answer
	// then.
	c, err := wire.Dial(t.Context(), "unix:"+s.socket, wire.DialOptions{})
	if err == nil {
		err = c.Stream(t.Context(), "io.unmoor.Removal.ListContainers", nil, func(json.RawMessage, bool) error { return nil })
		defer c.Close()
	}
	if err == nil {
		t.Error("a store that is broken was listed")
	}
	s.wait("STOPPING=1")
	if state := s.exit(); state.ExitCode() != exitOther || !strings.Contains(s.stderr.String(), "locks are released") {
		t.Errorf("%s: %s", state, s.stderr)
	}
}

// waitsForLock is whether a process is in /proc/locks behind somebody's lock.
func waitsForLock(t *testing.T, pid int) bool {
	t.Helper()
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(locks)) {
		if f := strings.Fields(line); len(f) > 5 && f[1] == "->" && f[5] == fmt.Sprint(pid) {
			return true
		}
	}
	return false
}

// isOver is whether a channel is closed within a time in which it should not be.
func isOver(c <-chan struct{}, within time.Duration) bool {
	select {
	case <-c:
		return true
	case <-time.After(within):
		return false
	}
}

// passedIn starts the service with a socket as the service manager passes it.
func passedIn(t *testing.T, f *storetest.Fixture, socket *os.File) *servant {
	t.Helper()
	s := newServant(t, f, "")
	program := s.process.Path
	s.process = &exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", program, "--config", s.config, "serve"},
		Env: append(s.process.Env, "LISTEN_FDS=1", "LISTEN_FDNAMES=varlink"), Stderr: s.stderr, ExtraFiles: []*os.File{socket}}
	s.start()
	s.wait("READY=1")
	return s
}

func TestServeActivated(t *testing.T) {
	f := storetest.New(t, "overlay")
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := passedIn(t, f, file)
	if _, err := os.Lstat(s.socket); err == nil {
		t.Error("it listens on a socket of its own, too")
	}
	s.socket = path
	if answers, failed, _ := s.call("GetStore", object{}); failed != "" || answers[0]["graphRoot"] != f.Options.GraphRoot {
		t.Errorf("%v %s", answers, failed)
	}
	s.signal(syscall.SIGTERM)
	if state := s.exit(); state.ExitCode() != 0 {
		t.Errorf("%s", state)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the service manager's socket is gone: %v", err)
	}
}

// TestServeConnection: with exec: a client brings the connection, and the service ends with it.
func TestServeConnection(t *testing.T) {
	f := storetest.New(t, "overlay")
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	s := passedIn(t, f, theirs)
	theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	c := wire.NewConn(conn, wire.DialOptions{})
	if answers, failed, _ := callOn(s, c, "GetStore", object{}); failed != "" || answers[0]["graphRoot"] != f.Options.GraphRoot {
		t.Errorf("%v %s", answers, failed)
	}
	if _, err := os.Lstat(s.socket); err == nil {
		t.Error("it listens on a socket, too")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if state := s.exit(); state.ExitCode() != 0 {
		t.Errorf("%s", state)
	}
}

func TestServeRefuses(t *testing.T) {
	f := storetest.New(t, "overlay")
	for name, tt := range map[string]struct {
		prepare func(*servant)
		want    string
	}{
		"what is no socket": {func(s *servant) {
			if err := os.MkdirAll(s.socket, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "no socket"},
		"no store":        {func(s *servant) { s.process.Args = append(s.process.Args, "--root", s.dir+"/none") }, "no store at"},
		"a client's flag": {func(s *servant) { s.process.Args = append(s.process.Args, "--local") }, "leave --url and --local out"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServant(t, f, "")
			tt.prepare(s)
			s.start()
			if state := s.exit(); state.ExitCode() != exitOther || !strings.Contains(s.stderr.String(), tt.want) {
				t.Errorf("%s: %s", state, s.stderr)
			}
		})
	}
}

// TestServeWatchdog: the service manager hears of it while it answers.
func TestServeWatchdog(t *testing.T) {
	f := storetest.New(t, "overlay")
	s := newServant(t, f, "")
	s.process.Env = append(s.process.Env, "WATCHDOG_USEC=1000000")
	s.start()
	s.wait("READY=1")
	for range 2 {
		s.wait("WATCHDOG=1")
	}
}

// TestServeIdles: nobody wakes up, and little memory is held, where nothing is asked.
func TestServeIdles(t *testing.T) {
	if testing.Short() {
		t.Skip("a binary with the race detector holds more")
	}
	f := storetest.New(t, "overlay")
	s := startServant(t, f, "")
	if _, failed, _ := s.call("ListImages", object{}); failed != "" {
		t.Error(failed)
	}
	pid := s.process.Process.Pid
	const quietFor = 3 * time.Second
	before := switches(t, pid)
	time.Sleep(quietFor)
	after := switches(t, pid)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb int
	for line := range strings.Lines(string(status)) {
		if n, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(n, &kb)
		}
	}
	t.Logf("%d MiB resident, %d wake-ups in %s", kb>>10, after-before, quietFor)
	if kb == 0 || kb > 40<<10 {
		t.Errorf("%d KiB are resident", kb)
	}
	if after-before > 30 {
		t.Errorf("%d wake-ups in %s", after-before, quietFor)
	}
}

// switches counts how often threads of a process went to sleep of their own accord.
func switches(t *testing.T, pid int) (n int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatal("no threads", err)
	}
	for _, f := range files {
		status, err := os.ReadFile(f)
		if err != nil {
			continue // it has just ended
		}
		for line := range strings.Lines(string(status)) {
			if v, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				var one int
				fmt.Sscan(v, &one)
				n += one
			}
		}
	}
	return n
}

// TestSignOfLife: what answers lives, and what hangs up; what is silent or away does not.
func TestSignOfLife(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := answers(ctx, filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("nobody is there, and is said to live")
	}
	silent := double(t, "GetInfo")
	if err := answers(ctx, silent); err == nil {
		t.Error("one that is silent is said to live")
	}
	if err := answers(t.Context(), double(t, "Nothing")); err != nil {
		t.Errorf("one that answers: %v", err)
	}
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for range 20 { // whether the call is sent before is a matter of chance
		if err := answers(t.Context(), path); err != nil {
			t.Errorf("one that hangs up: %v", err)
		}
	}
	l.Close()
	<-accepting
}
