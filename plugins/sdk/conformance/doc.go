// Package conformance checks whether a plugin keeps to io.unmoor.Plugin, in whatever language it is
// written: it calls it on its socket, as Unmoor does and as nobody should, and judges what comes back by
// rules. It is behind `unmoor plugin check`.
//
// Vocabulary. A rule is one sentence about a plugin that can hold or fail. A rule needs others where it
// cannot be judged without them; it is skipped where one of those fails, and where what it is about is not
// there: a capability, a ready engine, a container to try it on. Evidence is what was seen of a failure.
// A target is a plugin that can be connected to.
//
// Promises. A rule judges its own sentence alone, so that one mistake fails one rule. No container that
// exists is asked to be stopped or removed, but the one that Options names: all others are made up, with
// random IDs, in a store that is made up too unless one is named.
package conformance
