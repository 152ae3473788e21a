// Package core decides what may be removed from a containers/storage store that several engines
// share, and removes it.
//
// Vocabulary. A claim is an engine's word that a container is its own, with the engine's view of
// it. Evidence is one observation behind a claim or a verdict. A holding is what all the engines'
// answers about one container come to: owned, unowned, contested or undetermined. An observation is
// the kernel's word about the use of one container's layer. A verdict is what holding and
// observation come to together: idle, in use or unknown. A pin is an engine's word that an image is to
// be kept, protection an operator's. A plan is the ordered actions of one
// request with their blockers; a blocker names the least force that lifts it.
//
// The package has two halves. [Decide] is pure: from a [Snapshot], the holdings, the observations,
// the pins and the protection it makes a [Plan], and does nothing else. [Engine] gathers those facts from the
// store, the owners and the kernel, and carries a plan out.
//
// Promises. The zero value of every answer is "unknown", and unknown is kept. Evidence adds
// blockers and never lifts one. A removal with a blocker changes nothing. Every deletion is
// preceded by fresh evidence, and a process killed at any instant leaves at most garbage that the
// same request cleans up when it runs again.
//
// The package knows no engine, no wire protocol and no configuration format.
package core
