package kernel

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// namespace is one mount namespace with its mounts.
type namespace struct {
	inode  uint64
	mounts []mount
	byID   map[uint64]*mount
	// processes are those seen in it, ourselves left out.
	processes []*process
	// pin is the mount point of nsfs on the host that opens it, where nothing else does.
	pin string
}

func newNamespace(inode uint64, mounts []mount) *namespace {
	n := &namespace{inode: inode, mounts: mounts, byID: make(map[uint64]*mount, len(mounts))}
	for k := range mounts {
		n.byID[mounts[k].id] = &mounts[k]
	}
	return n
}

// attach is where a mount is mounted, as a place in the file system below it.
func (n *namespace) attach(m *mount) (location, bool) {
	parent, ok := n.byID[m.parent]
	if !ok || parent == m {
		return location{}, false
	}
	return parent.at(m.point)
}

// tables are the mounts of every mount namespace that we can reach.
type tables struct {
	list    []*namespace
	byInode map[uint64]*namespace
	// reads counts how often the mounts of a namespace were read.
	reads int
	// hidden says which namespaces exist and could not be read.
	hidden []string
}

func (t *tables) add(n *namespace) {
	t.list = append(t.list, n)
	t.byInode[n.inode] = n
}

// readTables reads every mount namespace once: all of them through listmount where the kernel has
// it, processes in them or not; else those that the processes are in, and those that a bind mount
// of nsfs names.
func (i *Inspector) readTables(procs []process) (*tables, error) {
	t := &tables{byInode: make(map[uint64]*namespace)}
	within := make(map[uint64][]*process)
	for k := range procs {
		if p := &procs[k]; p.ns != 0 && !p.self() {
			within[p.ns] = append(within[p.ns], p)
		}
	}
	err := i.onHost(func() error { return i.walkNamespaces(t) })
	if err != nil && !unsupported(err) {
		return nil, fmt.Errorf("list the mounts of all mount namespaces: %w", err)
	}
	if t.byInode[i.host] == nil {
		mounts, err := i.hostMountinfo()
		if err != nil {
			return nil, fmt.Errorf("read the mounts of pid 1: %w", err)
		}
		t.reads++
		t.add(newNamespace(i.host, mounts))
	}
	missing := make([]uint64, 0, len(within))
	for inode := range within {
		if t.byInode[inode] == nil {
			missing = append(missing, inode)
		}
	}
	slices.Sort(missing)
	for _, inode := range missing {
		i.readThrough(t, inode, within[inode])
	}
	if i.own != i.host && t.byInode[i.own] == nil {
		i.readThrough(t, i.own, []*process{{dir: "self"}})
	}
	i.pinned(t)
	for _, n := range t.list {
		n.processes = within[n.inode]
	}
	return t, nil
}

// readThrough reads the mounts of a namespace through the first of its processes that has not ended.
func (i *Inspector) readThrough(t *tables, inode uint64, processes []*process) {
	for _, p := range processes {
		mounts, whole, err := i.mountsThrough(p.dir, inode)
		if vanished(err) {
			continue // where all have ended, the probe will tell
		}
		t.reads++
		if err != nil {
			t.hidden = append(t.hidden, fmt.Sprintf("the mounts of namespace %s cannot be read: %v", nsName(inode), err))
			return
		}
		if !whole {
			t.hidden = append(t.hidden, fmt.Sprintf("of the mounts of namespace %s only those that process %d sees can be read", nsName(inode), p.pid))
		}
		t.add(newNamespace(inode, mounts))
		return
	}
}

// readNear reads the namespace that we look through and our own alone.
func (i *Inspector) readNear() (*tables, error) {
	t := &tables{byInode: make(map[uint64]*namespace)}
	mounts, err := i.hostMounts()
	if err != nil {
		return nil, fmt.Errorf("read the mounts of pid 1: %w", err)
	}
	t.reads++
	t.add(newNamespace(i.host, mounts))
	if i.own != i.host {
		mounts, _, err := i.mountsThrough("self", i.own)
		if err != nil {
			return nil, fmt.Errorf("read our own mounts: %w", err)
		}
		t.reads++
		t.add(newNamespace(i.own, mounts))
	}
	return t, nil
}

// hostMounts reads the mounts of the namespace that we look through.
func (i *Inspector) hostMounts() (mounts []mount, err error) {
	err = i.onHost(func() error {
		namespace, err := i.open("thread-self/ns/mnt")
		if err != nil {
			return err
		}
		defer namespace.Close()
		if i.noListmount {
			return unix.ENOTTY
		}
		id, err := nsInfo(namespace)
		if err != nil {
			return err
		}
		mounts, err = listNamespace(&statmounter{}, id)
		return err
	})
	if err != nil && unsupported(err) {
		return i.hostMountinfo()
	}
	return mounts, err
}

func (i *Inspector) hostMountinfo() (mounts []mount, err error) {
	err = i.onHost(func() error {
		mounts, err = i.mountinfo("thread-self")
		return err
	})
	return mounts, err
}

func (i *Inspector) mountinfo(dir string) ([]mount, error) {
	f, err := i.open(dir + "/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readMountinfo(f)
}

// mountsThrough reads the mounts of the namespace that a process is in: from within, where that is
// allowed. Else it reads what the process sees of them, which after a chroot is not the whole.
func (i *Inspector) mountsThrough(dir string, inode uint64) (mounts []mount, whole bool, err error) {
	err = i.throughProcess(dir, inode, func() error {
		mounts, err = i.mountinfo("thread-self")
		return err
	})
	if denied(err) {
		mounts, err = i.mountinfo(dir)
		return mounts, false, err
	}
	return mounts, true, err
}

// throughProcess runs f in the mount namespace that a process is in. The error is ENOENT where that is
// another one by now.
func (i *Inspector) throughProcess(dir string, inode uint64, f func() error) error {
	namespace, err := i.open(dir + "/ns/mnt")
	if err != nil {
		return err
	}
	defer namespace.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
		return err
	}
	if st.Ino != inode {
		return fmt.Errorf("process %s is in another mount namespace by now: %w", dir, unix.ENOENT)
	}
	return inNamespace(namespace, f)
}

