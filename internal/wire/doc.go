// Package wire is the guard around github.com/varlink/go: what stands between that library and clients or
// services that cannot be trusted to behave.
//
// Vocabulary. A message is a JSON object and the NUL that ends it. A call is a message of a client's, a
// reply one of a service's; a reply that continues is not the last. The peer is who is at the other end. A
// handler is what an [Interface] does for a call. The ordinary are all users but root and the one that we
// run as.
//
// The library does the types of the wire, the finding of a handler, and, in other packages, the code that
// is generated from an interface's description. Listening, framing, limits and the connection of a client
// are done here. UAPI.20 (uapi-group's Varlink specification) decides what is right.
//
// # What a server promises
//
// A malformed message closes its connection. A call that is not as its interface's description says gets
// the error that UAPI.20 has for it, and no handler sees it. Calls of one connection are answered in order,
// one after another; a oneway call is never answered. Every message and reply is whole within a time, and
// no connection is without a call for longer than another. Connections, those of one user, handlers,
// descriptors, and the bytes of messages are bounded; whoever is beyond a bound loses the connection, but a
// call waits for a handler's place. Of all these there are some that only root can take. A handler's
// context ends with its call, with its peer, and with the server; its panic costs its connection alone.
//
// # What a client promises
//
// A reply is the answer to the call that was just made, whole and as the caller's type says, or there is an
// error. A connection that has given any reason to doubt that is closed for good.
//
// # Hazards of the library
//
// Each was measured (v0.4.1-0.20261015173642), and has tests of its number.
//
//  1. A message may be endless.
//  2. Descriptors that come with parts of a message are kept without bounds.
//  3. A handler does not learn that its peer has gone.
//  4. A client that does not read blocks a handler for ever.
//  5. A handler's panic ends the process; one that returns without a reply leaves its client waiting.
//  6. A process without a free descriptor stops listening.
//  7. Idle clients hold up the end.
//  8. Binding removes whatever lies at the path, another instance's socket too, and leaves the mode to the
//     umask.
//  9. Absent and null parameters are wrong, though all of them may be optional.
//  10. Standard errors cannot be sent, or are the wrong ones.
//  11. Unknown, missing and doubled members pass, in any case of letters; so do flags that exclude each other.
//  12. Nil slices and maps become null where null is not allowed.
//  13. A client that gave up, or got a reply too many, takes the next reply for the wrong call's.
//  14. A client waits longer than its context.
//  15. A reply without parameters can be an error to a client that expects none.
//  16. A missing field is its zero value.
//  17. Calls side by side on one connection get each other's replies.
//
// # Hazards that remain
//
// A handler that ignores its context holds its place, and [Server.Serve], until it returns. A panic in a
// goroutine that a handler started is not caught. Reading a message costs several times its bytes, in the
// library and in the handler: where no large ones are needed, MaxMessage should say so. Who connects as
// many ordinary users can keep other ordinary ones out. A peer is known by who connected, or listened, and
// that may not be who speaks. Types whose fields are embedded cannot be decoded.
package wire
