// Package wire is the guard around github.com/varlink/go.
package wire
