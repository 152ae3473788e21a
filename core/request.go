package core

import "time"

// Request is what to remove, and how far that may go.
type Request struct {
	// Images are removed one after the other, each whole or not at all; then the containers.
	Images     []ImageTarget
	Containers []ContainerID
	Force      Force
	// Grace is the time between the polite signal and the forcible one.
	Grace time.Duration
	// NoPrune keeps the dangling parents of a deleted image.
	NoPrune bool
	// Revision, where set, is that of the plan that is meant: any other is refused.
	Revision string
}

// ImageTarget is an image and how the request named it.
type ImageTarget struct {
	ID ImageID
	// Name is the name of the image by which it was asked for: with others left, only that name
	// goes. Empty where it was asked for by ID or digest.
	Name string
	// All is whether it is part of a request for all images: then all its names go.
	All bool
	// Parent is whether it is a dangling parent that goes along with an image, as an interrupted removal
	// left it: it goes with those below it where nothing needs it, whatever the force.
	Parent bool
	// Reference is what the user wrote.
	Reference string
}

// RestOf is what an interrupted removal had yet to delete; there is some.
func RestOf(i Interrupted) ImageTarget {
	return ImageTarget{ID: i.Rest[0], Parent: true, Reference: i.Rest[0].Short()}
}
