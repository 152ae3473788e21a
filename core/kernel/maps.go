package kernel

import (
	"bytes"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is one mapped file of a process.
type mapping struct {
	addresses  string // as map_files names it
	dev, inode uint64
}

// parseMaps reads the mapped files out of /proc/PID/maps, each once. Lines that it cannot read it
// leaves out.
func parseMaps(b []byte) []mapping {
	var all []mapping
	seen := make(map[mapping]bool)
	for line := range bytes.Lines(b) {
		// addresses perms offset major:minor inode path
		var fields [5]string
		rest := string(bytes.TrimSuffix(line, []byte("\n")))
		for k := range fields {
			fields[k], rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
		}
		inode, err := strconv.ParseUint(fields[4], 10, 64)
		if err != nil || inode == 0 {
			continue
		}
		major, minor, _ := strings.Cut(fields[3], ":")
		ma, err1 := strconv.ParseUint(major, 16, 32)
		mi, err2 := strconv.ParseUint(minor, 16, 32)
		if err1 != nil || err2 != nil {
			continue
		}
		m := mapping{dev: unix.Mkdev(uint32(ma), uint32(mi)), inode: inode}
		if seen[m] {
			continue
		}
		seen[m] = true
		// maps pads the addresses with zeros, map_files does not.
		from, to, _ := strings.Cut(fields[0], "-")
		m.addresses = trimZeros(from) + "-" + trimZeros(to)
		all = append(all, m)
	}
	return all
}

func trimZeros(s string) string {
	if t := strings.TrimLeft(s, "0"); t != "" {
		return t
	}
	return "0"
}
