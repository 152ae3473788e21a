// Package itest runs the built binary against real engines and asks them afterwards whether their
// containers still work.
//
// It imports nothing of this module: what it knows of the product is its command line. A generation
// is one set of engines: this machine's own, or those of a root directory that everything is run in
// by chroot (setup.sh makes it). A scenario is one store of one generation with one driver, with its
// own graph root, run root and engine configuration, in a directory below /var/tmp/unmoor-itest; at
// its end the processes and mounts that belong to it are gone, also after a failure.
//
// What cannot be run here (no root, no engines) is skipped with the reason. With CI=true such a skip
// is a failure.
package itest
