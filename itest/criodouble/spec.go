package main

import (
	"encoding/json"
	"maps"
	"os"
	"strconv"
	"time"
)

// spec is the part of an OCI configuration that a double needs.
type spec struct {
	Version     string            `json:"ociVersion"`
	Process     specProcess       `json:"process"`
	Root        specRoot          `json:"root"`
	Hostname    string            `json:"hostname,omitempty"`
	Mounts      []specMount       `json:"mounts"`
	Annotations map[string]string `json:"annotations"`
	Linux       specLinux         `json:"linux"`
}

type specProcess struct {
	User struct {
		UID int `json:"uid"`
		GID int `json:"gid"`
	} `json:"user"`
	Args         []string            `json:"args"`
	Env          []string            `json:"env"`
	Cwd          string              `json:"cwd"`
	Capabilities map[string][]string `json:"capabilities"`
}

type specRoot struct {
	Path     string `json:"path"`
	Readonly bool   `json:"readonly,omitempty"`
}

type specMount struct {
	Destination string   `json:"destination"`
	Type        string   `json:"type"`
	Source      string   `json:"source"`
	Options     []string `json:"options"`
}

type specLinux struct {
	Resources   json.RawMessage `json:"resources"`
	CgroupsPath string          `json:"cgroupsPath"`
	Namespaces  []specNamespace `json:"namespaces"`
}

type specNamespace struct {
	Type string `json:"type"`
	Path string `json:"path,omitempty"`
}

// newSpec is the configuration of a container with the host's network and namespaces of its own for
// the rest. Limits and the OOM score are left alone: they need CAP_SYS_RESOURCE.
func newSpec(c *container, args, env []string, cwd, shm string) *spec {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	if cwd == "" {
		cwd = "/"
	}
	capabilities := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_KILL"}
	s := &spec{Version: "1.0.2", Hostname: host, Annotations: make(map[string]string),
		Process: specProcess{Args: args, Cwd: cwd, Env: append([]string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"}, env...),
			Capabilities: map[string][]string{"bounding": capabilities, "effective": capabilities, "permitted": capabilities}},
		Root: specRoot{Path: c.mountPoint, Readonly: c.sandbox},
		Mounts: []specMount{
			{"/proc", "proc", "proc", []string{"nosuid", "noexec", "nodev"}},
			{"/dev", "tmpfs", "tmpfs", []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		},
		Linux: specLinux{CgroupsPath: "/crio-" + c.id, Resources: json.RawMessage(`{"devices":[{"allow":false,"access":"rwm"}]}`),
			Namespaces: []specNamespace{{Type: "pid"}, {Type: "ipc"}, {Type: "uts"}, {Type: "mount"}}}}
	if shm != "" {
		s.Mounts = append(s.Mounts, specMount{"/dev/shm", "bind", shm, []string{"rw", "bind"}})
	}
	return s
}

const prefix = "io.kubernetes.cri-o."

// annotate says what CRI-O says of every container.
func (c *container) annotate(more map[string]string) {
	a := c.spec.Annotations
	a["io.container.manager"] = "cri-o"
	a[prefix+"ContainerID"] = c.id
	a[prefix+"Created"] = time.Unix(0, c.createdAt).UTC().Format(time.RFC3339Nano)
	a[prefix+"Image"] = c.image
	a[prefix+"ImageName"] = c.image
	a[prefix+"LogPath"] = c.logPath
	a[prefix+"MountPoint"] = c.mountPoint
	a[prefix+"SandboxID"] = c.pod
	a[prefix+"SeccompProfilePath"] = "Unconfined"
	maps.Copy(a, more)
}

// quote is JSON text; what a double marshals cannot fail.
func quote(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func boolean(b bool) string { return strconv.FormatBool(b) }
