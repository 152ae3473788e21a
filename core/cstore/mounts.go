package cstore

import (
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
)

// mountBelow finds a mount at or below one of the directories in this mount namespace.
func mountBelow(directories ...string) (string, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !slices.ContainsFunc(directories, func(directory string) bool {
			return m.Mountpoint == directory || strings.HasPrefix(m.Mountpoint, directory+"/")
		}), false
	})
	if err != nil || len(mounts) == 0 {
		return "", err
	}
	return mounts[0].Mountpoint, nil
}
