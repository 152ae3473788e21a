package main

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// version is the CRI-O that the double is held against.
const version = "1.37.0"

// Version says that this is CRI-O, since that is what is asked for.
func (d *double) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{Version: "0.1.0", RuntimeName: "cri-o", RuntimeVersion: version, RuntimeApiVersion: "v1"}, nil
}

// Status says that all is well.
func (d *double) Status(context.Context, *cri.StatusRequest) (*cri.StatusResponse, error) {
	return &cri.StatusResponse{Status: &cri.RuntimeStatus{Conditions: []*cri.RuntimeCondition{
		{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}}}}, nil
}
