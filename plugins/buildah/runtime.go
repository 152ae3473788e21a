package buildah

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// runtimePrefix begins the OCI names of buildah run's containers: "buildah-" and the name of its
// bundle, buildahNNN (containers/buildah v1.39.3, run_linux.go, Run: Package + "-" + the base of a
// temporary directory whose name starts with Package).
const runtimePrefix = "buildah-buildah"

// runtimePIDs lists the first processes of what OCI runtimes run for Buildah, so that one whose
// buildah was killed is found too. They are hints only: the state may be a dead one's. A directory
// that cannot be read adds nothing, since the kernel's own scan does not depend on it.
func runtimePIDs(dirs []string) []int {
	var found []int
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), runtimePrefix) {
				continue
			}
			for _, file := range []string{"state.json", "status"} { // runc's, crun's
				f, err := os.Open(filepath.Join(dir, e.Name(), file))
				if err != nil {
					continue
				}
				if pid := parseState(f); pid > 1 {
					found = append(found, pid)
				}
				f.Close() // only read
			}
		}
	}
	return found
}

// parseState finds the pid in a runtime's state: init_process_pid of runc 1.1 to 1.3, pid of crun
// 1.8 to 1.21. It is read no further than that. 0 where there is none.
func parseState(r io.Reader) int {
	d := json.NewDecoder(io.LimitReader(r, 1<<20))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return 0
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return 0
		}
		if key == "init_process_pid" || key == "pid" {
			var pid int
			if d.Decode(&pid) != nil {
				return 0
			}
			return pid
		}
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return 0
		}
	}
	return 0
}
