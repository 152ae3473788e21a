// Package hooks asks engine plugins whose containers these are, and has the owner stop and remove
// them.
//
// Vocabulary. A plugin speaks for one engine. An entry is a plugin with its settings; the registry
// holds the entries that main lists. A hint says what an engine's containers look like in the
// store, so that it is known what a plugin that cannot answer would have owned. An answer is valid
// as a whole or garbage as a whole. A plugin fails by an error, by silence until its deadline, by a
// panic, or by garbage.
//
// A pinner is a plugin whose engine can want an image kept, containers or not.
//
// Promises. Whatever a plugin does, [Registry] returns within its deadlines with a holding, or an
// outcome, for every container, and with a pin for every image. A container is unowned only if every plugin validly said that it is
// not its own, or failed without being required and without a hint that fits, or failed while its
// operator has set it to be ignored. An image is not pinned only if every pinner validly said so, or
// failed while it is to be ignored, or is not on this machine and no container shows that it was. "Could not find out" is never "not mine".
//
// Hazard. A plugin that ignores its context cannot be ended: its goroutine is left behind, with its
// own copy of everything that it was handed, and what it answers later is dropped. A panic is caught
// in the goroutine that called the plugin, not in those that the plugin starts.
//
// The package names no engine.
package hooks
