// Package hooks asks engine plugins whose containers these are, and has the owner stop and remove
// them.
//
// Vocabulary. A plugin speaks for one engine: in this process, or on a socket (io.unmoor.Plugin). An
// entry is a plugin of the configuration with its settings. The registry's members are the plugins of
// this moment: those of the entries, of the directory of sockets, those that were registered, and those
// of which nothing is left but a record. A record is what a plugin on a socket said of itself, kept on
// disk. A hint says what an engine's containers look like in the store, so that it is known what a plugin
// that cannot answer would have owned. A pinner is a plugin whose engine can want an image kept,
// containers or not; a builder is one whose engine builds images. An answer is valid as a whole or garbage as a whole. A plugin fails by silence until
// its deadline, by breaking (a panic, a connection closed in the middle of a call) or by garbage; three
// failures within a minute put it into quarantine. That its engine cannot answer is no failure.
//
// Promises. Whatever a plugin does, [Registry] returns within its deadlines with a holding, or an
// outcome, for every container, and with a pin for every image; what is read of a plugin is bounded. A
// container is unowned only if every plugin validly said that it is not its own, or failed without being
// required and without a hint that fits, or failed while its operator has set it to be ignored. An image
// is not pinned only if every pinner validly said so, or failed while it is to be ignored, or is not on
// this machine and no container shows that it was. "Could not find out" is never "not mine". A plugin
// that is down, in quarantine, or gone from the directory or the configuration keeps what it may own,
// until an operator says that it is gone for good ([Registry.Unregister], or the record's file removed).
// A stop or removal that a plugin has begun is not broken off by us; only the waiting for it ends. A build
// may take for ever, as long as there are signs of life, and ends when its caller wants it to.
//
// Hazard. A plugin in this process that ignores its context cannot be ended: its goroutine is left
// behind, with its own copy of everything that it was handed, and what it answers later is dropped. A
// panic is caught in the goroutine that called the plugin, not in those that the plugin starts. A socket
// in the directory is believed to speak for the engine of its name, and one that never described itself
// may own anything: so the directory is read only where nobody but root, or we, could have put it there.
//
// The package names no engine.
package hooks
