package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/internal/transcribe"
	removal "github.com/unmoor/unmoor/varlink/removal"
)

// TakesFiles is whether a method, by its full name, takes descriptors.
func TakesFiles(method string) bool {
	return method == "io.unmoor.Removal.Load" || method == "io.unmoor.Removal.Import"
}

// The verbs of what brings images in, for the audit log.
const (
	verbLoad   core.Verb = "load"
	verbImport core.Verb = "import"
	verbBuild  core.Verb = "build"
)

func (h *handlers) Load(ctx context.Context, c removal.VarlinkCall, fileDescriptor *int64, path, name *string, maxBytes *int64) error {
	in := transcribe.LoadIn{FileDescriptor: fileDescriptor, Path: path, Name: name, MaxBytes: maxBytes}
	limit, err := transcribe.ToMaxBytes(in.MaxBytes)
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	r := core.LoadRequest{Source: core.ImageSource{Limit: limit}}
	if name != nil {
		r.Name = *name
	}
	return h.bring(ctx, c, intake{
		descriptor: fileDescriptor, path: path, source: &r.Source, copy: &r.Copy, verb: verbLoad, event: service.EventImageLoaded,
		request: requestRecord{Name: clip(r.Name)},
		run: func(ctx context.Context, s Service) ([]core.LoadedImage, error) {
			images, err := s.Load(ctx, r)
			if err != nil && len(images) > 0 {
				err = &transcribe.IncompleteError{Images: images, Reason: err.Error()}
			}
			return images, err
		},
		progress: func(c removal.VarlinkCall, id string, p *removal.CopyProgress) error {
			return c.ReplyLoad(ctx, id, p, nil)
		},
		end: func(c removal.VarlinkCall, id string, images []core.LoadedImage) error {
			all := transcribe.FromLoadedImages(images)
			return c.ReplyLoad(ctx, id, nil, &all)
		},
	})
}

func (h *handlers) Import(ctx context.Context, c removal.VarlinkCall, fileDescriptor *int64, path, name *string, changes *[]string,
	message, os, architecture, variant *string, maxBytes *int64) error {
	r, err := transcribe.ToImport(transcribe.ImportIn{Name: name, Changes: changes, Message: message, OS: os,
		Architecture: architecture, Variant: variant, MaxBytes: maxBytes})
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	return h.bring(ctx, c, intake{
		descriptor: fileDescriptor, path: path, source: &r.Source, copy: &r.Copy, verb: verbImport, event: service.EventImageImported,
		request: requestRecord{Name: clip(r.Name), Changes: clips(r.Changes)},
		run: func(ctx context.Context, s Service) ([]core.LoadedImage, error) {
			image, err := s.Import(ctx, r)
			return []core.LoadedImage{image}, err
		},
		progress: func(c removal.VarlinkCall, id string, p *removal.CopyProgress) error {
			return c.ReplyImport(ctx, id, p, nil)
		},
		end: func(c removal.VarlinkCall, id string, images []core.LoadedImage) error {
			image := transcribe.FromLoadedImage(images[0])
			return c.ReplyImport(ctx, id, nil, &image)
		},
	})
}

// intake is a call that brings images into the store.
type intake struct {
	descriptor *int64
	path       *string
	// source and copy are those of the request that run carries out, to be completed.
	source  *core.ImageSource
	copy    *core.CopyOptions
	verb    core.Verb
	event   service.EventType
	request requestRecord
	run     func(context.Context, Service) ([]core.LoadedImage, error)
	// progress and end reply.
	progress func(c removal.VarlinkCall, operation string, p *removal.CopyProgress) error
	end      func(c removal.VarlinkCall, operation string, images []core.LoadedImage) error
}

// bring carries out an intake. It ends with its caller: nobody else waits for it, and what is broken off leaves
// nothing behind.
func (h *handlers) bring(ctx context.Context, c removal.VarlinkCall, i intake) error {
	call := callOf(ctx)
	files := c.RequestFDs()
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	leave, err := h.loads.enter(call.caller)
	if err != nil {
		return c.ReplyOperationFailed(ctx, err.Error())
	}
	defer leave()
	release, err := i.open(call.caller, files)
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	defer release()
	id := newID()
	i.request.Archive = clip(i.source.String())
	err = h.audit(call.setup, record{Event: "begun", Method: call.method, Operation: id, Caller: call.setup.recordCaller(ctx, call.caller), Request: &i.request})
	if err != nil {
		return c.ReplyOperationFailed(ctx, err.Error())
	}
	working, cancel := h.untilStop(ctx)
	defer cancel()
	images, err := h.copying(working, cancel, c, i, id)
	if err != nil && errors.Is(context.Cause(working), errStopping) {
		err = errors.Join(err, errStopping)
	}
	h.brought(call, i, id, images, err)
	if err != nil {
		return transcribe.ReplyError(ctx, c, "", err)
	}
	return i.end(c, id, images)
}

