package hooks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
)

// socket is a plugin's in the directory of plugins.
type socket struct {
	name, address string
	// problem is why it is not to be trusted; empty where it is.
	problem string
	// ino and made tell a socket from a later one of the same name.
	ino  uint64
	made int64
}

// scan lists the sockets in the directory, by name. A directory that is not there has none.
func scan(directory string) ([]socket, error) {
	entries, err := os.ReadDir(directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the directory of plugins: %w", err)
	}
	mistrust := trustDirectory(directory)
	var sockets []socket
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".sock")
		if !ok {
			continue
		}
		path := filepath.Join(directory, e.Name())
		s := socket{name: name, address: "unix:" + path}
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just gone
		}
		if err == nil {
			s.ino, s.made = info.Sys().(*syscall.Stat_t).Ino, info.ModTime().UnixNano()
			err = errors.Join(mistrust, checkName(name), trustSocket(info))
		}
		if err != nil {
			s.problem = oneLine(err.Error())
		}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// checkName wants a name that holdings and evidence can have: neither the kernel's nor nobody's.
func checkName(name string) error {
	if name == core.SourceKernel || name == "none" {
		return fmt.Errorf("no plugin is called %s: that means something else", name)
	}
	return protocol.CheckName(name)
}

// trust is whether what lies at an address is as nobody but root, and we, could put it there.
func trust(address string) error {
	path, err := socketPath(address)
	if err != nil {
		return err
	}
	if err := trustDirectory(filepath.Dir(path)); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	return trustSocket(info)
}

// trustDirectory wants a directory that nobody else can write to, nor put another one in its place.
func trustDirectory(directory string) error {
	path, err := filepath.EvalSymlinks(directory)
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory", directory)
	}
	if err := trustOwner(info, false); err != nil {
		return fmt.Errorf("%s %w", directory, err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be written to by others (mode %04o)", directory, info.Mode().Perm())
	}
	for path != "/" {
		path = filepath.Dir(path)
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if err := trustOwner(info, true); err != nil {
			return fmt.Errorf("%s above %s %w", path, directory, err)
		}
		if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("%s above %s can be written to by others (mode %04o)", path, directory, info.Mode().Perm())
		}
	}
	return nil
}

func trustSocket(info fs.FileInfo) error {
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("it is no socket")
	}
	return trustOwner(info, false)
}

func trustFile(info fs.FileInfo) error {
	switch {
	case !info.Mode().IsRegular():
		return errors.New("it is no file")
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("it can be written to by others (mode %04o)", info.Mode().Perm())
	}
	return trustOwner(info, false)
}

// trustOwner wants root's or our own. In a user namespace the real root is one of many that have no ID;
// above is whether such an owner will do.
func trustOwner(info fs.FileInfo, above bool) error {
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	const nobody = 65534 // the usual /proc/sys/kernel/overflowuid
	if owner == 0 || owner == os.Geteuid() || above && owner == nobody && inUserNamespace() {
		return nil
	}
	return fmt.Errorf("belongs to user %d, and not to root or user %d", owner, os.Geteuid())
}

// inUserNamespace is whether some users have no ID here.
func inUserNamespace() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(text)), " ") != "0 0 4294967295"
}
