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
	standIn   int    // the thread that was looked at where the first one has ended; else 0
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

// pids lists the processes, our launcher left out.
func (i *Inspector) pids() ([]int, error) {
	names, err := i.names(".")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		// A parent that has ended is ours no more, and its pid may be another's. Root sees every mount, and
		// needs to leave nothing out.
		if pid, err := strconv.Atoi(name); err == nil && (!i.rootless || pid != i.launcher || os.Getppid() != pid) {
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
	var closed bool
	for k, name := range linkNames {
		if task != 0 && name == "exe" {
			continue
		}
		h, err := i.handle(p.dir + "/" + name)
		if err == nil {
			p.links[k] = h
			p.paths[k], err = i.readlink(p.dir + "/" + name)
		}
		switch {
		case err == nil:
		case p.links[k] != (handle{}) && !vanished(err):
			// It is there, and only its path cannot be told (longer than a page, say): see match.
		case !vanished(err) && !i.ended(p.dir):
			closed = true
		case name != "exe" || i.ended(p.dir):
			p.gone = true // a zombie, or not even that; a kernel thread has no exe
		}
		if closed || p.gone {
			break
		}
	}
	if p.gone && task == 0 {
		p = i.scanOtherThread(p)
	}
	if p.ns != 0 {
		return p
	}
	// One that has no directories any more may keep its namespace for a while.
	if ns, err := i.readlink(p.dir + "/ns/mnt"); err == nil {
		p.ns = nsInode(ns)
	} else if !vanished(err) && !p.gone {
		closed = true
	}
	p.unreadable = p.unreadable || closed && i.ours(pid)
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
	return vanished(err)
}

// scanOtherThread stands in for a process whose first thread has ended while others run.
func (i *Inspector) scanOtherThread(p process) process {
	tasks, err := i.names(p.dir + "/task")
	if err != nil {
		p.unreadable = !vanished(err) && i.ours(p.pid)
		return p
	}
	for _, name := range tasks {
		task, err := strconv.Atoi(name)
		if err != nil || task == p.pid {
			continue
		}
		if t := i.scanProcess(p.pid, task); !t.gone {
			t.task, t.standIn = 0, task
			return t
		}
	}
	return p
}

// openFile is one descriptor or mapping of a process.
type openFile struct {
	link string // below procfs
	handle
	mapped bool
}

// scanFiles follows every open and mapped file of a process and calls f for each. The error is that of a
// file which could not be looked at, or that the process has ended.
func (i *Inspector) scanFiles(p *process, f func(openFile)) error {
	fds, err := i.names(p.dir + "/fd")
	if err != nil {
		return err
	}
	var failed error
	for _, fd := range fds {
		link := p.dir + "/fd/" + fd
		switch h, err := i.handle(link); {
		case err == nil:
			f(openFile{link: link, handle: h})
		case !vanished(err): // else closed by now
			failed = err
		}
	}
	maps, err := i.read(p.dir + "/maps")
	if err != nil {
		return err
	}
	mapFiles := p.dir + "/map_files/"
	if p.standIn != 0 {
		// The directory of a thread has none, unless it is looked up as that of a process.
		mapFiles = strconv.Itoa(p.standIn) + "/map_files/"
	}
	for _, m := range parseMaps(maps) {
		link := mapFiles + m.addresses
		h, err := i.handle(link)
		if denied(err) || vanished(err) {
			// map_files wants CAP_CHECKPOINT_RESTORE in the initial user namespace, and a mapping may have
			// been split or moved meanwhile. Before 6.8 maps showed the file below the overlay, so this may
			// see less.
			h, err = handle{dev: m.dev, ino: m.inode}, nil
		}
		if err != nil {
			failed = err
			continue
		}
		f(openFile{link: link, handle: h, mapped: true})
	}
	return failed
}

// scanThreads reads the threads of a process beside the first: each may have a directory, a root
// and a mount namespace of its own.
func (i *Inspector) scanThreads(p *process, f func(*process)) error {
	tasks, err := i.names(strconv.Itoa(p.pid) + "/task")
	if err != nil || len(tasks) < 2 {
		return err
	}
	for _, name := range tasks {
		if task, err := strconv.Atoi(name); err == nil && task != p.pid && task != p.standIn {
			t := i.scanProcess(p.pid, task)
			f(&t)
		}
	}
	return nil
}

// vanished is whether an error says that a process, or what a link of it led to, is no more.
func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH)
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
