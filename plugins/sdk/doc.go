// Package sdk serves a plugin for Unmoor on a socket. A plugin speaks for one engine: it says which
// containers of a store are that engine's, whether they are in use, and stops and removes them the
// engine's own way. Its author writes one type, a [Plugin], and
//
//	func main() { sdk.Main(engine{}) }
//
// The socket, the handshake, the checks of what comes in and goes out, the signs of life during long
// calls and the stop are the package's work. The protocol itself is varlink/io.unmoor.Plugin.varlink,
// and `unmoor plugin check` says whether a plugin keeps to it.
//
// # Vocabulary
//
// A claim is the plugin's word about one container: mine, not mine, or unknown; a mine has a state and
// a use. A handle is a container with the claim that was made about it. An outcome is what became of one
// handle. A hint is what the engine's containers look like in the store, so that Unmoor knows which ones
// a plugin that is down would have owned, and keeps them.
//
// # Promises to the plugin
//
// Whoever calls is root or the plugin's own user. A call has at most 1024 containers, handles or images,
// each once, with IDs of 64 hexadecimal digits and absolute paths. Stop and Remove get a context that
// does not end when the caller goes away, and not when the plugin is told to end: what was begun may be
// finished.
//
// # What is made of mistakes
//
// A claim that is missing, doubled, about something else or senseless costs the whole answer: the
// containers are kept. An outcome that is missing or doubled is a failure of that container. A panic in
// a method is a failure of the call, and logged; one in a goroutine that a method started ends the
// process.
package sdk
