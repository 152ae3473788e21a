// Package service answers what a user asks of a store: what a removal would do and its execution, what
// there is and who holds it, what is damaged.
//
// It stands between the core, which knows full IDs alone, and whoever puts the questions: the command
// line, in-process, and the daemon for its callers. It resolves references as engines take them, completes
// the image deletions that an earlier process was killed in, and says what the targets are called. It
// prints nothing and knows no exit code.
//
// An error of its methods means that nothing was changed. What went wrong once something was is in the
// answer.
package service