// walkNamespaces reads every namespace that listmount reaches. It runs on the host.
func (i *Inspector) walkNamespaces(t *tables) error {
	if i.noListmount {
		return unix.ENOTTY
	}
	s := &statmounter{}
	return i.eachNamespace(func(namespace *os.File, id uint64) (bool, error) {
		var st unix.Stat_t
		if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
			return false, err
		}
		if t.byInode[st.Ino] != nil {
			return true, nil // made while we walked
		}
		mounts, err := listNamespace(s, id)
		if errors.Is(err, unix.ENOENT) {
			return true, nil // gone while we walked
		}
		t.reads++
		if err != nil {
			return false, fmt.Errorf("%s: %w", nsName(st.Ino), err)
		}
		t.add(newNamespace(st.Ino, mounts))
		return true, nil
	})
}

// eachNamespace calls f for every mount namespace until it says false. It runs on the host. f must
// not keep the file.
func (i *Inspector) eachNamespace(f func(namespace *os.File, id uint64) (bool, error)) error {
	first, err := i.open("thread-self/ns/mnt")
	if err != nil {
		return err
	}
	defer first.Close()
	id, err := nsInfo(first)
	if err != nil {
		return err
	}
	if more, err := f(first, id); err != nil || !more {
		return err
	}
	for _, direction := range []uintptr{nsMntGetNext, nsMntGetPrev} {
		from, owned := first, false
		for {
			next, id, err := nsStep(from, direction)
			if owned {
				from.Close()
			}
			if errors.Is(err, unix.ENOENT) {
				break
			}
			if err != nil {
				return err
			}
			if more, err := f(next, id); err != nil || !more {
				next.Close()
				return err
			}
			from, owned = next, true
		}
	}
	return nil
}

func listNamespace(s *statmounter, id uint64) ([]mount, error) {
	ids, err := listmount(id)
	if err != nil {
		return nil, err
	}
	mounts := make([]mount, 0, len(ids))
	for _, m := range ids {
		one, err := s.stat(id, m)
		if errors.Is(err, unix.ENOENT) {
			continue // unmounted since
		}
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, one)
	}
	return mounts, nil
}

// pinned finds the namespaces that a bind mount of nsfs keeps alive and that are not read yet.
func (i *Inspector) pinned(t *tables) {
	for _, n := range slices.Clone(t.list) {
		for k := range n.mounts {
			m := &n.mounts[k]
			inode := nsInode(m.root)
			if m.fs != "nsfs" || inode == 0 || t.byInode[inode] != nil {
				continue
			}
			var mounts []mount
			err := fmt.Errorf("only the host's mounts are followed")
			if n.inode == i.host {
				err = i.throughPin(m.point, inode, func() error {
					var err error
					mounts, err = i.mountinfo("thread-self")
					return err
				})
			}
			t.reads++
			if err != nil {
				t.hidden = append(t.hidden, fmt.Sprintf("mount namespace %s, held by %s, cannot be read: %v", nsName(inode), m.point, err))
				continue
			}
			t.add(newNamespace(inode, mounts))
			t.byInode[inode].pin = m.point
		}
	}
}

// throughPin runs f in the namespace that is bound at a path of the host.
func (i *Inspector) throughPin(point string, inode uint64, f func() error) error {
	var namespace *os.File
	err := i.onHost(func() (err error) { namespace, err = os.Open(point); return err })
	if err != nil {
		return err
	}
	defer namespace.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
		return err
	}
	if st.Ino != inode {
		return fmt.Errorf("%s is another namespace by now", point)
	}
	return inNamespace(namespace, f)
}

// unsupported is whether the kernel lacks listmount for other namespaces, or refuses it.
func unsupported(err error) bool {
	for _, e := range []error{unix.ENOTTY, unix.ENOSYS, unix.EINVAL, unix.EPERM, unix.EACCES, unix.EOPNOTSUPP} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// enter runs f in one of the tables' namespaces.
func (i *Inspector) enter(n *namespace, f func() error) error {
	if n.inode == i.host {
		return i.onHost(f)
	}
	gone := fmt.Errorf("%s is gone: %w", nsName(n.inode), unix.ENOENT)
	processes := n.processes
	if n.inode == i.own {
		processes = []*process{{dir: "self"}}
	}
	for _, p := range processes {
		entered := false
		err := i.throughProcess(p.dir, n.inode, func() error { entered = true; return f() })
		if entered || !vanished(err) {
			return err
		}
		gone = err
	}
	if n.pin != "" {
		return i.throughPin(n.pin, n.inode, f)
	}
	entered := false
	err := i.onHost(func() error {
		return i.eachNamespace(func(namespace *os.File, _ uint64) (bool, error) {
			var st unix.Stat_t
			if err := unix.Fstat(int(namespace.Fd()), &st); err != nil {
				return false, err
			}
			if st.Ino != n.inode {
				return true, nil
			}
			entered = true
			return false, inNamespace(namespace, f)
		})
	})
	if !entered && (err == nil || unsupported(err)) {
		return gone
	}
	return err
}
