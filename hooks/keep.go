package hooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
)

// record is what is kept of a plugin on a socket, so that it is known what it would own while it is down
// or gone, after a restart of this process too.
type record struct {
	Source      Source
	Address     string // empty where it is started by us
	Description protocol.Description
	// unreadable is why nothing of it is known but the name.
	unreadable error
	// saved is whether it lies on disk.
	saved bool
}

// recordFile is a record as it lies on disk.
type recordFile struct {
	Source      Source               `json:"source"`
	Address     string               `json:"address"`
	Description protocol.DescribeOut `json:"description"`
}

const maxRecord = 1 << 20

// keeper is the directory with a file NAME.json for each record. The zero value keeps nothing.
type keeper struct{ directory string }

func (k keeper) path(name string) string { return filepath.Join(k.directory, name+".json") }

// load reads all records. One that cannot be read is unreadable; a directory that cannot be read, or that
// others may write to, is an error.
func (k keeper) load() (map[string]record, error) {
	if k.directory == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(k.directory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = trustDirectory(k.directory)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is kept of plugins: %w", err)
	}
	records := make(map[string]record)
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || checkName(name) != nil {
			continue
		}
		rec, err := k.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			rec = record{Source: SourceDirectory, unreadable: fmt.Errorf("read %s: %w", k.path(name), err)}
		}
		rec.saved = true
		records[name] = rec
	}
	return records, nil
}

func (k keeper) read(name string) (record, error) {
	f, err := os.OpenFile(k.path(name), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return record{}, err
	}
	if err := trustFile(info); err != nil {
		return record{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	switch {
	case err != nil:
		return record{}, err
	case len(text) > maxRecord:
		return record{}, errors.New("it is too large")
	}
	var file recordFile
	if err := wire.Decode(text, &file); err != nil {
		return record{}, err
	}
	d, err := protocol.ToDescription(file.Description)
	switch {
	case err != nil:
		return record{}, err
	case d.Name != name:
		return record{}, fmt.Errorf("it is of the plugin %s", d.Name)
	case !slices.Contains([]Source{SourceConfigured, SourceDirectory, SourceRegistered}, file.Source):
		return record{}, fmt.Errorf("there is no source %q", file.Source)
	}
	if file.Address != "" {
		if _, err := socketPath(file.Address); err != nil {
			return record{}, err
		}
	}
	return record{Source: file.Source, Address: file.Address, Description: d}, nil
}

// save writes a record so that after a crash it is the new one or the old one, whole.
func (k keeper) save(r record) error {
	if k.directory == "" {
		return nil
	}
	d, err := protocol.FromDescription(r.Description)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(recordFile{r.Source, r.Address, d}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(k.directory, 0o755); err != nil {
		return err
	}
	if err := trustDirectory(k.directory); err != nil {
		return err
	}
	f, err := os.CreateTemp(k.directory, "."+d.Name+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), k.path(d.Name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return k.sync()
}

func (k keeper) sync() error {
	d, err := os.Open(k.directory)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// drop removes a record; one that is not there is no error.
func (k keeper) drop(name string) error {
	if k.directory == "" {
		return nil
	}
	err := os.Remove(k.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return k.sync()
}

// dropped is whether an operator has removed the file of a record that was there.
func (k keeper) dropped(name string, r record) bool {
	if !r.saved {
		return false
	}
	if _, err := os.Lstat(k.path(name)); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err := os.Lstat(k.directory) // with the directory gone, nobody spoke of this one
	return err == nil
}

// remember keeps what a plugin said of itself, in this process and on disk.
func (r *Registry) remember(m *member, rec record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.kept[m.name]
	if !slices.Contains(r.members, m) || old.saved && old.same(rec) && !r.keeper.dropped(m.name, old) {
		return
	}
	if err := r.keeper.save(rec); err != nil {
		// It is known in this process all the same.
		r.log.Warn("what a plugin's containers look like cannot be kept; once it is down and this process has ended, they are not known as its own",
			"plugin", m.name, "error", err)
		rec.saved = old.saved
	} else {
		rec.saved = r.keeper.directory != ""
	}
	r.keep(rec)
}

// keep and forget are of this process alone; r.mu is held.
func (r *Registry) keep(rec record) {
	kept := maps.Clone(r.kept)
	if kept == nil {
		kept = make(map[string]record)
	}
	kept[rec.Description.Name] = rec
	r.kept = kept
}

func (r *Registry) forget(name string) {
	r.kept = maps.Clone(r.kept)
	delete(r.kept, name)
}

// same is whether two records say the same.
func (r record) same(other record) bool {
	return r.unreadable == nil && r.Source == other.Source && r.Address == other.Address &&
		reflect.DeepEqual(r.Description, other.Description)
}
