// Package client asks a daemon that serves io.unmoor.Removal what package service answers in-process, with
// the same model and the same errors.
//
// What the daemon says is checked: what makes no sense is an error, and the connection is given up. A daemon
// that is not there, does not answer, refuses this user, or goes away in the middle of a removal is an error
// of its own, with what is known.
package client
