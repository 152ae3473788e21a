// Package storetest makes throw-away stores for tests, with images made on the spot and plain
// containers.
package storetest
