package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Activated returns the sockets that the service manager, or a client by exec:, passed in, and clears
// the environment of them. Where there are none, or they are for another process, all three are nil.
// Of several sockets each must be named varlink.
func Activated() (listeners []net.Listener, connections []net.Conn, err error) {
	ours, err := forUs()
	if !ours {
		_ = os.Unsetenv("LISTEN_PID") // the numbers are of descriptors that are something else here
	}
	files := activation.Files(true)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for _, f := range files {
		if len(files) > 1 && f.Name() != "varlink" {
			return nil, nil, errors.Join(closeAll(listeners, connections),
				fmt.Errorf("sockets passed in: one is named %s, and not varlink", f.Name()))
		}
		l, c, err := activated(f)
		if err != nil {
			return nil, nil, errors.Join(closeAll(listeners, connections),
				fmt.Errorf("sockets passed in: %s: %w", f.Name(), err))
		}
		if l != nil {
			listeners = append(listeners, l)
		} else {
			connections = append(connections, c)
		}
	}
	return listeners, connections, nil
}

func closeAll(listeners []net.Listener, connections []net.Conn) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	for _, c := range connections {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// forUs compares LISTEN_PIDFDID, which tells a process from a later one of the same pid, where the
// kernel has such numbers (Linux 6.9).
func forUs() (bool, error) {
	value, set := os.LookupEnv("LISTEN_PIDFDID")
	if !set {
		return true, nil
	}
	_ = os.Unsetenv("LISTEN_PIDFDID") // the name is good
	want, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return false, fmt.Errorf("sockets passed in: LISTEN_PIDFDID: %w", err)
	}
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false, fmt.Errorf("sockets passed in: open our own pidfd: %w", err)
	}
	defer unix.Close(fd)
	var system unix.Statfs_t
	var stat unix.Stat_t
	if err := errors.Join(unix.Fstatfs(fd, &system), unix.Fstat(fd, &stat)); err != nil {
		return false, fmt.Errorf("sockets passed in: look at our own pidfd: %w", err)
	}
	return system.Type != unix.PID_FS_MAGIC || stat.Ino == want, nil
}

// activated makes of f what it is. f stays open.
func activated(f *os.File) (net.Listener, net.Conn, error) {
	fd := int(f.Fd())
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, nil, err
	}
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return nil, nil, err
	}
	if kind != unix.SOCK_STREAM || domain != unix.AF_UNIX {
		return nil, nil, errors.New("no unix stream socket")
	}
	listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil {
		return nil, nil, err
	}
	if listening != 0 {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, nil, err
		}
		// The service manager keeps the socket, and connects its clients to our next run.
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		return l, nil, nil
	}
	c, err := net.FileConn(f)
	return nil, c, err
}
