// Package transcribe turns the service's model into the parameters of io.unmoor.Removal and back.
//
// FromX writes: lists are never null, and what is not known is left out. ToX reads what a peer sent: a word
// that an enumeration of the interface does not have is an error, and so is a time or a number that makes
// no sense; any other word is kept as it is. What a FromX wrote a ToX reads back, equal in all that a user
// is shown, errors in what can be branched on and in their words.
package transcribe
