package itest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImagesIn: what is loaded or imported is to Podman what its own commands make, and runs.
func TestImagesIn(t *testing.T) {
	on(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		policy := s.acceptAll()
		archive := filepath.Join(run, "image.tar")
		id := s.importImage("image", image)
		s.podman("tag", image, "localhost/second:2")
		for format, path := range map[string]string{"docker-archive": "docker.tar", "oci-archive": "oci.tar"} {
			s.podman("save", "-q", "--format", format, "-o", s.path(path), image)
			s.podman("rmi", "-a", "-f")
			r := s.unmoor("load", "-q", "--signature-policy", policy, "-i", s.path(path))
			if want := "Loaded image: " + image + "\n"; r.code != 0 || r.stdout != want {
				t.Fatalf("%s: %v", format, r)
			}
			if got := s.podman("image", "inspect", "--format", "{{.Id}}", image); got != id {
				t.Errorf("%s: the image is %s, and was %s", format, got, id)
			}
			s.podman("run", "--rm", image, "true")
		}
		config := s.podman("image", "inspect", "--format", "{{.Config}} {{.RootFS}} {{.History}}", image)
		s.podman("rmi", "-a", "-f")
		got := s.must(s.unmoor("import", "-q", "--signature-policy", policy, archive, image))
		if want := s.podman("image", "inspect", "--format", "sha256:{{.Id}}", image); got != want {
			t.Errorf("it says %s, and the image is %s", got, want)
		}
		ours := s.podman("image", "inspect", "--format", "{{.Config}} {{.RootFS}}", image)
		if !strings.HasPrefix(config, ours) {
			t.Errorf("the image is\n%s\nand podman's was\n%s", ours, config)
		}
		s.podman("run", "--rm", image, "true")
		s.unmoor("rmi", image).wantCode(t, 0)
		s.check()
		if left, err := os.ReadDir(s.path("btmp")); err != nil || len(left) > 0 {
			t.Errorf("temporary files are left: %v, %v", left, err)
		}
	})
}

// TestKilledLoad: what a load leaves that is killed between two layers is found by the doctor and goes with
// its repair, and the same command then completes.
func TestKilledLoad(t *testing.T) {
	on(t, []string{"overlay", "vfs"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		s.podman("save", "-q", "-o", s.path("a.tar"), image)
		s.podman("rmi", "-a", "-f")
		load := []string{"load", "-q", "--signature-policy", s.acceptAll(), "-i", s.path("a.tar")}
		for _, step := range []string{"store_put_layer", "store_layer_put"} {
			if r := s.dieAt(step, load...); r.code != -1 {
				t.Fatalf("not killed: %v", r)
			}
			s.unmoor("doctor").wantCode(t, 2).wantSaid(t, "Interrupted load")
			s.unmoor("doctor", "--repair").wantCode(t, 0).wantSaid(t, "Repaired: Interrupted load")
			s.unmoor("doctor", "--max", "1ns").wantCode(t, 0)
			s.check()
			if left, err := os.ReadDir(s.path("btmp")); err != nil || len(left) > 0 {
				t.Errorf("temporary files are left: %v, %v", left, err)
			}
		}
		s.unmoor(load...).wantCode(t, 0)
		s.podman("run", "--rm", image, "true")
	})
}

// acceptAll writes a signature policy that lets everything in: a machine may have none.
func (s *scenario) acceptAll() string {
	s.write("policy.json", `{"default":[{"type":"insecureAcceptAnything"}]}`)
	return s.path("policy.json")
}
