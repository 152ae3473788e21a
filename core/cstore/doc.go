// Package cstore is core.Store over a containers/storage store.
//
// It is the only package that imports containers/storage and containers/image, for two copies of
// the storage module in one process would not exclude each other, and so that a change of module is
// one package's work.
//
// Promises. No lock of the store is held between two calls. The store is never shut down or wiped, since
// engines share its mounts. Names are given to images that are loaded or imported, and otherwise never added.
// A record file that cannot be read stops every call before it changes anything, and so does one that a crash
// emptied, which the library would take for a store without records. After a call that failed in an unforeseen
// way the records are read from disk again, since the library's memory and the disk may differ then.
//
// The deletion of an image, with the dangling parents that go after it, is announced in a file of ours,
// GRAPHROOT/unmoor/delete-ID.json, before the library begins with it, for the library deletes a record
// first and a process killed then leaves layers that nothing refers to. The file goes last. From the
// announcement to the end a file lock of ours is held, GRAPHROOT/unmoor/lock, which dies with its
// process: whoever gets it knows that an announcement that is there belongs to nobody alive. The
// library's own lock files are never opened, since closing any descriptor of one gives up the process's
// locks.
//
// Images come in as the engines' do, by containers/image. An archive is looked at before the library reads it,
// for the library trusts what it unpacks: see vet.go for what is refused, load_journal.go for how nothing stays
// behind of what fails, is cancelled or is killed.
//
// Hazards. The library deletes through mounts: who deletes a container or an image sees to it first that
// nothing is mounted at or below the layers (see core.Kernel).
package cstore
