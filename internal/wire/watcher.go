package wire

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// watcher tells when peers have gone, by one goroutine that sleeps until one has. A peer has gone when it
// can neither send nor receive any more (EPOLLHUP); one that has only shut down its sending side still
// waits for its replies. A connection is known by a number that is never used again, since that of its
// descriptor is.
type watcher struct {
	epoll *os.File
	raw   syscall.RawConn
	ended chan struct{}

	mu   sync.Mutex
	last uint64
	gone map[uint64]func()
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	// An epoll instance can be waited for like a socket, and so takes no thread.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	w := &watcher{epoll: os.NewFile(uintptr(fd), "epoll"), ended: make(chan struct{}), gone: map[uint64]func(){}}
	if w.raw, err = w.epoll.SyscallConn(); err != nil {
		w.epoll.Close()
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	go w.run()
	return w, nil
}

// close ends the goroutine, and waits for it.
func (w *watcher) close() error {
	err := w.epoll.Close()
	<-w.ended
	return err
}

// add has gone called once the peer of raw has gone, or at once if it has. It may be called even after
// remove.
func (w *watcher) add(raw syscall.RawConn, gone func()) (uint64, error) {
	w.mu.Lock()
	w.last++
	number := w.last
	w.gone[number] = gone
	w.mu.Unlock()
	// No event is asked for: the kernel always tells EPOLLHUP and EPOLLERR.
	event := unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(number), Pad: int32(number >> 32)}
	var failed error
	outer := w.raw.Control(func(epoll uintptr) {
		inner := raw.Control(func(fd uintptr) {
			failed = unix.EpollCtl(int(epoll), unix.EPOLL_CTL_ADD, int(fd), &event)
		})
		failed = errors.Join(failed, inner)
	})
	if err := errors.Join(failed, outer); err != nil {
		w.remove(number)
		return 0, fmt.Errorf("watch a connection: %w", err)
	}
	return number, nil
}

// remove forgets a connection. The kernel does when its socket is closed.
func (w *watcher) remove(number uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.gone, number)
}

func (w *watcher) run() {
	defer close(w.ended)
	var events [64]unix.EpollEvent
	for {
		var n int
		var failed error
		err := w.raw.Read(func(epoll uintptr) bool {
			n, failed = unix.EpollWait(int(epoll), events[:], 0)
			return n > 0 || failed != nil
		})
		if err != nil { // closed
			return
		}
		if failed != nil { // a wait of no time is not interrupted, and the rest would be a mistake of ours
			panic(fmt.Sprintf("epoll_wait: %v", failed))
		}
		for _, e := range events[:n] {
			w.tell(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
		}
	}
}

func (w *watcher) tell(number uint64) {
	w.mu.Lock()
	gone := w.gone[number]
	w.mu.Unlock()
	if gone != nil {
		gone()
	}
}
