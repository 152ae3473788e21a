// Package daemon is the service io.unmoor.Removal: it answers the calls that a wire.Server hands it.
//
// Vocabulary. A caller is who called, by the kernel's word. The class of a method says what it does, and
// access which callers may call which class. A setup is all that a new configuration replaces. An operation
// is one removal or repair, with all callers that wait for its end. What only looks at the store is let in
// by the gate. The ring has the last events, for monitors.
//
// Promises. A method without a class is for nobody, and who cannot be told is a stranger. Of two removals
// that are the same there is one; two that touch the same run one after the other, in the order in which
// they came; others run side by side. A removal that cannot be written down is not begun. It ends between
// two actions once nobody waits for it, or when the daemon stops, and in both cases the audit log has what
// was done. No caller, by not reading, by going away, or by their number, keeps an operation from its work,
// root's calls from an answer, or an event from being told.
//
// Hazards. Nothing here bounds how long an operation takes: that is the engines' and the store's to do. The
// package trusts the wire to end a handler's context when its caller goes, and a write that is not taken.
package daemon
