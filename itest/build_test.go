package itest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const built = "localhost/unmoor/built:latest"

// builds are the ways to have an image built on that of the scenes: in the command's own process, and through a daemon.
func builds(t *testing.T, scene func(t *testing.T, s *scenario, build func(args ...string) *background)) {
	for _, way := range []string{"here", "daemon"} {
		t.Run(way, func(t *testing.T) {
			on(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
				s.importImage("image", image)
				flags := s.storeFlags()
				if way == "daemon" {
					flags = []string{"--url", "unix:" + s.serve().socket}
				}
				scene(t, s, func(args ...string) *background {
					args = append(append(flags[:len(flags):len(flags)], "build", "--pull=never", "--network", "none", "--isolation", "oci"), args...)
					return s.start(s.gen.command(s.environment(), unmoorBinary, args...))
				})
			})
		})
	}
}

// context makes a build's directory with this Containerfile.
func (s *scenario) context(containerfile string) string {
	s.t.Helper()
	if err := os.MkdirAll(s.path("context"), 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.write("context/Containerfile", containerfile)
	s.write("context/file", "content\n")
	return s.path("context")
}

// TestBuild builds an image that Podman runs, and that goes as any other.
func TestBuild(t *testing.T) {
	builds(t, func(t *testing.T, s *scenario, build func(args ...string) *background) {
		target := s.images()[0].ID
		context := s.context("FROM " + image + "\nARG WHO=nobody\nRUN echo built for $WHO\nCOPY file /file\nFROM " + image + "\nRUN false\n")
		b := build("-t", built, "--build-arg", "WHO=me", "--label", "a=b", "--target", "0", context)
		<-b.done
		if b.err != nil {
			t.Fatalf("%v: %s", b.err, b.out.String())
		}
		lines := strings.Split(strings.TrimSpace(b.out.String()), "\n")
		id := lines[len(lines)-1]
		if !s.hasImage(id) || !strings.Contains(b.out.String(), "built for me\n") || !strings.Contains(b.out.String(), "STEP ") {
			t.Errorf("the output of the build of %q:\n%s", id, b.out.String())
		}
		if got := s.podman("image", "inspect", "--format", `{{.Id}} {{index .Labels "a"}}`, built); got != id+" b" {
			t.Errorf("%s is %s", built, got)
		}
		if got := s.podman("run", "--rm", built, "cat", "/file"); got != "content" {
			t.Errorf("the file in the image: %q", got)
		}
		s.unmoor("rmi", "--force=idle", built).wantCode(t, 0)

		b = build(context) // whose last stage fails
		<-b.done
		if code := b.cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(b.out.String(), "Error: build with buildah: exit status ") {
			t.Errorf("a step that fails: exit %d: %s", code, b.out.String())
		}
		s.unmoor("rmi", "--force=idle", image).wantCode(t, 0)
		if s.hasImage(target) || len(s.containers()) > 0 {
			t.Errorf("left: %v, %v", s.images(), s.containers())
		}
		s.check()
	})
}

// TestBuildInterrupted interrupts a build in a step: the step ends, and what is left can be removed.
func TestBuildInterrupted(t *testing.T) {
	builds(t, func(t *testing.T, s *scenario, build func(args ...string) *background) {
		target := s.images()[0].ID
		mark := fmt.Sprintf("sleep 18%08d", os.Getpid()*100+int(scenarios.Add(1)))
		b := build("-t", built, s.context("FROM "+image+"\nRUN "+mark+"\n"))
		var step process
		eventually(t, "the step runs", func() bool {
			if b.ended() {
				t.Fatalf("the build has ended: %v: %s", b.err, b.out.String())
			}
			step = processNamed(mark)
			return step.pid != 0
		})
		if err := b.cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		<-b.done
		if code := b.cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(b.out.String(), "Error: interrupted: ") {
			t.Errorf("exit %d: %s", code, b.out.String())
		}
		eventually(t, "the step has ended", func() bool { return !step.alive() })
		var r result
		eventually(t, "what is left is idle", func() bool {
			r = s.unmoor("rmi", "--force=idle", image)
			return r.code != 2
		})
		r.wantCode(t, 0)
		if s.hasImage(target) || len(s.images())+len(s.containers()) > 0 {
			t.Errorf("left: %v, %v", s.images(), s.containers())
		}
		s.check()
	})
}

// TestBuildWithoutEngine: where there is no buildah, or its plugin is turned off, that is said, with what to do.
func TestBuildWithoutEngine(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		context := s.context("FROM " + image + "\n")
		nowhere := []string{"PATH=" + s.path("empty")}
		d := s.serveWith(unmoorBinary, nowhere)
		cmd := s.unmoorCommand("build", context)
		cmd.Env = append(cmd.Env, nowhere...)
		for way, r := range map[string]result{
			"here":   s.do(cmd),
			"daemon": s.do(s.gen.command(s.environment(), unmoorBinary, "--url", "unix:"+d.socket, "build", context)),
		} {
			if r.code != 125 || !strings.Contains(r.stderr, `run buildah: exec: "buildah": executable file not found in $PATH; install Buildah, or say how it is run`) {
				t.Errorf("%s: %v", way, r)
			}
		}
		s.write("off.toml", "[plugin.buildah]\nenabled = false\n")
		r := s.unmoor("--config", s.path("off.toml"), "build", context).wantCode(t, 125).wantSaid(t, "no engine builds images here", "capability build")
		if strings.Contains(r.said(), "STEP") || len(s.images()) != 1 {
			t.Errorf("it was built: %v", r)
		}
		d.stop()
	})
}

// TestBuildByVarlink has varlinkctl build, and follows the event and the audit log; the plugin of the engine
// is served in a process of its own.
func TestBuildByVarlink(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		context := s.context("FROM " + image + "\nRUN echo a line\n")
		s.servePlugins("buildah")
		config, err := os.ReadFile(s.path("config.toml"))
		if err != nil {
			t.Fatal(err)
		}
		s.write("service.toml", s.serviceSections()+string(config))
		d := s.serve()
		replies := d.call("Build", object{"build": object{"context": context, "names": []string{built}, "network": "host",
			"isolation": "chroot", "pull": "never", "arguments": []string{"TOKEN=secret"}}}, "--more")
		last := replies[len(replies)-1]
		id, _ := last["imageId"].(string)
		var lines []string
		for _, r := range replies {
			for _, line := range r["lines"].([]any) {
				lines = append(lines, line.(string))
			}
		}
		if !s.hasImage(id) || !strings.Contains(strings.Join(lines, "\n"), "a line") || fmt.Sprint(last["names"]) != "["+built+"]" {
			t.Errorf("%v: %q", last, lines)
		}
		events := s.do(s.gen.command(s.environment(), unmoorBinary, "--url", "unix:"+d.socket, "events", "--stream=false"))
		if !strings.Contains(events.stdout, "image_built image "+id+" (name="+built) {
			t.Errorf("the event: %v", events)
		}
		if r := d.try("Build", object{"build": object{"context": filepath.Base(context)}}, "--more"); r.code == 0 || !strings.Contains(r.said(), "InvalidParameter") {
			t.Errorf("a relative path: %v", r)
		}
		d.stop()
		log, err := os.ReadFile(s.path("audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		if text := string(log); !strings.Contains(text, `"method":"Build"`) || !strings.Contains(text, `"verb":"build","image":"`+id) || strings.Contains(text, "secret") {
			t.Errorf("the audit log:\n%s", text)
		}
	})
}
