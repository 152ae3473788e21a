package podman

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/unmoor/unmoor/core"
)

// databases says which of Podman's databases a store has (libpod/boltdb_state.go and
// libpod/sqlite_state.go, 5.4.2). Podman prefers BoltDB where both are there.
type databases struct{ bolt, sqlite bool }

const (
	boltFile   = "libpod/bolt_state.db"
	sqliteFile = "db.sql"
)

func findDatabases(store core.StoreInfo) (databases, error) {
	var d databases
	if store.GraphRoot == "" {
		return d, nil
	}
	for name, there := range map[string]*bool{boltFile: &d.bolt, sqliteFile: &d.sqlite} {
		_, err := os.Lstat(filepath.Join(store.GraphRoot, name))
		if err != nil && !os.IsNotExist(err) {
			return databases{}, fmt.Errorf("look for podman's database: %w", err)
		}
		*there = err == nil
	}
	return d, nil
}

func (d databases) none() bool { return !d.bolt && !d.sqlite }

// firstSQLite is the first release that uses an SQLite database because it finds one (4.8: 4.5 to 4.7
// do so only where they are told to). An older one makes an empty BoltDB beside it, which hides the
// other from every later Podman (tried: 4.3.1 and 5.4.2).
var firstSQLite = [2]int{4, 8}

var versionNumber = regexp.MustCompile(`^v?(\d+)\.(\d+)`)

// reads is whether a Podman of that version uses these databases as they are. A version that is not
// understood is taken for a new one.
func (d databases) reads(version string) bool {
	found := versionNumber.FindStringSubmatch(version)
	if d.bolt || !d.sqlite || found == nil {
		return true
	}
	// A number that is too long to be one is that of a new release.
	major, errMajor := strconv.Atoi(found[1])
	minor, errMinor := strconv.Atoi(found[2])
	if errMajor != nil || errMinor != nil || major != firstSQLite[0] {
		return errMajor != nil || major > firstSQLite[0]
	}
	return minor >= firstSQLite[1]
}

// olderError is a Podman that does not read the store's database.
type olderError struct{ version, database string }

func (e *olderError) Error() string {
	return fmt.Sprintf("podman %s cannot read this store's SQLite database (%s), and would make another one", e.version, e.database)
}

// Advice is what an operator can do about it.
func (e *olderError) Advice() string {
	return "set [plugin.podman] command in config.toml to the podman that the store is used with"
}
