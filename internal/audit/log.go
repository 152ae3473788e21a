package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Options of a Log.
type Options struct {
	// Path is the file's. Directories that are missing are made for the owner alone, as is the file.
	Path string
	// MaxSize is how many bytes a file may have before it becomes PATH.1; a record is never divided. 0 is
	// without bound.
	MaxSize int64
	// Keep is how many of PATH.1, PATH.2 … are kept.
	Keep int
	// Logger is told where a file could not be followed by another one; nobody is if nil.
	Logger *slog.Logger
}

// reserve is the space that is taken ahead, and again where half of it is used.
const reserve = 1 << 20

// Log is an open log. Its methods may be called from several goroutines at once.
type Log struct {
	options Options
	logger  *slog.Logger

	// mu guards what follows.
	mu   sync.Mutex
	file *os.File
	size int64
	// reserved is up to where space is taken.
	reserved int64
	// told is whether it was told that the file cannot be followed by another one.
	told bool
}

// Open opens the log, and makes it where it is not there.
func Open(o Options) (*Log, error) {
	l := &Log{options: o, logger: o.Logger}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// Path is the file's.
func (l *Log) Path() string { return l.options.Path }

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.file.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Append writes a record and returns once it is on the disk.
func (l *Log) Append(record any) error {
	line, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(append(line, '\n')); err != nil {
		return fmt.Errorf("write the audit log %s: %w", l.options.Path, err)
	}
	return nil
}

func (l *Log) append(line []byte) error {
	if err := l.follow(); err != nil {
		return err
	}
	if l.options.MaxSize > 0 && l.size > 0 && l.size+int64(len(line)) > l.options.MaxSize {
		l.rotate()
	}
	if _, err := l.file.Write(line); err != nil {
		// A part of it would be in the line of the next one.
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(len(line))
	l.takeSpace()
	return unix.Fdatasync(int(l.file.Fd()))
}

// follow opens the file anew where somebody has moved ours away.
func (l *Log) follow() error {
	there, err := os.Lstat(l.options.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	ours, failed := l.file.Stat()
	if failed != nil {
		return failed
	}
	if err == nil && os.SameFile(there, ours) {
		if ours.Size() < l.size { // somebody has emptied it, and given back what was reserved
			l.reserved = 0
		}
		l.size = ours.Size()
		return nil
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	_ = old.Close() // each of its records is on the disk
	return nil
}

// open opens the file at the path, and ends a line that a process was killed in.
func (l *Log) open() error {
	f, err := openFile(l.options.Path, os.O_CREATE)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	size, err := wholeLines(f)
	if err != nil {
		f.Close()
		return fmt.Errorf("open the audit log %s: %w", l.options.Path, err)
	}
	l.file, l.size, l.reserved, l.told = f, size, 0, false
	l.takeSpace()
	return l.syncDirectory()
}

// openFile opens what is a file and nothing that a name leads to. To open a pipe would wait for ever.
func openFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|os.O_RDWR|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file (%s)", path, info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func wholeLines(f *os.File) (size int64, err error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return 0, err
	}
	if last[0] == '\n' {
		return info.Size(), nil
	}
	_, err = f.Write([]byte("\n"))
	return info.Size() + 1, err
}

// takeSpace reserves space behind the end of the file. What cannot be reserved is tried again with the
// next record; a file system that knows no such thing has none.
func (l *Log) takeSpace() {
	if l.reserved-l.size >= reserve/2 {
		return
	}
	if l.allocate(l.file, l.size) == nil {
		l.reserved = l.size + reserve
	}
}

func (l *Log) allocate(f *os.File, from int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, reserve)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

// rotate begins another file, which has space reserved. Where that cannot be had, ours goes on growing.
// Killed half-way, it leaves at most a gap in the numbers, and no file at the path.
func (l *Log) rotate() {
	if err := l.begin(); err != nil && !l.told {
		l.told = true
		l.logger.Warn("the audit log has grown to its size and cannot be followed by another one; it goes on growing",
			"file", l.options.Path, "error", err)
	}
}

func (l *Log) begin() error {
	next := l.options.Path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := openFile(next, os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	err = l.allocate(f, 0)
	if err == nil {
		err = l.shift()
	}
	if err == nil {
		err = os.Rename(next, l.options.Path)
	}
	if err != nil {
		f.Close()
		return errors.Join(err, os.Remove(next))
	}
	_ = l.file.Close() // each of its records is on the disk
	l.file, l.size, l.reserved, l.told = f, 0, reserve, false
	return l.syncDirectory()
}

// syncDirectory puts the file's name on the disk.
func (l *Log) syncDirectory() error {
	d, err := os.Open(filepath.Dir(l.options.Path))
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) { // file systems without such a thing
		return fmt.Errorf("open the audit log: %w", err)
	}
	return nil
}

// shift makes of PATH.1 PATH.2, and so on, and of PATH PATH.1.
func (l *Log) shift() error {
	if l.options.Keep == 0 {
		return os.Remove(l.options.Path)
	}
	for n := l.options.Keep - 1; n >= 0; n-- {
		if err := os.Rename(l.numbered(n), l.numbered(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (l *Log) numbered(n int) string {
	if n == 0 {
		return l.options.Path
	}
	return l.options.Path + "." + strconv.Itoa(n)
}
