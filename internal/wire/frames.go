package wire

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
)

// smallBuffer is enough for most messages. A connection has one only while it has bytes in it.
const smallBuffer = 16 << 10

var smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}

var errNoRoom = errors.New("there are too many bytes of unfinished messages")

// frames cuts what is received into messages. Each ends with a NUL.
type frames struct {
	max   int    // of bytes a message
	share *share // of what large buffers may have; nil is without bounds

	buffer     []byte
	start, end int // of what was received and not handed out
	scanned    int // up to there, no NUL
	reserved   bool
	handedOut  int64 // bytes in all, NULs included
}

// next returns a message, without its NUL, if one is whole. It is good until room is asked for.
func (f *frames) next() ([]byte, bool, error) {
	i := bytes.IndexByte(f.buffer[f.scanned:f.end], 0)
	if i < 0 {
		f.scanned = f.end
		if f.end-f.start > f.max {
			return nil, false, fmt.Errorf("it has more than %d bytes", f.max)
		}
		return nil, false, nil
	}
	message := f.buffer[f.start : f.scanned+i]
	f.start = f.scanned + i + 1
	f.scanned = f.start
	f.handedOut += int64(len(message)) + 1
	if len(message) > f.max {
		return nil, false, fmt.Errorf("it has more than %d bytes", f.max)
	}
	return message, true, nil
}

// begun says whether part of a message is there.
func (f *frames) begun() bool { return f.end > f.start }

// room returns where to receive into; received says how much was. It grows with what came, so that only
// who sends much makes it large.
func (f *frames) room() ([]byte, error) {
	switch {
	case f.buffer == nil:
		f.buffer = smallBuffers.Get().(*[smallBuffer]byte)[:]
	case f.start == f.end:
		f.start, f.end, f.scanned = 0, 0, 0
	case f.end < len(f.buffer):
	case f.start > 0:
		copy(f.buffer, f.buffer[f.start:f.end])
		f.end -= f.start
		f.scanned -= f.start
		f.start = 0
	default:
		if err := f.grow(); err != nil {
			return nil, err
		}
	}
	return f.buffer[f.end:], nil
}

func (f *frames) received(n int) { f.end += n }

// position is how many bytes have come in all.
func (f *frames) position() int64 { return f.handedOut + int64(f.end-f.start) }

func (f *frames) grow() error {
	size := min(2*len(f.buffer), f.max+1)
	if f.share != nil {
		if !f.share.grow(size) {
			return errNoRoom
		}
		f.reserved = true
	}
	larger := make([]byte, size)
	copy(larger, f.buffer[:f.end])
	f.free()
	f.buffer = larger
	return nil
}

// whole says that a message was taken, and is kept at least until settle.
func (f *frames) whole() {
	if f.reserved {
		f.share.keep()
	}
}

// rest lets go of the buffer if nothing is in it. What was reserved stays so until settle.
func (f *frames) rest() {
	if f.start == f.end && f.buffer != nil {
		f.free()
		f.start, f.end, f.scanned = 0, 0, 0
	}
}

// settle gives back what was reserved for a buffer that is gone. What stays belongs to the next message, which
// is not whole.
func (f *frames) settle() {
	switch {
	case !f.reserved:
	case len(f.buffer) <= smallBuffer:
		f.share.release()
		f.reserved = false
	default:
		f.share.unkeep()
	}
}

// close lets go of everything.
func (f *frames) close() {
	f.start, f.end, f.scanned = 0, 0, 0
	if f.buffer != nil {
		f.free()
	}
	f.settle()
}

func (f *frames) free() {
	if len(f.buffer) == smallBuffer {
		smallBuffers.Put((*[smallBuffer]byte)(f.buffer))
	}
	f.buffer = nil
}
