// Package treemap draws what a store's bytes are held by, as one HTML page that stands alone.
//
// The page needs no network and no other file: style and script are in it, and its own content security
// policy forbids everything else. Names and evidence come from engines and processes, which are not to be
// trusted: they are in the page as data, and get to the reader as text alone.
//
// A rectangle is an image with the layers that it alone has, a layer that several images share, a container,
// or a layer that belongs to nothing: each byte of the store is in one of them.
package treemap
