package wire

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sender writes whole messages, each within a time. One message is written at a time.
type sender struct {
	socket *net.UnixConn
	raw    syscall.RawConn
	push   func(uintptr) bool // s.write, made once
	last   time.Duration      // timeout in a hurry

	rest   []byte // of the message that is being written
	failed error

	mu      sync.Mutex
	timeout time.Duration
	waiting bool // for the peer to read; a deadline is set
}

func (s *sender) message(b []byte) error {
	s.rest, s.failed = b, nil
	err := s.raw.Write(s.push)
	s.rest = nil
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting {
		s.waiting = false
		_ = s.socket.SetWriteDeadline(time.Time{}) // an error comes again with the next message
	}
	if err != nil {
		return err
	}
	return s.failed
}

// write writes what it can. It is false where the peer has to read first.
func (s *sender) write(fd uintptr) bool {
	for len(s.rest) > 0 {
		n, err := unix.SendmsgN(int(fd), s.rest, nil, nil, unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			s.rest = s.rest[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			if s.failed = s.await(); s.failed == nil {
				return false
			}
			return true
		default:
			s.failed = err
			return true
		}
	}
	return true
}

// await sets the time by which the whole message must have been read; more of it read does not move it.
func (s *sender) await() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting {
		return nil
	}
	s.waiting = true
	return s.socket.SetWriteDeadline(time.Now().Add(s.timeout))
}

// hurry gives the peer no more than the last time for each message from now on.
func (s *sender) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timeout = min(s.timeout, s.last)
	if s.waiting {
		_ = s.socket.SetWriteDeadline(time.Now().Add(s.timeout)) // an error comes again at the message's end
	}
}
