package wire

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/varlink/go/varlink"
	"golang.org/x/sys/unix"
)

// Interface is what the generated VarlinkNew returns. Its description must be what it answers by: calls
// are checked against it before they get there.
type Interface interface {
	VarlinkDispatch(ctx context.Context, c varlink.Call, methodname string) error
	VarlinkGetName() string
	VarlinkGetDescription() string
}

// ServerOptions has useful zero values.
type ServerOptions struct {
	// What org.varlink.service.GetInfo answers.
	Vendor, Product, Version, URL string
	// MaxMessage is how many bytes a message may have, either way; 16 MiB if 0, as sd-varlink has it.
	// The same is the bound for all messages together that are being received or handled and have more
	// than 16 KiB, once more for root's.
	MaxMessage int
	// MaxConnections is how many there may be in all; 1024 if 0. A part is kept for root.
	MaxConnections int
	// MaxConnectionsPerUID is how many one user may have; 128 if 0, as systemd's sockets have it.
	MaxConnectionsPerUID int
	// MaxCalls is how many handlers may be at work at once in all; 512 if 0. More calls wait. A part is
	// kept for root.
	MaxCalls int
	// WriteTimeout is how long a client may take to read a reply; 30 s if 0.
	WriteTimeout time.Duration
	// ReadTimeout is how long a message may take from its first byte to its last; 30 s if 0.
	ReadTimeout time.Duration
	// IdleTimeout is how long a connection may be without a call; 5 minutes if 0, for ever if negative.
	// A client that has nothing to say for longer can connect again, which is cheap; one that has
	// forgotten its connection, or holds it to keep others out, loses it.
	IdleTimeout time.Duration
	// TakesFiles says whether a method, by its full name, takes descriptors. None does if nil.
	TakesFiles func(method string) bool
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

func (o ServerOptions) withDefaults() ServerOptions {
	setDefault(&o.MaxMessage, 16<<20)
	setDefault(&o.MaxConnections, 1024)
	setDefault(&o.MaxConnectionsPerUID, 128)
	setDefault(&o.MaxCalls, 512)
	setDefault(&o.WriteTimeout, 30*time.Second)
	setDefault(&o.ReadTimeout, 30*time.Second)
	setDefault(&o.IdleTimeout, 5*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

func setDefault[T comparable](p *T, value T) {
	if *p == *new(T) {
		*p = value
	}
}

const (
	// maxFiles is how many descriptors a message may bring, and maxFilesInAll how many there may be that
	// no handler has yet.
	maxFiles      = 16
	maxFilesInAll = 256
	// lastWord is how long a client may take to read a reply once the server stops.
	lastWord = 5 * time.Second
)

// Server serves Varlink interfaces, and org.varlink.service.
type Server struct {
	options ServerOptions
	log     *slog.Logger
	library *varlink.Service
	methods map[string]*served

	connections *quota
	bytes       *budget
	files       *quota
	calls       slots
	lastWord    time.Duration
	complaints  throttle // of what clients do
	failures    throttle // of handlers

	mu      sync.Mutex
	users   int // of watcher
	watcher *watcher
}

// NewServer makes a server of interfaces. It returns an error where a description does not parse.
func NewServer(o ServerOptions, interfaces ...Interface) (*Server, error) {
	o = o.withDefaults()
	s := &Server{
		options:     o,
		log:         o.Logger,
		methods:     map[string]*served{},
		connections: newQuota(o.MaxConnections, o.MaxConnectionsPerUID, min(o.MaxConnectionsPerUID, o.MaxConnections/4)),
		bytes:       newBudget(o.MaxMessage + 1),
		files:       newQuota(maxFilesInAll, maxFilesInAll/4, maxFilesInAll/4),
		calls:       newSlots(o.MaxCalls, o.MaxCalls/8),
		lastWord:    lastWord,
	}
	var err error
	if s.library, err = varlink.NewService(o.Vendor, o.Product, o.Version, o.URL); err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		if err := s.register(i); err != nil {
			return nil, fmt.Errorf("register %s: %w", i.VarlinkGetName(), err)
		}
	}
	return s, s.registerService(interfaces)
}

// Connections returns how many there are.
func (s *Server) Connections() int { return s.connections.taken() }

// Serve accepts until ctx ends, then waits for the handlers at work, whose contexts end with ctx, and
// returns nil; what they send by then still goes out, if their clients read it soon. Connections without
// a call are closed at once. Serve closes l. An error of l that lasts is returned; that there are no more
// descriptors is waited out.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	w, err := s.watch()
	if err != nil {
		return errors.Join(fmt.Errorf("serve on %s: %w", l.Addr(), err), l.Close())
	}
	defer s.unwatch()
	var connections sync.WaitGroup
	defer connections.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	closed := sync.OnceValue(l.Close)
	shut := func() { _ = closed() } // an error leaves nothing behind that we could mend
	defer shut()
	defer context.AfterFunc(ctx, shut)()
	s.refuseFiles(l)

	var wait backOff
	for {
		socket, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = socket.Close() // nothing was said
			}
			return nil
		case err == nil:
			wait.over()
			if c := s.admit(socket, w); c != nil {
				connections.Go(func() { c.serve(ctx) })
			}
		case !passes(err):
			return errors.Join(fmt.Errorf("serve on %s: %w", l.Addr(), err), closed())
		default:
			if wait.first() {
				s.log.Warn("no connection can be accepted for now", "error", err)
			}
			wait.sleep(ctx)
		}
	}
}

