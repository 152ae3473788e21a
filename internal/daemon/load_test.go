package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/wire"
)

// with makes a call with descriptors and more, and returns all answers.
func (s *scene) with(c *wire.Conn, method string, in any, files ...*os.File) (answers []object, failed string, parameters object) {
	s.Helper()
	err := c.StreamWith(s.Context(), methodPrefix+method, in, files, func(p json.RawMessage, _ bool) error {
		var o object
		err := json.Unmarshal(p, &o)
		answers = append(answers, o)
		return err
	})
	if err != nil {
		parameters, failed = s.answer(err)
	}
	return answers, failed, parameters
}

// asking has a descriptor loaded, until the connection is closed. The result is closed then.
func (s *scene) asking(c *wire.Conn, file *os.File) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.StreamWith(s.Context(), methodPrefix+"Load", object{"fileDescriptor": 0}, []*os.File{file}, nil) // it is closed
	}()
	return done
}

// opened is a file with contents, opened.
func opened(t *testing.T, content string, flags int) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// filled is a pipe or a socket that gives contents and ends.
func filled(t *testing.T, socket bool, content string) *os.File {
	t.Helper()
	var pair [2]int
	var err error
	if socket {
		pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	} else {
		err = unix.Pipe2(pair[:], unix.O_CLOEXEC)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(pair[0]), "r"), os.NewFile(uintptr(pair[1]), "w")
	t.Cleanup(func() { r.Close() })
	_, err = io.WriteString(w, content)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestLoad(t *testing.T) {
	s := serve(t, newFakeService(0), Options{})
	access, err := NewAccess(nil, []string{"4002"})
	if err != nil {
		t.Fatal(err)
	}
	s.daemon.Replace(&Setup{Service: s.setup.Service, Plugins: &fakePlugins{}, Access: access})
	root, writer := s.dial(), s.dialAs(4002, 4002)
	directory, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	moved := opened(t, "content", os.O_RDONLY)
	if _, err := moved.Seek(3, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	first := object{"fileDescriptor": 0, "name": "n"}
	for name, tt := range map[string]struct {
		conn  *wire.Conn
		in    object
		files []*os.File
		// want is what was read, or the error.
		want string
	}{
		"root's file is read where it lies":        {root, first, []*os.File{opened(t, "content", os.O_RDONLY)}, "file content"},
		"another user's is read by its descriptor": {writer, first, []*os.File{opened(t, "content", os.O_RDONLY)}, "stream content"},
		"from where it stands":                     {root, first, []*os.File{moved}, "stream tent"},
		"a file that may be written to":            {writer, first, []*os.File{opened(t, "content", os.O_RDWR)}, "stream content"},
		"the second one":                           {root, object{"fileDescriptor": 1, "name": "n"}, []*os.File{opened(t, "a", os.O_RDONLY), opened(t, "b", os.O_RDONLY)}, "file b"},
		"a pipe":                                   {writer, first, []*os.File{filled(t, false, "content")}, "stream content"},
		"a socket":                                 {writer, first, []*os.File{filled(t, true, "content")}, "stream content"},
		"root's directory":                         {root, first, []*os.File{directory}, "directory"},
		"root's path":                              {root, object{"path": moved.Name(), "name": "n"}, nil, "file content"},
		"another user's directory":                 {writer, first, []*os.File{directory}, "OperationFailed"},
		"another user's path":                      {writer, object{"path": moved.Name()}, nil, "OperationFailed"},
		"one that cannot be read":                  {writer, first, []*os.File{opened(t, "content", os.O_WRONLY)}, "org.varlink.service.InvalidParameter"},
		"a mere place":                             {root, first, []*os.File{opened(t, "content", unix.O_PATH)}, "org.varlink.service.InvalidParameter"},
		"a device":                                 {root, first, []*os.File{null}, "org.varlink.service.InvalidParameter"},
		"none":                                     {root, first, nil, "org.varlink.service.InvalidParameter"},
		"neither":                                  {root, object{}, []*os.File{moved}, "org.varlink.service.InvalidParameter"},
		"both":                                     {root, object{"path": "/x", "fileDescriptor": 0}, []*os.File{moved}, "org.varlink.service.InvalidParameter"},
		"a negative one":                           {root, object{"fileDescriptor": -1}, []*os.File{moved}, "org.varlink.service.InvalidParameter"},
		"a path that is not absolute":              {root, object{"path": "x"}, nil, "org.varlink.service.InvalidParameter"},
		"a bound that makes no sense":              {root, object{"fileDescriptor": 0, "maxBytes": 0}, []*os.File{moved}, "org.varlink.service.InvalidParameter"},
	} {
		answers, failed, _ := s.with(tt.conn, "Load", tt.in, tt.files...)
		if failed != "" {
			if failed != tt.want {
				t.Errorf("%s: %s", name, failed)
			}
			continue
		}
		last := answers[len(answers)-1]
		image, ok := last["images"].([]any)
		if !ok || image[0].(object)["names"].([]any)[0] != tt.want || image[0].(object)["names"].([]any)[1] != "n" || image[0].(object)["id"] != id(7) {
			t.Errorf("%s: %v", name, answers)
		}
	}
	for _, f := range []*os.File{moved, directory} {
		if _, err := f.Stat(); err != nil {
			t.Error(err)
		}
	}
}

func TestImport(t *testing.T) {
	s := serve(t, newFakeService(0), Options{})
	answers, failed, _ := s.with(s.dial(), "Import", object{"fileDescriptor": 0, "name": "n", "changes": []string{"CMD x"}, "message": "m", "os": "o",
		"architecture": "a", "variant": "v", "maxBytes": 500}, opened(t, "content", os.O_RDONLY))
	if failed != "" || len(answers) != 2 {
		t.Fatalf("%v %s", answers, failed)
	}
	if p := answers[0]["progress"].(object); p["digest"] != "sha256:1" || p["size"] != 4.0 || p["done"] != false {
		t.Errorf("progress: %v", answers[0])
	}
	var names []string
	for _, n := range answers[1]["image"].(object)["names"].([]any) {
		names = append(names, n.(string))
	}
	if got := strings.Join(names, "|"); got != "stream content|n|m|o|a|v|CMD x" {
		t.Errorf("imported %s", got)
	}
	all := s.records()
	if words(all) != "begun Import, ended Import" {
		t.Fatalf("records: %s", words(all))
	}
	if r := all[0]; r.Request.Name != "n" || r.Request.Archive != "the archive that was passed" || r.Request.Changes[0] != "CMD x" || r.Caller == nil || r.Operation == "" {
		t.Errorf("begun: %+v", r.Request)
	}
	if r := all[1]; r.Outcome.Done[0].Verb != "import" || r.Outcome.Done[0].Image != id(8) || r.Operation != all[0].Operation {
		t.Errorf("ended: %+v", r.Outcome)
	}
	oldest, _ := s.daemon.events.span()
	events, _, ok := s.daemon.events.after(oldest-1, 10)
	if !ok || len(events) != 1 || events[0].Type != service.EventImageImported || events[0].Image != core.ImageID(id(8)) {
		t.Errorf("events: %+v", events)
	}
}

// What goes wrong is said, with the images that are there all the same.
func TestLoadErrors(t *testing.T) {
	f := newFakeService(0)
	s := serve(t, f, Options{})
	for name, tt := range map[string]struct {
		images []core.LoadedImage
		err    error
		want   string
		key    string
	}{
		"a refusal":     {nil, core.ErrArchiveRefused, "ArchiveRefused", "reason"},
		"no format":     {nil, &core.FormatError{Source: "x", Trials: []core.FormatTrial{{Format: "oci", Err: errors.New("no")}}}, "FormatUnknown", "trials"},
		"half of it":    {[]core.LoadedImage{{ID: "a"}}, errors.New("no"), "LoadIncomplete", "images"},
		"no store":      {nil, core.ErrStoreUnavailable, "StoreUnavailable", "reason"},
		"anything else": {nil, errors.New("no"), "OperationFailed", "reason"},
	} {
		f.onLoad(func(context.Context, core.LoadRequest) ([]core.LoadedImage, error) { return tt.images, tt.err })
		_, failed, parameters := s.with(s.dial(), "Load", object{"fileDescriptor": 0}, opened(t, "", os.O_RDONLY))
		if failed != tt.want || parameters[tt.key] == nil {
			t.Errorf("%s: %s %v", name, failed, parameters)
		}
	}
}

// A load ends with its caller, and with the service.
func TestLoadEnds(t *testing.T) {
	f := newFakeService(0)
	s := serve(t, f, Options{})
	begun, ended := make(chan struct{}), make(chan error)
	f.onLoad(func(ctx context.Context, _ core.LoadRequest) ([]core.LoadedImage, error) {
		begun <- struct{}{}
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil, ctx.Err()
	})
	c := s.dial()
	asked := s.asking(c, opened(t, "", os.O_RDONLY))
	<-begun
	c.Close()
	<-asked
	if err := <-ended; err == nil {
		t.Error("it was not cancelled")
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		if _, failed, p := s.with(s.dial(), "Load", object{"fileDescriptor": 0}, opened(t, "", os.O_RDONLY)); failed != "OperationFailed" || !strings.Contains(p["reason"].(string), "stopping") {
			t.Errorf("stopped: %s %v", failed, p)
		}
	})
	<-begun
	wait.Go(func() {
		if err := s.daemon.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if err := <-ended; !errors.Is(err, errStopping) {
		t.Errorf("ended by %v", err)
	}
	wait.Wait()
}

// A pipe that nobody writes to does not hold a load whose caller has gone.
func TestLoadOfSilentPipe(t *testing.T) {
	f := newFakeService(0)
	s := serve(t, f, Options{})
	begun, ended := make(chan struct{}), make(chan error)
	f.onLoad(func(ctx context.Context, r core.LoadRequest) ([]core.LoadedImage, error) {
		d, ok := r.Source.Stream.(interface{ SetReadDeadline(time.Time) error })
		if !ok {
			return nil, errors.New("the stream takes no deadline")
		}
		stop := context.AfterFunc(ctx, func() { _ = d.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		begun <- struct{}{}
		_, err := r.Source.Stream.Read(make([]byte, 1))
		ended <- err
		return nil, err
	})
	for _, kind := range []string{"pipe", "socket"} {
		var pair [2]int
		var err error
		if kind == "pipe" {
			err = unix.Pipe2(pair[:], unix.O_CLOEXEC)
		} else {
			pair, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		r := os.NewFile(uintptr(pair[0]), kind)
		c := s.dial()
		asked := s.asking(c, r)
		<-begun
		c.Close()
		<-asked
		if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", kind, err)
		}
		r.Close()
		unix.Close(pair[1])
	}
}

// One who does not read the progress does not hold up the load.
func TestLoadIsNotHeldUp(t *testing.T) {
	f := newFakeService(0)
	s := serve(t, f, Options{})
	done := make(chan struct{})
	f.onLoad(func(_ context.Context, r core.LoadRequest) ([]core.LoadedImage, error) {
		defer close(done)
		for range 100_000 {
			r.Copy.Progress(core.CopyProgress{Digest: strings.Repeat("x", 100)})
		}
		return nil, nil
	})
	conn := s.rawDial()
	file := opened(t, "", os.O_RDONLY)
	_, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte(`{"method":"`+methodPrefix+`Load","more":true,"parameters":{"fileDescriptor":0}}`+"\x00"),
		unix.UnixRights(int(file.Fd())), nil)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for its caller")
	}
}

func TestLoadsAtOnce(t *testing.T) {
	g := newLoadGate()
	var leave []func()
	enter := func(uid int, privileged bool) bool {
		l, err := g.enter(caller{Peer: wire.Peer{UID: uid}, privileged: privileged})
		if err == nil {
			leave = append(leave, l)
		}
		return err == nil
	}
	for uid := 1; uid <= loadsAtOnce/loadsOfUser; uid++ {
		for range loadsOfUser {
			if !enter(uid, false) {
				t.Fatalf("user %d is kept out", uid)
			}
		}
		if enter(uid, false) {
			t.Errorf("user %d may do more than others", uid)
		}
	}
	if enter(100, false) || !enter(0, true) {
		t.Error("one more user, or not root")
	}
	for _, l := range leave {
		l()
	}
	if len(g.users) != 0 || g.all[false] != 0 || g.all[true] != 0 || !enter(100, false) {
		t.Errorf("left over: %+v", g)
	}
}
