package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// process is a process, or one thread of it, as the cheap scan sees it.
type process struct {
	pid, task int    // task is 0 for the process itself
	dir       string // below procfs
	ns        uint64 // the inode of its mount namespace; 0 where that cannot be read
	links     [3]handle
	paths     [3]string // of the links, read at once: the process may end
	// unreadable is whether some of this could not be read and the process may be one that matters.
	unreadable bool
	// gone is whether it had ended: a zombie, or not even that.
	gone bool
}

// The links of a process that the cheap scan follows, and what they mean to people.
var (
	linkNames  = [3]string{"root", "cwd", "exe"}
	linkDetail = [3]string{"root directory in the container", "working directory in the container", "executable in the container"}
)

// pids lists the processes.
func (i *Inspector) pids() ([]int, error) {
	names, err := i.names(".")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// scanProcess reads one process, or one of its threads.
func (i *Inspector) scanProcess(pid, task int) process {
	p := process{pid: pid, task: task, dir: strconv.Itoa(pid)}
	if task != 0 {
		p.dir += "/task/" + strconv.Itoa(task)
	}
	var closed, gone bool
	for k, name := range linkNames {
		if task != 0 && name == "exe" {
			continue
		}
		h, err := i.handle(p.dir + "/" + name)
		if err == nil {
			p.paths[k], err = i.readlink(p.dir + "/" + name)
		}
		switch {
		case err == nil:
			p.links[k] = h
		case denied(err) && !i.ended(p.dir):
			closed = true
		case name != "exe" || i.ended(p.dir):
			gone = true // a zombie, or not even that; a kernel thread has no exe
		}
		if closed || gone {
			break
		}
	}
	if gone && task == 0 {
		return i.scanOtherThread(p)
	}
	if ns, err := i.readlink(p.dir + "/ns/mnt"); err == nil {
		p.ns = nsInode(ns)
	} else if denied(err) {
		closed = true
	}
	p.unreadable = closed && i.ours(pid)
	return p
}

// ended is whether a process, or a thread, has no directories any more.
func (i *Inspector) ended(dir string) bool {
	_, err := i.handle(dir + "/root")
	if denied(err) {
		// So answers too what ended between the lookup of its directory and that of the link (Linux,
		// fs/proc/base.c: proc_fd_access_allowed).
		_, err = i.handle(dir)
	}
	return err != nil && !denied(err)
}

// scanOtherThread stands in for a process whose first thread has ended while others run.
func (i *Inspector) scanOtherThread(p process) process {
	p.gone = true
	tasks, err := i.names(p.dir + "/task")
	if err != nil {
		return p
	}
	for _, name := range tasks {
		task, err := strconv.Atoi(name)
		if err != nil || task == p.pid {
			continue
		}
		if t := i.scanProcess(p.pid, task); t.links[0] != (handle{}) {
			t.task = 0
			return t
		}
	}
	return p
}

// openFile is one descriptor or mapping of a process.
type openFile struct {
	link string // below the process's directory
	handle
	mapped bool
}

// scanFiles follows every open and mapped file of a process and calls f for each. The error is one of
// permission, or that the process has ended.
func (i *Inspector) scanFiles(p *process, f func(openFile)) error {
	dir := strconv.Itoa(p.pid)
	fds, err := i.names(dir + "/fd")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		link := "fd/" + fd
		if h, err := i.handle(dir + "/" + link); err == nil {
			f(openFile{link: link, handle: h})
		}
	}
	maps, err := i.read(dir + "/maps")
	if err != nil {
		return err
	}
	mappings := parseMaps(maps)
	for _, m := range mappings {
		link := "map_files/" + m.addresses
		h, err := i.handle(dir + "/" + link)
		if denied(err) {
			// Before 6.8 maps showed the file below the overlay, so this may see less than
			// map_files, which wants CAP_CHECKPOINT_RESTORE in the initial user namespace.
			h, err = handle{dev: m.dev, ino: m.inode}, nil
		}
		if err == nil {
			f(openFile{link: link, handle: h, mapped: true})
		}
	}
	return nil
}

// scanThreads reads the threads of a process beside the first: each may have a directory, a root
// and a mount namespace of its own.
func (i *Inspector) scanThreads(p *process, f func(*process)) {
	tasks, err := i.names(strconv.Itoa(p.pid) + "/task")
	if err != nil || len(tasks) < 2 {
		return
	}
	for _, name := range tasks {
		if task, err := strconv.Atoi(name); err == nil && task != p.pid {
			t := i.scanProcess(p.pid, task)
			f(&t)
		}
	}
}

func denied(err error) bool {
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// parallel calls f for 0 to n-1, a few at a time, each worker within around.
func parallel(ctx context.Context, n int, around func(func() error) error, f func(int)) error {
	const batch = 64
	var next int
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	work := func() error {
		for ctx.Err() == nil {
			mu.Lock()
			from := next
			next += batch
			mu.Unlock()
			if from >= n {
				return nil
			}
			for k := from; k < min(from+batch, n); k++ {
				f(k)
			}
		}
		return ctx.Err()
	}
	for range min(runtime.GOMAXPROCS(0), 8) {
		wg.Go(func() {
			if err := around(work); err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return failed
}

// here is for parallel work that does not depend on the mount namespace.
func here(f func() error) error { return f() }

// self is whether a process is Unmoor.
func (p *process) self() bool { return p.pid == os.Getpid() }
