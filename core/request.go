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
}

// ImageTarget is an image and how the request named it.
type ImageTarget struct {
	ID ImageID
	// Name is the name of the image by which it was asked for: with others left, only that name
	// goes. Empty where it was asked for by ID or digest.
	Name string
	// All is whether it is part of a request for all images: then all its names go.
	All bool
	// Reference is what the user wrote.
	Reference string
}
