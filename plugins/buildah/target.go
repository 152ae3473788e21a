package buildah

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// target tells which processes work on one store.
type target struct {
	store core.StoreInfo
	graph unix.Stat_t
	root  unix.Stat_t
	ok    bool
}

func newTarget(store core.StoreInfo) target {
	t := target{store: store}
	t.ok = unix.Stat(store.GraphRoot, &t.graph) == nil && unix.Stat("/", &t.root) == nil
	return t
}

// mayBe is whether a process with this command line works on the store, or may. It is false only
// where the process's own graph root is known to be another one. Paths are looked up in the
// process's root directory, so that a chroot or a container is told from the host, and compared by
// device and inode, so that a bind mount or a link is seen through.
func (t target) mayBe(pid int, inv invocation) bool {
	if !t.ok {
		return true
	}
	if inv.root != "" {
		return t.shows(pid, inv.root) != no
	}
	for _, word := range inv.rootWords {
		if t.shows(pid, word) != no {
			return true
		}
	}
	return t.byDefault(pid) != no
}

// certain is whether a process with this command line works on the store without a doubt. Where a
// word of its own names the store, that one does; else the one place that the library would choose.
func (t target) certain(pid int, inv invocation) bool {
	switch {
	case !t.ok:
		return false
	case inv.root != "":
		return t.shows(pid, inv.root) == yes
	case len(inv.rootWords) > 0:
		return false
	}
	s, err := readSettings(pid)
	if err != nil {
		return false
	}
	place, ok := s.place()
	return ok && t.shows(pid, place) == yes
}

// answer has three values, the zero value being that it cannot be told.
type answer int

const (
	unclear answer = iota
	yes
	no
)

// shows is whether path, as the process sees it, is the graph root.
func (t target) shows(pid int, path string) answer {
	fd, err := openIn(pid, path, unix.O_PATH)
	if gone(err) || errors.Is(err, unix.ENOTDIR) {
		// It has no such directory, and containers of the store are there: so it is not on it. Or
		// the process has ended.
		return no
	}
	if err != nil {
		return unclear
	}
	defer unix.Close(fd) // never written
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return unclear
	}
	if st.Dev == t.graph.Dev && st.Ino == t.graph.Ino {
		return yes
	}
	return no
}

// byDefault is whether the process opens the store when it is told of none: by its environment, the
// storage.conf files and the library's defaults (containers/storage v1.59.1, types/options.go). All
// places are tried, whether or not the library would look at them, but where the environment names
// the one storage.conf and that the graph root.
func (t target) byDefault(pid int) answer {
	s, err := readSettings(pid)
	if err != nil {
		if gone(err) {
			return no
		}
		return unclear
	}
	doubt := no
	for _, place := range s.places() {
		switch t.shows(pid, place) {
		case yes:
			return yes
		case unclear:
			doubt = unclear
		case no:
		}
	}
	if doubt == no && t.store.Default && t.shares(pid) && s.override == "" {
		// Our reading of the files and the library's differ, or it is another user's.
		doubt = unclear
	}
	return doubt
}

// shares is whether the process has our root directory and user.
func (t target) shares(pid int) bool {
	var root, self unix.Stat_t
	if unix.Stat(proc(pid, "root"), &root) != nil || unix.Stat(proc(pid, ""), &self) != nil {
		return true
	}
	return root.Dev == t.root.Dev && root.Ino == t.root.Ino && int(self.Uid) == os.Geteuid()
}

func uidOf(pid int) string {
	var st unix.Stat_t
	if unix.Stat(proc(pid, ""), &st) != nil {
		return ""
	}
	return fmt.Sprint(st.Uid)
}

// openIn opens a path as the process would: below its root, or from its working directory.
func openIn(pid int, path string, flags int) (int, error) {
	base := proc(pid, "root")
	root, err := unix.Open(base, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root) // never written
	if !filepath.IsAbs(path) {
		// What a link on the way leads to is not seen through in the process's root; relative store
		// paths are rare, and the link would have to be absolute.
		return unix.Open(filepath.Join(proc(pid, "cwd"), path), flags|unix.O_CLOEXEC, 0)
	}
	fd, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.EAGAIN) {
		return -1, fmt.Errorf("open %s of pid %d: %v", path, pid, err) // a rename in the way: unclear
	}
	return fd, err
}

// environment reads what the process was started with.
func environment(pid int) (map[string]string, error) {
	b, err := os.ReadFile(proc(pid, "environ"))
	if err != nil {
		return nil, err
	}
	env := make(map[string]string)
	for _, word := range parseArgs(b) {
		if name, value, ok := strings.Cut(word, "="); ok {
			env[name] = value
		}
	}
	return env, nil
}
