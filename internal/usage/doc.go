// Package usage keeps the journal of when the images of a store were used.
//
// Vocabulary. A look is one reading of the store: an image is used that has a container, whatever its
// state, or is mounted, and so is what such an image was built on, and a list that holds it. A watch is an
// unbroken series of looks. The journal has for each image of the store when it was seen first, and when a
// use of it was seen last, and for all of them since when no use can have been missed.
//
// Promises. What cannot be told makes an image seem used later than it was, never earlier. A journal that
// cannot be read is no journal: every image's past is unknown then, until it was watched anew.
//
// After a break in the watch the store itself helps: a container comes and goes with a layer, and so no
// image was used after the last change of the directory that holds the layers, but by what is still there.
// What is missed are mounts of images that begin and end within the break, and in a watch containers that
// live for less than the time between two looks, a tenth of a second as a rule.
//
// Hazard. A clock that is set forward makes everything seem long unused.
//
// The journal lies in the store, GRAPHROOT/unmoor/usage.json, so that it goes where the store goes. Engines
// ignore it.
package usage
