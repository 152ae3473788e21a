package crio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/unmoor/unmoor/core"
)

// maxAnswer bounds one answer of CRI-O's; it is what CRI-O itself sends at most by default
// (grpc_max_send_msg_size, 80 MiB).
const maxAnswer = 80 << 20

// client is one connection to CRI-O. It is never made anew, so that all answers come from one
// process.
type client struct {
	socket  string
	conn    *grpc.ClientConn
	raw     net.Conn
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
}

// absentError says that there is no CRI-O for this user; it is core.ErrEngineAbsent without adding words.
type absentError struct{ cause error }

func (e absentError) Error() string   { return e.cause.Error() }
func (e absentError) Unwrap() []error { return []error{e.cause, core.ErrEngineAbsent} }

var errLost = errors.New("the connection to CRI-O was lost")

// connect opens the one connection. The error wraps core.ErrEngineAbsent where there is no socket, or another
// user's: CRI-O has that one's store, and no ordinary user's.
func (p *Plugin) connect(ctx context.Context) (*client, error) {
	raw, err := (&net.Dialer{Timeout: p.options.Timeout}).DialContext(ctx, "unix", p.socket)
	if err != nil {
		err = fmt.Errorf("connect to CRI-O (is it running? systemctl status crio; [plugin.crio] address names its socket): %w", err)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && anothers(p.socket) {
			return nil, absentError{err}
		}
		return nil, err
	}
	var taken atomic.Bool
	conn, err := grpc.NewClient("passthrough:///crio",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if taken.Swap(true) {
				return nil, errLost
			}
			return raw, nil
		}),
		grpc.WithIdleTimeout(0), grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		_ = raw.Close() // nothing was sent
		return nil, fmt.Errorf("connect to CRI-O at %s: %w", p.socket, err)
	}
	return &client{socket: p.socket, conn: conn, raw: raw,
		runtime: cri.NewRuntimeServiceClient(conn), images: cri.NewImageServiceClient(conn)}, nil
}

// anothers is whether a path, or the deepest directory on the way to it that can be looked at, is another
// user's.
func anothers(path string) bool {
	for {
		info, err := os.Lstat(path)
		if err == nil {
			return ownerOf(info) != os.Geteuid()
		}
		if path == "/" || path == "." {
			return false
		}
		path = filepath.Dir(path)
	}
}

func (c *client) close() {
	_ = c.conn.Close() // nothing is sent any more
	_ = c.raw.Close()  // where the connection was never used
}

// failed says what CRI-O was asked for in vain. The error wraps the gRPC status.
func (c *client) failed(what string, err error) error {
	return fmt.Errorf("ask CRI-O at %s for %s: %w", c.socket, what, plain(err))
}

// nonsense says that an answer cannot be CRI-O's.
func (c *client) nonsense(err error) error {
	return fmt.Errorf("CRI-O at %s answered nonsense: %w", c.socket, err)
}

// plain makes a gRPC status readable and keeps it as the cause.
func plain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	text := s.Message()
	switch s.Code() {
	case codes.DeadlineExceeded:
		text = "no answer in time (see what it is doing: journalctl -u crio)"
	case codes.Canceled:
		text = "not waited for"
	case codes.Unavailable:
		text = "it went away, or does not speak gRPC (see journalctl -u crio): " + text
	default:
	}
	return &callError{text: clip(strings.Join(strings.Fields(text), " ")), cause: err}
}

type callError struct {
	text  string
	cause error
}

func (e *callError) Error() string { return e.text }
func (e *callError) Unwrap() error { return e.cause }

// clip bounds a text of CRI-O's that is passed on.
func clip(s string) string {
	const most = 512
	s = strings.ToValidUTF8(s, "?")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// unknownID is whether CRI-O says that it has no such container or sandbox, or none that is ready
// to be asked about.
func unknownID(err error) bool { return status.Code(err) == codes.NotFound }
