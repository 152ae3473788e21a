package buildah

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/unmoor/unmoor/core"
)

// builder is the host's plugin with a buildah that the machine's own configuration is left out of.
func (h *host) builder() *Plugin {
	return New(Options{Command: []string{"env", "CONTAINERS_CONF=" + h.dir + "/containers.conf", "TMPDIR=" + h.dir + "/tmp",
		"HOME=" + h.dir + "/home", "buildah"}})
}

func TestBuildsImage(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"overlay", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, driver)
			h.put("context/Containerfile", "FROM localhost/bb\nARG WHO=nobody\nRUN echo built for $WHO\nCOPY file /file\n")
			h.put("context/file", "content")
			var lines []string
			id, err := h.builder().Build(t.Context(), h.store, core.BuildRequest{
				Context: h.dir + "/context", Names: []string{"localhost/built", "localhost/built:two"}, Args: []string{"WHO=me"},
				Labels: []string{"a=b"}, Network: "none", Isolation: "oci", Pull: "never",
			}, func(line string) { lines = append(lines, line) })
			if err != nil {
				t.Fatalf("%v\n%s", err, strings.Join(lines, "\n"))
			}
			if !strings.Contains(strings.Join(lines, "\n"), "built for me") {
				t.Errorf("the output: %q", lines)
			}
			for _, name := range []string{"localhost/built", "localhost/built:two"} {
				got := h.must(h.podman("image", "inspect", "--format", `{{.Id}} {{index .Labels "a"}}`, name))
				if got != string(id)+" b" {
					t.Errorf("%s is %s, and %s was built", name, got, id)
				}
			}
			if left := h.stored(); len(left) > 0 {
				t.Errorf("left behind: %+v", left)
			}
		})
	}
}

func TestBuildFails(t *testing.T) {
	t.Parallel()
	h := newHost(t, "overlay")
	h.put("context/Containerfile", "FROM localhost/bb\nRUN false\n")
	request := core.BuildRequest{Context: h.dir + "/context", Isolation: "chroot", Pull: "never"}
	if id, err := h.builder().Build(t.Context(), h.store, request, func(string) {}); err == nil || !strings.Contains(err.Error(), "exit status") {
		t.Errorf("built %s: %v", id, err)
	}
	request.Context = h.dir + "/--nothing"
	if id, err := h.builder().Build(t.Context(), h.store, request, func(string) {}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("built %s: %v", id, err)
	}
	none := New(Options{Command: []string{"/nonexistent/buildah"}})
	if _, err := none.Build(t.Context(), h.store, request, func(string) {}); err == nil || !strings.Contains(err.Error(), "/nonexistent/buildah") || !errors.Is(err, core.ErrEngineAbsent) {
		t.Errorf("without buildah: %v", err)
	}
}

// TestBuildInterrupted: a caller that goes away ends the build, and what is left can be removed.
func TestBuildInterrupted(t *testing.T) {
	t.Parallel()
	for isolation, network := range map[string]string{"chroot": "host", "oci": "none"} {
		t.Run(isolation, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, "overlay")
			h.put("context/Containerfile", "FROM localhost/bb\nRUN echo begun; sleep 1207\n")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			begun := make(chan struct{})
			var once sync.Once
			go func() {
				<-begun
				cancel()
			}()
			_, err := h.builder().Build(ctx, h.store, core.BuildRequest{
				Context: h.dir + "/context", Network: network, Isolation: isolation, Pull: "never",
			}, func(line string) {
				if line == "begun" {
					once.Do(func() { close(begun) })
				}
			})
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			h.eventually("the step has ended", func() bool {
				all, err := pids()
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range all {
					if args, err := readArgs(p); err == nil && len(args) > 1 && args[len(args)-1] == "1207" {
						return false
					}
				}
				return true
			})
			var names []string
			for name := range h.claims() {
				names = append(names, name)
			}
			handles := h.handles(names...)
			for _, o := range append(h.plugin.Stop(t.Context(), h.store, handles, 0), h.plugin.Remove(t.Context(), h.store, handles)...) {
				if o.Err != nil {
					t.Error(o.Err)
				}
			}
		})
	}
}
