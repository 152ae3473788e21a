package cstore

import (
	"github.com/containers/storage/pkg/reexec"
	"github.com/containers/storage/pkg/unshare"
	"github.com/sirupsen/logrus"
)

// Reexec runs what the library started this executable again for, and returns true if it did; then
// main has to return. It comes first in main, before flags are looked at.
func Reexec() bool { return reexec.Init() }

// Rootless is whether the store that is opened where none is named is that of an ordinary user, as the
// library tells it: also within that user's namespace, where the user is root.
func Rootless() bool { return unshare.IsRootless() }

// EnterUserNamespace puts the process of an ordinary user into a user namespace of its own, with the
// user's subordinate IDs, as rootless engines do; without it the files of a rootless store cannot be
// deleted. The process is executed again inside, and its exit code is passed on; so call it early in
// a command that opens a store, before there is any output. As root it does nothing. The binary
// must be built with cgo. Where that cannot be done the library says so on standard error and ends
// the process with 1.
func EnterUserNamespace() {
	// Its warnings, of a user without subordinate IDs say, would precede every command.
	logrus.SetLevel(logrus.ErrorLevel)
	unshare.MaybeReexecUsingUserNamespace(false)
}
