package itest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestProtect(t *testing.T) {
	on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		const labelled, extra, other = "localhost/unmoor/labelled:1", "localhost/unmoor/extra:latest", "localhost/unmoor/other:1"
		target := s.importImage("image", image)
		s.podman("tag", image, extra)
		base := s.importImage("bystander", bystander)
		s.buildah("from", "--pull-never", "--name", "maker", bystander)
		s.buildah("config", "--label", "keep=yes", "maker")
		s.buildah("commit", "-q", "maker", labelled)
		s.buildah("rm", "maker")
		s.buildah("from", "--pull-never", "--name", "worker", bystander)
		s.buildah("config", "--label", "keep=yes", "worker")
		// The engines' containers of an image have its labels.
		s.podman("create", "--name", "of-labelled", labelled, "true")
		s.podman("run", "-d", "--name", "db", "--label", "keep=yes", bystander, "sleep", "1000")
		s.podman("pod", "create", "--network", "none", "--name", "pod")
		s.podman("run", "-d", "--pod", "pod", "--name", "vault-1", image, "sleep", "1000")
		infra := s.podman("ps", "-a", "--no-trunc", "-q", "--filter", "name=-infra")
		all := []process{s.process(s.podmanPID("db")), s.process(s.podmanPID("vault-1"))}
		file := s.path("protect.toml")
		protect := func(lists string) {
			t.Helper()
			s.write("protect.toml", "[protect]\n"+lists+"\n")
		}
		before := s.look()
		kept := func(verb, reference string, says ...string) {
			t.Helper()
			for _, force := range forces {
				r := s.unmoor("--config", file, verb, force, "--time", "1", reference).wantCode(t, 2)
				r.wantSaid(t, append(says, file)...)
			}
		}

		protect(`images = ["*/unmoor/target"]`)
		for _, reference := range []string{image, extra, target, target[:12]} {
			kept("rmi", reference, `protected by [protect] images = "*/unmoor/target"`)
		}
		protect(`images = ["` + target + `"]`)
		kept("rmi", extra, "protected by [protect] images")
		protect(`containers = ["vault-?"]`)
		says := `protected by [protect] containers = "vault-?"`
		kept("rm", "vault-1", says)
		kept("rm", infra, "vault-1", says)
		kept("rmi", target, "vault-1", says)
		protect(`labels = ["keep=yes"]`)
		says = `protected by [protect] labels = "keep=yes"`
		kept("rmi", labelled, says)
		for _, container := range []string{"db", "worker", "of-labelled"} {
			kept("rm", container, says)
		}
		kept("rmi", base, "db", "worker", says)
		s.wantSame(before)
		wantAlive(t, all...)

		var views []struct {
			Lifted   bool
			Blockers []struct{ Reason, Detail, LiftedBy, Name string }
		}
		for _, reference := range []string{labelled, "db"} {
			r := s.unmoor("--config", file, "why", "--format", "json", reference).wantCode(t, 0)
			if err := json.Unmarshal([]byte(r.stdout), &views); err != nil {
				t.Fatal(err, r)
			}
			b := views[0].Blockers[0]
			if views[0].Lifted || b.Reason != "protected" || b.LiftedBy != "none" || b.Detail != says {
				t.Errorf("%v", r)
			}
			s.unmoor("--config", file, "why", reference).wantCode(t, 0).wantSaid(t, says, file)
		}
		if t.Failed() {
			t.FailNow()
		}

		// Of all images those go that nothing protects.
		s.buildah("from", "--pull-never", "--name", "maker", bystander)
		s.buildah("config", "--label", "keep=no", "maker")
		s.buildah("commit", "-q", "--rm", "maker", other)
		r := s.unmoor("--config", file, "rmi", "--all", "--force=kill", "--time", "1").wantCode(t, 2).wantSaid(t, says, labelled, bystander)
		wantAlive(t, all[0])
		for _, i := range s.images() {
			names := strings.Join(i.Names, " ")
			if names != labelled && names != bystander && !strings.Contains(names, "pause") {
				t.Errorf("%s %v is still there after %v", i.ID, i.Names, r)
			}
		}
		if n := len(s.containers()); n != 3 {
			t.Errorf("%d containers are left: %v", n, s.containers())
		}
		s.podman("exec", "db", "true")
		s.check()
		// And without protection nothing stays.
		s.unmoor("rmi", "--all", "--force=kill", "--time", "1").wantCode(t, 0)
		if left := fmt.Sprint(s.images(), s.containers()); left != "[] []" {
			t.Errorf("left: %s", left)
		}
	})
}
