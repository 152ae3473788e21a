package kernel

import (
	"bytes"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls listmount and statmount and the ioctls of nsfs, for which x/sys has no wrapper.
// Linux, include/uapi/linux/mount.h and nsfs.h; NS_MNT_GET_NEXT came with 6.12 (and implies the
// rest).

type mntIDReq struct {
	size  uint32
	spare uint32
	id    uint64
	param uint64
	ns    uint64
}

type mntNSInfo struct {
	size   uint32
	mounts uint32
	id     uint64
}

type statmountHeader struct {
	size, opts         uint32
	mask               uint64
	devMajor, devMinor uint32
	magic              uint64
	flags, fsType      uint32
	id, parent         uint64
	idOld, parentOld   uint32
	attr, propagation  uint64
	peer, master, from uint64
	root, point        uint32
	ns                 uint64
	subtype, source    uint32
	_                  [384]byte // up to the 512 bytes of the kernel's struct
}

const (
	nsMntGetInfo = 0x8010b70a // _IOR(0xb7, 10, struct mnt_ns_info)
	nsMntGetNext = 0x8010b70b
	nsMntGetPrev = 0x8010b70c

	statmountSBBasic  = 0x01
	statmountMntBasic = 0x02
	statmountRoot     = 0x08
	statmountPoint    = 0x10
	statmountFSType   = 0x20
	statmountOpts     = 0x80

	lsmtRoot = ^uint64(0)
)

// nsInfo is the never reused ID of a mount namespace.
func nsInfo(namespace *os.File) (uint64, error) {
	info := mntNSInfo{size: uint32(unsafe.Sizeof(mntNSInfo{}))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, namespace.Fd(), nsMntGetInfo, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return 0, errno
	}
	return info.id, nil
}

// nsStep opens the mount namespace after or before another one, of all that we may look into,
// whether or not a process is in it. The error is ENOENT at the end.
func nsStep(from *os.File, direction uintptr) (*os.File, uint64, error) {
	info := mntNSInfo{size: uint32(unsafe.Sizeof(mntNSInfo{}))}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, from.Fd(), direction, uintptr(unsafe.Pointer(&info)))
	if errno != 0 {
		return nil, 0, errno
	}
	return os.NewFile(fd, fmt.Sprintf("mount namespace %d", info.id)), info.id, nil
}

// listmount lists the mounts of a namespace by their unique IDs.
func listmount(ns uint64) ([]uint64, error) {
	var all []uint64
	buf := make([]uint64, 512)
	req := mntIDReq{size: uint32(unsafe.Sizeof(mntIDReq{})), id: lsmtRoot, ns: ns}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_LISTMOUNT, uintptr(unsafe.Pointer(&req)),
			uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		if errno != 0 {
			return nil, errno
		}
		all = append(all, buf[:n]...)
		if int(n) < len(buf) {
			return all, nil
		}
		req.param = buf[n-1]
	}
}

// statmounter reads mounts one by one. The options of a superblock are read once.
type statmounter struct {
	buf     []byte
	options map[uint64]string
}

// stat reads one mount. The error is ENOENT where it is gone.
func (s *statmounter) stat(ns, id uint64) (mount, error) {
	h, err := s.call(ns, id, statmountSBBasic|statmountMntBasic|statmountRoot|statmountPoint|statmountFSType)
	if err != nil {
		return mount{}, err
	}
	m := mount{
		id: uint64(h.idOld), parent: uint64(h.parentOld),
		dev:  unix.Mkdev(h.devMajor, h.devMinor),
		root: s.text(h, h.root, statmountRoot), point: s.text(h, h.point, statmountPoint), fs: s.text(h, h.fsType, statmountFSType),
	}
	if m.fs != "overlay" {
		return m, nil
	}
	options, ok := s.options[m.dev]
	if !ok {
		h, err := s.call(ns, id, statmountOpts)
		if err != nil {
			return mount{}, err
		}
		options = s.text(h, h.opts, statmountOpts)
		s.options[m.dev] = options
	}
	m.options = options
	return m, nil
}

func (s *statmounter) call(ns, id, mask uint64) (*statmountHeader, error) {
	if s.buf == nil {
		s.buf = make([]byte, 8192)
		s.options = make(map[uint64]string)
	}
	req := mntIDReq{size: uint32(unsafe.Sizeof(mntIDReq{})), id: id, param: mask, ns: ns}
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATMOUNT, uintptr(unsafe.Pointer(&req)),
			uintptr(unsafe.Pointer(&s.buf[0])), uintptr(len(s.buf)), 0, 0, 0)
		switch {
		case errno == unix.EOVERFLOW && len(s.buf) < 1<<24:
			s.buf = make([]byte, 4*len(s.buf))
		case errno != 0:
			return nil, errno
		default:
			return (*statmountHeader)(unsafe.Pointer(&s.buf[0])), nil
		}
	}
}

// text is the string at an offset behind the header; "" where the kernel did not set it.
func (s *statmounter) text(h *statmountHeader, offset uint32, mask uint64) string {
	start := int(unsafe.Sizeof(statmountHeader{})) + int(offset)
	if h.mask&mask == 0 || start >= len(s.buf) {
		return ""
	}
	text, _, _ := bytes.Cut(s.buf[start:], []byte{0})
	return string(text)
}
