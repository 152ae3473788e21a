package kernel

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// fuseServer is a process that serves an overlay through FUSE.
type fuseServer struct {
	pid  int
	dirs []overlayDir
}

// findServers finds the processes that serve a layer through FUSE. They are the mount, not its users.
func (s *scene) findServers() {
	layers := make(map[string]*target)
	for _, t := range s.targets {
		if t.layer.Driver == "overlay" {
			layers["/"+path.Base(t.layer.Directory)+"/"] = t
		}
	}
	if len(layers) == 0 {
		return
	}
	if none, _ := s.noFUSE(); none {
		return // a server that is still there is about to end
	}
	exes := make(map[handle]bool)
	for k := range s.procs {
		p := &s.procs[k]
		exe := p.links[2]
		if exe == (handle{}) {
			continue
		}
		is, ok := exes[exe]
		if !ok {
			link, err := s.readlink(p.dir + "/exe")
			is = err == nil && strings.HasPrefix(path.Base(trimDeleted(link)), "fuse-overlayfs")
			if err == nil && exe.mnt != 0 && exe.ino != 0 {
				exes[exe] = is
			}
		}
		if !is {
			continue
		}
		command, err := s.read(p.dir + "/cmdline")
		if err != nil {
			continue
		}
		dirs := overlayDirs(strings.ReplaceAll(string(command), "\x00", ","))
		s.servers = append(s.servers, fuseServer{p.pid, dirs})
		for _, d := range dirs {
			for _, t := range layers {
				if d.upper && d.name == "diff" && d.layer == path.Base(t.layer.Directory) {
					t.server, t.fuse = p.pid, true
					s.serving[p.pid] = true
					if dev := s.connection(p.pid); dev != 0 {
						s.claim(t, dev)
					}
				}
			}
		}
	}
}

// connection is the superblock that a FUSE server serves; 0 where the kernel does not say (before
// 6.12 or so: fs/fuse/dev.c, fuse_dev_show_fdinfo).
func (s *scene) connection(pid int) uint64 {
	dir := strconv.Itoa(pid)
	fds, err := s.names(dir + "/fd")
	if err != nil {
		return 0
	}
	for _, fd := range fds {
		if link, err := s.readlink(dir + "/fd/" + fd); err != nil || path.Base(link) != "fuse" {
			continue
		}
		info, err := s.read(dir + "/fdinfo/" + fd)
		if err != nil {
			continue
		}
		if minor := parseConnection(info); minor != 0 {
			return unix.Mkdev(0, minor)
		}
	}
	return 0
}

// parseConnection reads the connection out of the fdinfo of /dev/fuse; 0 where it is not there.
func parseConnection(b []byte) uint32 {
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("fuse_connection:")); ok {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(rest)), 10, 32)
			if err != nil {
				return 0
			}
			return uint32(n)
		}
	}
	return 0
}

// fuseServers are the processes that may serve a FUSE file system, for newScene to look at: none
// where fusectl says that there is no such file system at all.
func (i *Inspector) fuseServers(ctx context.Context) ([]process, error) {
	if none, err := i.noFUSE(); none {
		return nil, nil
	} else if err != nil {
		i.log.Debug("FUSE connections cannot be listed, looking at every process", "error", err)
	}
	pids, err := i.pids()
	if err != nil {
		return nil, err
	}
	procs := make([]process, len(pids))
	err = parallel(ctx, len(pids), here, func(k int) {
		procs[k] = process{pid: pids[k], dir: strconv.Itoa(pids[k])}
		procs[k].links[2], _ = i.handle(procs[k].dir + "/exe") // unreadable or a kernel thread: no server of ours
	})
	return procs, err
}

// hidesServers is whether a process that we do not see may serve a layer through FUSE, which the probe is
// blind to. What procfs hides from an ordinary user is not that user's, and serves no layer of theirs.
func (i *Inspector) hidesServers() bool {
	if i.blind == "" || i.rootless && i.hidepid {
		return false
	}
	none, _ := i.noFUSE() // where that cannot be told, there may be some
	return !none
}

// noFUSE is whether fusectl lists no connection. It need not be mounted: there is one for all.
func (i *Inspector) noFUSE() (bool, error) {
	i.fusectlOnce.Do(func() { i.fusectl, i.fusectlErr = detached("fusectl") })
	if i.fusectlErr != nil {
		return errors.Is(i.fusectlErr, unix.ENODEV), i.fusectlErr // a kernel without FUSE has no server
	}
	fd, err := unix.Openat(int(i.fusectl.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	connections := os.NewFile(uintptr(fd), "fusectl")
	defer connections.Close()
	names, err := connections.Readdirnames(-1)
	return err == nil && len(names) == 0, err
}
