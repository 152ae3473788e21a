// Package podman speaks for Podman: it says which containers of a store Podman keeps records of and
// what they are doing, and has Podman stop and remove them, so that Podman's own records, networks
// and pods are right afterwards.
//
// It works through the podman command line, one process for a whole batch, or through the libpod
// REST API where a socket is configured. All facts about Podman below were measured with 4.3.1
// (BoltDB) and 5.4.2 (SQLite).
//
// Vocabulary. A record is what Podman's inspect says of a container. An infra container holds a
// pod's namespaces; removing it removes the pod. An image-driver volume is a volume whose data lies
// in a storage container, which carries the same metadata as a container of Podman's but is none.
//
// Promises. A container is claimed only if Podman confirms it, and disowned only if its metadata is
// not Podman's or Podman says in so many words that there is no such container. Podman is not run
// at all where no container looks like its own, since running it on a store that it never saw
// creates its database there. A removal is never forced, so that Podman refuses a container that
// was started meanwhile. It does not refuse an infra container: that one is looked at just before, and
// refused here where it runs, as is a pod to which containers were added meanwhile.
//
// What changes something is never broken off: where the caller's time ends first, Podman goes on
// without anybody waiting for it. A container that Podman fails at, because its storage is damaged or
// another process has it locked, is undetermined, and costs the others nothing.
//
// Hazard. Podman writes its record of a new container after the storage container: one younger than
// [Options.Settling] that Podman does not know yet is nobody's to judge.
package podman