// copying does the work, and tells the caller meanwhile how far it is. One who is slow to listen, or has gone,
// does not hold it up.
func (h *handlers) copying(ctx context.Context, cancel context.CancelFunc, c removal.VarlinkCall, i intake, id string) (images []core.LoadedImage, err error) {
	reports := make(chan core.CopyProgress, 32)
	i.copy.Progress = func(p core.CopyProgress) {
		select {
		case reports <- p:
		default: // the next one says more
		}
	}
	done := make(chan struct{})
	c.Continues = true
	go func() {
		defer close(done)
		defer func() { // out of reach of what catches a handler's
			if p := recover(); p != nil {
				h.logger.Error("bringing an image in broke", "operation", id, "panic", p, "stack", string(debug.Stack()))
				images, err = nil, fmt.Errorf("it broke (%.200v)", p)
			}
		}()
		images, err = i.run(ctx, callOf(ctx).setup.Service)
	}()
	tell := func(p core.CopyProgress) {
		w := transcribe.FromCopyProgress(p)
		if c.WantsMore() && i.progress(c, id, &w) != nil {
			cancel() // nobody is there
		}
	}
	for {
		select {
		case p := <-reports:
			tell(p)
			continue
		case <-done:
		}
		for len(reports) > 0 && ctx.Err() == nil {
			tell(<-reports)
		}
		return images, err
	}
}

// brought writes down what came of it, and tells those that watch.
func (h *handlers) brought(call *call, i intake, id string, images []core.LoadedImage, err error) {
	end := record{Event: "ended", Method: call.method, Operation: id, Outcome: &outcomeRecord{Done: []actionRecord{}}}
	if err != nil {
		end.Error = clip(err.Error())
	}
	for _, image := range images {
		if image.ID == "" {
			continue
		}
		a := core.Action{Verb: i.verb, Image: image.ID}
		if len(image.Names) > 0 {
			a.Name = image.Names[0]
		}
		end.Outcome.Done = append(end.Outcome.Done, recordAction(a, nil))
		h.events.publish(service.Event{Type: i.event, Operation: id, UID: &call.UID, PID: &call.PID,
			Image: image.ID, Names: clips(image.Names)})
	}
	_ = h.audit(call.setup, end) // it is done, and the log of the service says what is not written down
}

// open finds out what is to be read. The service reads a path, a directory, or a file where it lies, only for
// those who could read it themselves: what others pass is read through their descriptor alone.
func (i *intake) open(by caller, files []*os.File) (release func(), err error) {
	if (i.descriptor == nil) == (i.path == nil) {
		return nil, &transcribe.ParameterError{Parameter: "fileDescriptor", Err: errors.New("give a descriptor or a path")}
	}
	if i.path != nil {
		if !by.privileged {
			return nil, errors.New("the service would read a path with rights of its own: pass a descriptor")
		}
		if !filepath.IsAbs(*i.path) {
			return nil, &transcribe.ParameterError{Parameter: "path", Err: errors.New("it is not absolute")}
		}
		i.source.Path = *i.path
		return func() {}, nil
	}
	if *i.descriptor < 0 || *i.descriptor >= int64(len(files)) {
		return nil, &transcribe.ParameterError{Parameter: "fileDescriptor", Err: fmt.Errorf("%d descriptors came", len(files))}
	}
	return i.openFile(by, files[*i.descriptor])
}

func (i *intake) openFile(by caller, file *os.File) (release func(), err error) {
	wrong := func(format string, args ...any) (func(), error) {
		return nil, &transcribe.ParameterError{Parameter: "fileDescriptor", Err: fmt.Errorf(format, args...)}
	}
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return wrong("look at it: %w", err)
	}
	if flags&unix.O_PATH != 0 || flags&unix.O_ACCMODE == unix.O_WRONLY {
		return wrong("it cannot be read")
	}
	info, err := file.Stat()
	if err != nil {
		return wrong("look at it: %w", err)
	}
	i.source.Called = "the archive that was passed"
	here := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	switch mode := info.Mode(); {
	case mode.IsDir() && by.privileged:
		i.source.Path = here
	case mode.IsDir():
		return nil, errors.New("the service would read a directory with rights of its own: pass an archive")
	case mode.IsRegular():
		offset, err := file.Seek(0, 1)
		if err != nil {
			return wrong("look at it: %w", err)
		}
		if by.privileged && offset == 0 && i.source.Limit == 0 {
			i.source.Path = here
		} else {
			i.source.Stream = file
		}
	case mode&os.ModeNamedPipe != 0:
		// Opened anew, it can be read without waiting for ever, and is left as it is for others.
		pipe, err := os.OpenFile(here, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return wrong("open it: %w", err)
		}
		i.source.Stream = pipe
		return func() { pipe.Close() }, nil
	case mode&os.ModeSocket != 0:
		fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			err = unix.SetNonblock(fd, true)
		}
		if err != nil {
			return wrong("open it: %w", err)
		}
		socket := os.NewFile(uintptr(fd), "socket")
		i.source.Stream = socket
		return func() { socket.Close() }, nil
	default:
		return wrong("it is no file, directory, pipe or socket")
	}
	return func() {}, nil
}

// Bounds of what is brought in at once: each may wait long for its archive, and takes room for it.
const (
	loadsAtOnce = 16
	loadsOfUser = 2
)

// loadGate counts what is being brought in, for those who are privileged and for the others each.
type loadGate struct {
	mu    sync.Mutex
	users map[int]int
	all   map[bool]int
}

func newLoadGate() *loadGate {
	return &loadGate{users: make(map[int]int), all: make(map[bool]int)}
}

// enter lets one more in, or says that there are too many.
func (g *loadGate) enter(c caller) (leave func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := g.all[c.privileged]; n >= loadsAtOnce || !c.privileged && g.users[c.UID] >= loadsOfUser {
		return nil, fmt.Errorf("%d images are being brought in already, %d of them by user %d; nothing was changed: try again later", n, g.users[c.UID], c.UID)
	}
	g.all[c.privileged]++
	g.users[c.UID]++
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.all[c.privileged]--
		if g.users[c.UID]--; g.users[c.UID] == 0 {
			delete(g.users, c.UID)
		}
	}, nil
}
