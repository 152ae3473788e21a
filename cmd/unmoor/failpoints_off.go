//go:build !failpoints

package main

// failpoint is nil: there are no failpoints in this build.
func failpoint() func(string) { return nil }
