// Package crio speaks for CRI-O: it says which containers of a store CRI-O lists and what they are
// doing, and has CRI-O stop and remove them, so that its own records, networks and pods are right
// afterwards. It talks CRI v1 on CRI-O's socket. Facts about CRI-O are of 1.37, measured or read in
// its source, unless another version is named.
//
// Vocabulary. A sandbox is CRI-O's record of a pod; its storage container has the pod's ID and the
// pause image, and by default (drop_infra_ctr) no process. An application container belongs to one
// sandbox. A forgotten container is one with CRI-O's metadata in CRI-O's own store that CRI-O does
// not list, and that is older than [Options.Settling].
//
// Promises. A container is claimed only where CRI-O is on the very store that was asked about and
// either lists it or would have made it. CRI-O is not asked where no container looks like its own. A
// batch costs one connection and three questions side by side (containers, sandboxes, where the
// store is), a fourth (who answers there) only where something is not listed. All calls of one
// operation go through one connection, so that their answers come from one CRI-O. A state that is
// not known here is of unknown use. A ready sandbox is in use, process or not.
//
// An image is pinned where CRI-O's state of it says so; of a store that is not CRI-O's none is.
//
// Hazards. CRI-O does not list what it is still creating (server/container_list.go,
// server/sandbox_list.go), and its storage container is there before that. So a young unlisted one
// is nobody's to judge. StopPodSandbox, RemovePodSandbox and RemoveContainer take the deadline of the call for
// the grace period (server/utils.go, stopTimeoutFromContext), so that a container which ignores
// SIGTERM would use up all of it: the containers of a pod are stopped one by one before.
// RemoveContainer stops a running container first and succeeds for an unknown one: its state is
// asked for just before.
package crio
