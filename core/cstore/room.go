package cstore

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// What an archive may hold at most.
const (
	// maxMembers are the parts of an image archive: four a layer in those with the most.
	maxMembers = 100_000
	// maxEntries are the files of one layer; the library keeps something of each in memory.
	maxEntries = 2_000_000
	// maxLayers is the overlay driver's (containers/storage v1.59.1, overlay.go, maxDepth).
	maxLayers = 500
	// maxDocument is the size of a manifest, an index or a signature (containers/image v5.36.2,
	// internal/iolimits), which the library reads into memory whole.
	maxDocument = 4 << 20
)

// room is what there is space for: bytes and files.
type room struct{ bytes, entries int64 }

// budget is room that is taken, by several goroutines perhaps.
type budget struct{ bytes, entries atomic.Int64 }

func (r room) budget() *budget {
	b := new(budget)
	b.bytes.Store(r.bytes)
	b.entries.Store(r.entries)
	return b
}

// roomOn is what the file system of a directory has space for; nine tenths of it, since others write too.
func roomOn(directory string) (room, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(directory, &fs); err != nil {
		return room{}, fmt.Errorf("see how much room there is on the file system of %s: %w", directory, err)
	}
	r := room{bytes: int64(fs.Bavail) * fs.Bsize / 10 * 9, entries: maxEntries}
	if fs.Files > 0 { // btrfs has no number of files to run out of
		r.entries = min(r.entries, int64(fs.Ffree)/10*9)
	}
	return r, nil
}

// layerRoom is what there is space for where layers are made.
func (s *Store) layerRoom() (room, error) {
	root := s.info.GraphRoot
	if lib, err := s.current(); err == nil && lib.ImageStore() != "" {
		root = lib.ImageStore()
	}
	return s.room(root)
}

// refused makes an error of what no image needs to do.
func refused(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{core.ErrArchiveRefused}, args...)...)
}

// bounded is a reader that ends with an error once stop has one, or once more than left was read.
type bounded struct {
	io.Reader
	stop   func() error
	left   int64
	beyond error
}

func (b *bounded) Read(p []byte) (int, error) {
	if err := b.stop(); err != nil {
		return 0, err
	}
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, b.beyond
	}
	return n, err
}

// tempDirectory is where big files go, as with the engines: TMPDIR or /var/tmp, since /tmp may be memory.
func tempDirectory() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/var/tmp"
}

// TemporaryFile makes a temporary file without a name, which is gone when it is closed or its process ends, and
// says how many bytes there is room for in it. Load and Import can be given its descriptor's path.
func TemporaryFile() (_ *os.File, room int64, err error) {
	left, err := roomOn(tempDirectory())
	if err != nil {
		return nil, 0, err
	}
	file, err := nameless()
	return file, left.bytes, err
}

// nameless makes a temporary file without a name. It can be opened again as pathOf(file).
func nameless() (*os.File, error) {
	file, err := os.CreateTemp(tempDirectory(), "unmoor-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close() // empty
		return nil, err
	}
	return file, nil
}

// pathOf opens the file of a descriptor of ours anew.
func pathOf(file *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", file.Fd()) }
