package wire

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrInUse is of a socket that another process serves.
var ErrInUse = errors.New("another process serves it")

// Listen binds a unix socket. It holds a lock on the file PATH.lock for as long as the listener is open,
// and so takes the place of a socket that a process which has ended left behind, but never that of one
// which is served: that is ErrInUse. What lies at path and is no socket stays, and is an error. Nobody
// but the owner can connect before mode is in force, whatever the umask. Close removes our own socket,
// and nothing that came in its place; the lock file stays.
func Listen(path string, mode os.FileMode) (net.Listener, error) {
	if !filepath.IsAbs(path) { // such as the abstract @name, which has no mode
		return nil, fmt.Errorf("listen on %q: the path must be absolute", path)
	}
	lock, err := lockBeside(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	l, err := listen(path, mode, lock)
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func lockBeside(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return f, nil
}

func listen(path string, mode os.FileMode, lock *os.File) (*listener, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	ours, err := os.Lstat(path)
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(path))
	}
	return &listener{UnixListener: l, path: path, ours: ours, lock: lock}, nil
}

// clearStale removes a socket that nobody listens on.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("what lies there is no socket (%s)", info.Mode())
	}
	// Someone who knows nothing of the lock may serve it: a service manager does not lock.
	conn, err := net.Dial("unix", path)
	switch {
	case err == nil:
		_ = conn.Close() // it only knocked
		return ErrInUse
	case errors.Is(err, unix.EAGAIN): // its queue is full
		return ErrInUse
	case !errors.Is(err, unix.ECONNREFUSED):
		return err
	}
	return os.Remove(path)
}

// bind makes the socket for its owner alone. The kernel takes the mode of the socket's own inode for the
// one in the directory, less the umask, which a process has but one of and must not change while other
// threads make files (unix_bind_bsd, net/unix/af_unix.c, Linux 6.12).
func bind(path string) (*net.UnixListener, error) {
	var failed error
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return l.(*net.UnixListener), nil
}

// listener is a socket of Listen's.
type listener struct {
	*net.UnixListener
	path string
	ours fs.FileInfo
	lock *os.File

	once   sync.Once
	closed error
}

// Close stops listening, and removes the socket if it is still ours.
func (l *listener) Close() error {
	l.once.Do(func() {
		now, err := os.Lstat(l.path)
		switch {
		case err == nil && os.SameFile(now, l.ours):
			err = os.Remove(l.path)
		case errors.Is(err, fs.ErrNotExist):
			err = nil
		}
		l.closed = errors.Join(err, l.UnixListener.Close(), l.lock.Close())
	})
	return l.closed
}
