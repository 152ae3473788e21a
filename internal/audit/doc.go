// Package audit appends records to a file, each a line of JSON, and begins another file where it has
// grown large.
//
// Promises. A record that [Log.Append] took is on the disk. One that it did not take is there whole or not
// at all. A record is never rewritten; the oldest file of those that are kept is deleted as a
// whole. A file that somebody else has moved away, logrotate say, is begun anew.
//
// Space for the next records is reserved ahead: what frees space on a full disk can be written down
// before it is done. A file that is full and that cannot be followed by another one, on a full disk or
// since it has the attribute append-only, goes on growing.
package audit
