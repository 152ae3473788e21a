// Package kernel says who uses a layer of a containers/storage store, by what the Linux kernel shows
// of processes and mounts.
//
// Vocabulary. A user is a process whose end would let go of the layer. A holder keeps the layer and
// is no process, or it is a reason why a user cannot be ruled out. The host is the mount namespace of
// pid 1, and everything is looked at from there: where Unmoor is in another mount namespace, or in a
// chroot, an Inspector enters the host's on a thread of its own, and [New] refuses with a
// *NamespaceError where it may not. A place is a path within a file system; layers and mounts are
// matched by places, superblocks and mount IDs, which no chroot, bind mount or namespace changes.
//
// # The verdicts of Observe
//
// In use: at least one process is named. Its root, working directory, executable, an open or mapped
// file, or a thread's root or working directory is in the layer (through the layer's superblock,
// through any mount of a part of it, attached or not, or directly in its directories); or it uses a
// mount at or below the layer's directory; or it is in a mount namespace other than the host's and
// our own that has the layer mounted elsewhere than the host has it (a bind mount of one file).
//
// A layer of an image is in use too where a process is on an overlay that has it as a lower directory
// and is the container of another store: one that has this store as an additional one. Which layer an
// option of an overlay names is looked up from where the overlay is mounted; in doubt it is ours.
// Observe leaves overlays out whose own layer is in the same store home, for the store's records say
// more, and those of the layers that it is asked about in the same call. Release leaves none out. Of an
// orphan, a layer that belongs to nothing, the records say nothing: it is looked at as a layer of an image,
// whether or not it has an upper directory, and nothing of the same home is left out.
//
// Unknown: no process is named, and one of these holds. The layer is mounted on the host outside of
// its directory, or in a namespace that is kept without a process. A superblock of it lives (by the
// probe, or by a FUSE server's process) and is mounted in no namespace that can be read. Its mount is
// busy (MNT_EXPIRE) by nothing that can be named: a loop device, say. A process that may use it, or
// a mount namespace, cannot be looked into; procfs does not show every process. A process is on an overlay
// that is mounted in no namespace and cannot be told to be of another layer, and the layer's superblock
// lives. The driver is
// neither overlay nor vfs, or the layer's directory cannot be looked at. An overlay of another store
// stands on it, with nobody in it. Processes that use it, or might, come and go faster than they can
// be looked at. Unmoor itself is in it: this goes before every other process, since ending those would
// not free it. The evidence says which.
//
// Idle: none of that. Mounts at the layer's directory that nobody uses, copies of them that another
// namespace inherited, and foreign mounts below it are evidence of an idle layer, and no use. So is a
// layer whose directory does not exist. An ordinary user's image that is mounted nowhere is idle though
// processes outside of the user's namespaces cannot be looked into: else no such image could ever go.
//
// Processes that end meanwhile. A named process that has SIGKILL to take, or is on its way out, is waited
// for, one second in all, and then everything is looked at anew; so is, for a quarter of a second, a
// superblock that nobody is seen to hold.
//
// Processes that come meanwhile. A single pass misses a process that forks and ends while others are
// looked at, and so its child. So the processes are listed again, the youngest looked at first, until
// a pass in which none ended between being listed and being looked at, for 200 ms at most: what lived
// at the time of that list was seen, and what came later came of those. A process that was seen in a
// layer and cannot be named any more makes the whole look worth nothing, as does the lack of such a
// pass for layers that only a scan shows idle (vfs, FUSE, layers of images); after the third look it
// is unknown. A process that goes into a layer after it was looked at is not seen by any of this; for
// overlay the probe and MNT_EXPIRE see it.
//
// What is asked: root, cwd and exe of every process and the mounts of every namespace, always. The
// probe, for each writable overlay layer that is mounted nowhere. Threads, open files and maps (the
// dear scan), where a superblock lives and nobody is named, and for what the probe says nothing of: vfs,
// FUSE, layers of images and orphans. What could not be looked at for whatever reason counts as a process
// that cannot be looked into. Where more than 4 layers would have to be probed, and more than a quarter of the number
// of processes, one dear scan stands in for the probes, unless it finds a process on a mount that is
// in no namespace: then they are probed after all. A superblock that neither a process nor a mount
// shows (a descriptor in flight in a socket) is then left to Release, which always probes.
//
// # What Release proves
//
// Overlay: that no live superblock owns the upper directory, by the probe, after a plain unmount of
// everything at or below the layer's directory in every namespace. A layer that is mounted nowhere
// costs the probe and one reading of the host's mounts. Processes are not scanned then: one whose
// working directory is in the upper directory itself, past the overlay, is Observe's to find. Mounts
// of other file systems below the directory in a namespace of others are not looked for then either;
// a removal cannot go through them, and takes them along. FUSE, vfs and layers of images: by a scan
// as in Observe, after the unmount. A refused Release may have unmounted some of what was idle, and
// does not mount it again.
//
// Hazards. No call waits for a dead network or FUSE file system: links of procfs are followed without
// asking the server, and what does ask it is given a second on a thread that may be lost. Exceptions
// are the store's own file system, and an unmount of what is mounted below a FUSE mount whose server
// is stopped. An overlay of another store that is mounted in no namespace, and used by processes, is
// not known to stand on a layer of an image. The probe is an overlay mount that must fail; each leaves a line in the kernel's log. It
// sees no superblock of another kernel: a store on a network file system is beyond it.
// Kernels before 6.12 have no list of mount namespaces: then those of processes and of bind mounts
// of nsfs on the host are read, and a namespace that nothing of this shows is Release's to find, by the
// probe. Kernels before 5.8 do not say which mount a file is on, and before 5.2 the probe needs a
// tmpfs at /run or /dev/shm.
package kernel
