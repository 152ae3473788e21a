package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/varlink/go/varlink"
)

// Interface is what the generated VarlinkNew returns.
type Interface interface {
	VarlinkDispatch(ctx context.Context, c varlink.Call, methodname string) error
	VarlinkGetName() string
	VarlinkGetDescription() string
}

// ServerOptions has useful zero values.
type ServerOptions struct {
	// What org.varlink.service.GetInfo answers.
	Vendor, Product, Version, URL string
	// MaxMessage is how many bytes a message may have; 16 MiB if 0, as sd-varlink has it.
	MaxMessage int
	// MaxConnections is how many there may be in all; 1024 if 0.
	MaxConnections int
	// MaxConnectionsPerUID is how many one user may have; 128 if 0, as systemd's sockets have it.
	MaxConnectionsPerUID int
	// MaxCalls is how many handlers may be at work at once in all; 512 if 0. More calls wait.
	MaxCalls int
	// WriteTimeout is how long a reply may take to be taken; 30 s if 0.
	WriteTimeout time.Duration
	// ReadTimeout is how long a message may take from its first byte to its last; 30 s if 0.
	ReadTimeout time.Duration
	// IdleTimeout is how long a connection may be without a call; 5 minutes if 0, for ever if negative.
	IdleTimeout time.Duration
	// TakesFiles says whether a method, by its full name, takes descriptors. None does if nil.
	TakesFiles func(method string) bool
	// Logger is slog.Default if nil.
	Logger *slog.Logger
}

// Server serves Varlink interfaces.
type Server struct {
	options ServerOptions
	service *varlink.Service

	mu          sync.Mutex
	connections int
}

// NewServer makes a server of interfaces.
func NewServer(o ServerOptions, interfaces ...Interface) (*Server, error) {
	service, err := varlink.NewService(o.Vendor, o.Product, o.Version, o.URL)
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		if err := service.RegisterInterface(i); err != nil {
			return nil, fmt.Errorf("register %s: %w", i.VarlinkGetName(), err)
		}
	}
	return &Server{options: o, service: service}, nil
}

// Serve accepts until ctx ends, then waits for the handlers at work and returns nil. Their contexts end
// with ctx. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		wg.Go(func() { s.ServeConn(ctx, conn) })
	}
}

// ServeConn serves one connected socket until the peer closes it or ctx ends, and closes it.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return
	}
	peer, err := peerOf(unixConn)
	if err != nil {
		return
	}
	s.count(1)
	defer s.count(-1)
	ctx, cancel := context.WithCancel(context.WithValue(ctx, peerKey{}, &peer))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &serverConn{conn, bufio.NewReader(conn)}
	for {
		b, err := c.ReadBytes(ctx, 0)
		if err != nil {
			return
		}
		if err := s.service.HandleMessage(ctx, c, b[:len(b)-1]); err != nil {
			return
		}
	}
}

// Connections returns how many there are.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

func (s *Server) count(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connections += n
}

type serverConn struct {
	conn net.Conn
	in   *bufio.Reader
}

func (c *serverConn) Write(_ context.Context, b []byte) (int, error) { return c.conn.Write(b) }
func (c *serverConn) Read(_ context.Context, b []byte) (int, error)  { return c.in.Read(b) }
func (c *serverConn) ReadBytes(_ context.Context, delim byte) ([]byte, error) {
	return c.in.ReadBytes(delim)
}
