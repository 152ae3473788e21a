package usage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// File is the journal of a store on its disk.
type File struct{ path string }

// Of is the journal of the store in a graph root. It need not be there.
func Of(graphRoot string) *File { return &File{filepath.Join(graphRoot, "unmoor", "usage.json")} }

// maxSize bounds what is read and written; an image takes some 160 bytes.
const maxSize = 16 << 20

// ErrDamaged is a journal that says nothing that could be believed.
var ErrDamaged = errors.New("the journal of use is damaged")

// record is the format, version 1. A key that is not known is an error: it may say what changes the rest.
type record struct {
	Version int                     `json:"version"`
	Watched time.Time               `json:"watched"`
	Looked  time.Time               `json:"looked"`
	Images  map[core.ImageID]moment `json:"images"`
}

type moment struct {
	Seen  time.Time `json:"seen"`
	Used  time.Time `json:"used,omitzero"`
	InUse bool      `json:"inUse,omitempty"`
}

// Read reads the journal; one that is not there is empty. Errors wrap ErrDamaged where it is there and
// makes no sense.
func (f *File) Read() (*Journal, error) {
	file, err := os.OpenFile(f.path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return &Journal{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal of use: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read the journal of use: %w", err)
	}
	j, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("%w (%s): %w", ErrDamaged, f.path, err)
	}
	return j, nil
}

func parse(data []byte) (*Journal, error) {
	if len(data) > maxSize {
		return nil, fmt.Errorf("it has more than %d bytes", maxSize)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var r record
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its end")
	}
	if r.Version != 1 {
		return nil, fmt.Errorf("version %d is not known", r.Version)
	}
	if r.Watched.IsZero() || r.Looked.Before(r.Watched) {
		return nil, fmt.Errorf("watched since %v, looked at %v", r.Watched, r.Looked)
	}
	j := &Journal{Watched: r.Watched, Looked: r.Looked, Images: make(map[core.ImageID]Entry, len(r.Images))}
	for id, m := range r.Images {
		if len(id) != 64 || strings.Trim(string(id), "0123456789abcdef") != "" {
			return nil, fmt.Errorf("%.80q is no ID of an image", id)
		}
		if m.Seen.IsZero() {
			return nil, fmt.Errorf("image %s was never seen", id.Short())
		}
		j.Images[id] = Entry(m)
	}
	return j, nil
}

func (j *Journal) encode() ([]byte, error) {
	r := record{Version: 1, Watched: j.Watched.UTC(), Looked: j.Looked.UTC(), Images: make(map[core.ImageID]moment, len(j.Images))}
	for id, e := range j.Images {
		r.Images[id] = moment{Seen: e.Seen.UTC(), Used: e.Used.UTC(), InUse: e.InUse}
	}
	return json.Marshal(r)
}

// Update changes the journal under its lock, and writes it so that after a crash there is the old one or
// the new one. change is handed what is on the disk. A damaged journal is put aside, and begun anew. The
// journal is returned as it is to be in any case: lost is why what was known before is not in it, unwritten
// why it could not be kept.
func (f *File) Update(ctx context.Context, change func(*Journal)) (j *Journal, lost, unwritten error) {
	unlock, unwritten := f.lock(ctx)
	if unwritten == nil {
		defer unlock()
	}
	j, lost = f.Read()
	if lost != nil {
		j = &Journal{}
	}
	change(j)
	switch {
	case unwritten != nil:
	case errors.Is(lost, ErrDamaged):
		unwritten = os.Rename(f.path, f.path+".damaged")
	case lost != nil:
		unwritten = lost // what is there is not to be lost for good
	}
	if unwritten == nil {
		unwritten = f.write(j)
	}
	return j, lost, unwritten
}

func (f *File) write(j *Journal) error {
	data, err := j.encode()
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("%d images are too many for it", len(j.Images))
	}
	if err == nil {
		err = replace(f.path, data)
	}
	if err != nil {
		return fmt.Errorf("write the journal of use: %w", err)
	}
	return nil
}

// lock waits until no other process changes the journal. The lock ends with unlock or with the process.
func (f *File) lock(ctx context.Context) (unlock func(), err error) {
	fail := func(err error) (func(), error) { return nil, fmt.Errorf("lock the journal of use: %w", err) }
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return fail(err)
	}
	fd, err := unix.Open(f.path+".lock", unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fail(err)
	}
	wait := time.NewTicker(10 * time.Millisecond)
	defer wait.Stop()
	for {
		err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = unix.Close(fd) }, nil // Nothing was written: there is nothing to lose.
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = unix.Close(fd)
			return fail(err)
		}
		select {
		case <-ctx.Done():
			_ = unix.Close(fd)
			return fail(ctx.Err())
		case <-wait.C:
		}
	}
}

// replace writes a file so that after a crash it has the old contents or the new ones. The caller holds the
// lock, so that a draft that is there was left by a process that died.
func replace(path string, data []byte) (err error) {
	draft := path + ".tmp"
	file, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(draft) // It says nothing yet.
		}
	}()
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(draft, path)
}
