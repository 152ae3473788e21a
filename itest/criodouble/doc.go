// Criodouble, a double of CRI-O, stands in for CRI-O where there is none to install. It serves CRI v1
// on a unix socket, keeps its containers in a real containers/storage store with CRI-O's metadata,
// names, files and Volatile flag, and runs real processes with runc on the mounted roots. What it
// answers is held against records of a real CRI-O 1.37 (testdata of plugins/crio); where these say
// nothing it follows CRI-O's source. It has no networks, no cgroup limits, no pulls and no exec.
//
// It imports containers/storage directly, and nothing of Unmoor's: an engine of its own, it must open
// the store as other engines do and not through the code under test.
//
// Switches, read for every call from the file that -control names, one a line, each for all methods
// or for those named after it:
//
//	hang [METHOD…]         no answer until the caller gives up
//	slow=DURATION [METHOD…] an answer after that time
//	fail=TEXT [METHOD…]     an error with code Unknown (spaces in TEXT as _)
//	garbage [METHOD…]       lists with doubled and impossible IDs
//	unknown-state           lists with states that no version of CRI has
//	bytes                   new connections get random bytes in place of gRPC
//	name=TEXT               another RuntimeName
//
// "creating" as a METHOD is the time between a container's storage and its first listing.
//
// It leaves its containers running when it ends, as CRI-O does, and finds them again when it starts.
// With -delete it makes a wreck: the storage of a container goes, its process stays. With -wipe it ends and removes all that a double kept in the store, and serves nothing.
package main