// passes says whether an error of Accept is of the moment.
func passes(err error) bool {
	for _, errno := range [...]error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// ServeConn serves one connected socket until its peer closes it or ctx ends, as Serve does, and closes
// it.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	w, err := s.watch()
	if err != nil {
		s.log.Error("a connection is not served", "error", errors.Join(err, conn.Close()))
		return
	}
	defer s.unwatch()
	s.refuseFiles(conn)
	if c := s.admit(conn, w); c != nil {
		c.serve(ctx)
	}
}

// watch returns the watcher, which lives while anyone needs it.
func (s *Server) watch() (*watcher, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		var err error
		if s.watcher, err = newWatcher(); err != nil {
			return nil, err
		}
	}
	s.users++
	return s.watcher, nil
}

func (s *Server) unwatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		_ = s.watcher.close() // nothing is lost with it
	}
}

// refuseFiles has the kernel refuse descriptors to who sends them, where no method takes any (Linux 6.16).
// Elsewhere they are dropped as they are received.
func (s *Server) refuseFiles(socket any) {
	conn, ok := socket.(syscall.Conn)
	if !ok || s.options.TakesFiles != nil {
		return
	}
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // an older kernel does not know it, and then they are dropped
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
		})
	}
}

// admit makes a connection of a socket, if its user may have another. Otherwise it closes it.
func (s *Server) admit(socket net.Conn, w *watcher) *conn {
	c, peer, err := s.newConn(socket, w)
	if err == nil && !s.connections.take(peer.UID, 1) {
		err = errTooMany
	}
	if err != nil {
		s.complain(peer, errors.Join(err, socket.Close()))
		return nil
	}
	return c
}

var errTooMany = errors.New("there are too many connections")

func (s *Server) newConn(socket net.Conn, w *watcher) (*conn, Peer, error) {
	unixSocket, ok := socket.(*net.UnixConn)
	if !ok {
		return nil, Peer{}, fmt.Errorf("a %T is no unix socket", socket)
	}
	peer, err := peerOf(unixSocket)
	if err != nil {
		return nil, Peer{}, err
	}
	c, err := newConn(s, unixSocket, peer, w)
	return c, peer, err
}

// complain logs why a connection is closed.
func (s *Server) complain(peer Peer, err error) {
	s.complaints.log(s.log, slog.LevelWarn, "a connection is closed", "uid", peer.UID, "pid", peer.PID, "error", err)
}
