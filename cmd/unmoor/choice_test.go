package main

import (
	"slices"
	"strings"
	"testing"
)

func TestDaemonChoice(t *testing.T) {
	const socket = "unix:/run/s"
	for _, tt := range []struct {
		flags, environment string
		none               bool // no socket of this user's own
		address            string
		named              bool
		err                string
	}{
		{address: socket},
		{none: true},
		{flags: "local"},
		{flags: "root"}, {flags: "runroot"}, {flags: "storage-driver"}, {flags: "storage-opt"}, {flags: "config"},
		{environment: "UNMOOR_CONFIG"}, {environment: "CONTAINERS_STORAGE_CONF"}, {environment: "STORAGE_DRIVER"}, {environment: "STORAGE_OPTS"},
		{flags: "log-level", address: socket},
		{flags: "url", address: "unix:/url", named: true},
		{flags: "url", environment: "UNMOOR_URL STORAGE_DRIVER", address: "unix:/url", named: true},
		{flags: "url", none: true, address: "unix:/url", named: true},
		{environment: "UNMOOR_URL", address: "of UNMOOR_URL", named: true},
		{environment: "UNMOOR_URL UNMOOR_CONFIG", address: "of UNMOOR_URL", named: true},
		{flags: "root", environment: "UNMOOR_URL"},
		{flags: "local", environment: "UNMOOR_URL"},
		{flags: "url local", err: "give either"},
		{flags: "url config", err: "leave --config out"},
		{flags: "url storage-opt", err: "leave --storage-opt out"},
	} {
		t.Run(tt.flags+"/"+tt.environment, func(t *testing.T) {
			for _, v := range append(storeVariables, "UNMOOR_URL") {
				t.Setenv(v, "")
			}
			for _, v := range strings.Fields(tt.environment) {
				t.Setenv(v, "of "+v)
			}
			flags := strings.Fields(tt.flags)
			a := &app{socket: "/run/s"}
			a.global.url, a.global.local = "unix:/url", slices.Contains(flags, "local")
			if tt.none {
				a.socket = ""
			}
			address, named, err := a.daemon(func(flag string) bool { return slices.Contains(flags, flag) })
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("%v", err)
			}
			if address != tt.address || named != tt.named {
				t.Errorf("%q, named %v; want %q, %v", address, named, tt.address, tt.named)
			}
		})
	}
}
