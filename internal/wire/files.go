package wire

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

var (
	errTooManyFiles  = fmt.Errorf("it brings more than %d descriptors", maxFiles)
	errNoRoomForThem = errors.New("there are too many descriptors of unfinished messages")
)

// inFlight are the descriptors that a connection received, and whose message is not whole yet.
type inFlight struct {
	quota *quota
	uid   int
	held  []arrived
	space [256]byte // for what the kernel says of them
}

// arrived are those that came in one piece. The kernel ends a piece after the bytes that descriptors were
// sent with (unix_stream_read_generic, net/unix/af_unix.c, Linux 6.12), so that they belong to the message
// that has its last byte, and not to one before it.
type arrived struct {
	last  int64 // the position of that byte
	files []int
}

// receive is recvmsg(2). position is that of the first byte to come. Without wanted the kernel closes what
// descriptors come.
func (f *inFlight) receive(fd int, room []byte, position int64, wanted bool) (int, error) {
	var space []byte
	if wanted {
		space = f.space[:unix.CmsgSpace(4*maxFiles)]
	}
	n, used, flags, _, err := unix.Recvmsg(fd, room, space, unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR { //nolint:errorlint // a system call's own
		n, used, flags, _, err = unix.Recvmsg(fd, room, space, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil || used == 0 && (!wanted || flags&unix.MSG_CTRUNC == 0) {
		return max(n, 0), err
	}
	files, err := parseFiles(space[:used])
	if err == nil {
		err = f.keep(arrived{position + int64(n) - 1, files}, flags&unix.MSG_CTRUNC != 0)
	}
	return n, err
}

// keep closes them where they are too many.
func (f *inFlight) keep(a arrived, truncated bool) error {
	n := len(a.files)
	for _, other := range f.held {
		n += len(other.files)
	}
	var err error
	switch {
	case truncated || n > maxFiles:
		err = errTooManyFiles
	case !f.quota.take(f.uid, len(a.files)):
		err = errNoRoomForThem
	default:
		f.held = append(f.held, a)
		return nil
	}
	for _, fd := range a.files {
		unix.Close(fd)
	}
	return err
}

// take returns those of the message that ends before position.
func (f *inFlight) take(position int64) []*os.File {
	var out []*os.File
	for len(f.held) > 0 && f.held[0].last < position {
		for _, fd := range f.held[0].files {
			out = append(out, os.NewFile(uintptr(fd), "varlink"))
		}
		f.held = f.held[1:]
	}
	if out != nil {
		f.quota.give(f.uid, len(out))
	}
	return out
}

func (f *inFlight) close() {
	for _, a := range f.held {
		for _, fd := range a.files {
			unix.Close(fd)
		}
		f.quota.give(f.uid, len(a.files))
	}
	f.held = nil
}

// parseFiles returns the descriptors of a control message, which were received whatever it returns.
func parseFiles(control []byte) (files []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		if messages[i].Header.Level != unix.SOL_SOCKET || messages[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		some, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return files, err
		}
		files = append(files, some...)
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
