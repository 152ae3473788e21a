package buildah

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procfs reads a little about many processes, cheaply. It is used by one goroutine.
type procfs struct {
	dir       int
	path, buf []byte
}

func openProcfs() (*procfs, error) {
	fd, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	return &procfs{dir: fd, buf: make([]byte, unix.PathMax)}, nil
}

func (f *procfs) close() { unix.Close(f.dir) } // only read

// exe is the file of a process's program. It holds until the next call.
func (f *procfs) exe(pid int) ([]byte, error) {
	f.path = append(strconv.AppendInt(f.path[:0], int64(pid), 10), "/exe"...)
	n, err := unix.Readlinkat(f.dir, string(f.path), f.buf)
	if err != nil {
		return nil, err
	}
	return f.buf[:n], nil
}

// stat reads a process as readStat does.
func (f *procfs) stat(pid int) (process, error) {
	f.path = append(strconv.AppendInt(f.path[:0], int64(pid), 10), "/stat"...)
	fd, err := unix.Openat(f.dir, string(f.path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return process{}, err
	}
	n, err := unix.Read(fd, f.buf)
	unix.Close(fd) // only read
	if err != nil {
		return process{}, err
	}
	p, ok := parseStat(f.buf[:n])
	if !ok || p.pid != pid {
		return process{}, fmt.Errorf("%s is not understood", proc(pid, "stat"))
	}
	return p, nil
}

// below finds the living processes at or below the roots, each with the nearest actor above it. all
// are the processes there are.
func (f *procfs) below(all []int, roots map[int]bool, actors map[int]*actor) map[int]tenant {
	childrenOf := f.children
	if _, err := f.childrenOfThread(os.Getpid(), strconv.Itoa(os.Getpid())); errors.Is(err, unix.ENOENT) {
		childrenOf = f.childrenByParents(all) // a kernel without CONFIG_PROC_CHILDREN
	}
	found := make(map[int]tenant)
	var walk func(pid int, by *actor)
	walk = func(pid int, by *actor) {
		if _, done := found[pid]; done {
			return
		}
		// One that ends meanwhile is in no container any more.
		p, err := f.stat(pid)
		if err != nil || p.dead() {
			return
		}
		found[pid] = tenant{process: p, actor: by}
		for _, child := range childrenOf(pid) {
			if actors[child] == nil {
				walk(child, by)
			}
		}
	}
	for pid, a := range actors {
		walk(pid, a)
	}
	for pid := range roots {
		walk(pid, nil)
	}
	return found
}

// children lists the children of a process. A list that changes while it is read may miss one
// (proc_pid_task_tid_children(5)), so that each is read twice.
func (f *procfs) children(pid int) []int {
	d, err := os.Open(proc(pid, "task"))
	if err != nil {
		return nil // ended: its children have another parent now
	}
	threads, _ := d.Readdirnames(-1)
	d.Close() // only read
	seen := make(map[int]bool)
	var found []int
	for _, thread := range append(threads, threads...) {
		words, _ := f.childrenOfThread(pid, thread)
		for _, word := range words {
			if child, err := strconv.Atoi(word); err == nil && !seen[child] {
				seen[child] = true
				found = append(found, child)
			}
		}
	}
	return found
}

func (f *procfs) childrenOfThread(pid int, thread string) ([]string, error) {
	file, err := os.Open(proc(pid, "task/"+thread+"/children"))
	if err != nil {
		return nil, err
	}
	defer file.Close() // only read
	b, err := io.ReadAll(file)
	return strings.Fields(string(b)), err
}

// childrenByParents makes children from the parents of all processes.
func (f *procfs) childrenByParents(all []int) func(pid int) []int {
	of := make(map[int][]int)
	for _, pid := range all {
		if p, err := f.stat(pid); err == nil {
			of[p.parent] = append(of[p.parent], pid)
		}
	}
	return func(pid int) []int { return of[pid] }
}
