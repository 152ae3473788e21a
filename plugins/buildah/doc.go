// Package buildah speaks for Buildah: it says which containers of a store are Buildah's working
// containers and whether something works in them, and ends what does. It never runs buildah.
//
// Vocabulary. A working container is a storage container with a buildah.json of Buildah's own; a
// builder is a process that makes working containers (buildah from and build, podman build, podman
// system service); a worker is one that was told on its command line to work in a container which
// is there already (buildah run, commit, add, copy). Inside is a process whose root is in a
// container.
//
// Nothing in the store says whether a build lives: no lock, no pid, and a killed build leaves the
// very records of a live one. So the processes are looked at, all of them once a claim. A container
// with somebody inside, or a worker that names it, is in use. One that is older than every live
// builder on its store is a leftover, unless it is mounted. One that a live builder may have made is
// of unknown use, with that builder as evidence, and no Stop is attempted: between two steps there is
// nothing to stop. The same goes for a worker that may work on another store: it is never signalled.
//
// Hazards. Builder and container are put in order by the wall clock, with two seconds to spare, which
// a clock that is set forward upsets. That cannot harm a build, whose container is mounted: mounted
// ones may be any live builder's, at the price that what a killed build left is not told from a live
// one's container while another build runs. What remains is the moment between the making of a
// container and its mount, and buildah from, which does not mount. A podman system service counts as
// a builder as long as it lives, whether or not it builds, since it cannot be told from outside. What has left its builder's family (a daemon under
// chroot isolation whose parents have ended) is not seen here; the kernel's own scan names it.
// Programs with Buildah built in that bear neither name are known only by Options.Builders.
package buildah
