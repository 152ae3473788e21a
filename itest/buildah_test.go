package itest

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestLiveBuild: between two RUN steps a build has no process in its container. It is kept while
// its builder lives, and is a leftover when the builder was killed.
func TestLiveBuild(t *testing.T) {
	for _, builder := range []string{"buildah", "podman"} {
		t.Run(builder, func(t *testing.T) {
			everywhere(t, func(t *testing.T, s *scenario) {
				target := s.importImage("image", image)
				asked, answer := make(chan struct{}, 8), make(chan struct{})
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked <- struct{}{}
					select {
					case <-answer:
						fmt.Fprintln(w, "data")
					case <-r.Context().Done():
					}
				})}
				served := make(chan error, 1)
				go func() { served <- server.Serve(listener) }()
				t.Cleanup(func() {
					_ = server.Close() // the listener is the test's own
					<-served
				})
				s.write("Containerfile", fmt.Sprintf("FROM %s\nRUN touch /one\nADD http://%s/file /file\nRUN touch /two\n", image, listener.Addr()))
				build := func() *background {
					args := append(s.storeFlags(), "build", "--network", "none", "--layers=false", "-t", "localhost/unmoor/built", "-f", s.path("Containerfile"), s.path("tmp"))
					cmd := s.gen.command(s.environment(), builder, args...)
					cmd.SysProcAttr.Setpgid = true
					b := s.start(cmd)
					select {
					case <-asked:
					case <-b.done:
						t.Fatalf("build: %v: %s", b.err, b.out.String())
					}
					return b
				}

				b := build()
				before := s.look()
				for _, force := range []string{"--force=none", "--force=idle", "-f"} {
					s.unmoor("rmi", force, "--time", "0", image).wantCode(t, 2).wantSaid(t, strconv.Itoa(b.pid))
				}
				s.wantSame(before)
				close(answer)
				<-b.done
				if b.err != nil {
					t.Fatalf("the build did not survive: %v: %s", b.err, b.out.String())
				}
				s.podman("run", "--rm", "localhost/unmoor/built", "cat", "/two", "/file")
				s.podman("rmi", "localhost/unmoor/built")

				answer = make(chan struct{})
				b = build()
				if err := syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				<-b.done
				if len(s.containers()) == 0 {
					t.Fatal("the killed build left no container")
				}
				s.unmoor("rmi", "--force=idle", image).wantCode(t, 0)
				if s.hasImage(target) || len(s.containers()) > 0 {
					t.Error("the leftover is still there")
				}
				s.check()
			})
		})
	}
}

// TestBuildahRunChroot: chroot isolation has a process in a mount namespace of its own and no OCI
// runtime.
func TestBuildahRunChroot(t *testing.T) {
	everywhere(t, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		s.buildah("from", "--pull-never", "--name", "b", image)
		p := s.buildahRun("b", "--isolation", "chroot")
		before := s.look()
		s.unmoor("rmi", "--force=idle", image).wantCode(t, 2).wantSaid(t, strconv.Itoa(p.pid))
		s.wantSame(before)
		s.unmoor("rmi", "-f", "--time", "0", image).wantCode(t, 0)
		wantGone(t, []process{p})
		if out := s.buildah("containers", "-q"); out != "" {
			t.Errorf("buildah still lists %s", out)
		}
		s.check()
	})
}

// TestManyOwners: what a removal says of 30 idle containers of three owners, and that it is quick.
func TestManyOwners(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		s.importImage("image", image)
		for i := range 10 {
			s.podman("create", image, "true")
			s.buildah("from", "--pull-never", image)
			s.unknown(fmt.Sprintf("u%d", i), image)
		}
		r := s.unmoor("rmi", "--force=idle", image).wantCode(t, 0)
		t.Logf("30 idle containers: %v", r.took)
		if n := strings.Count(r.said(), "\n"); n < 30 {
			t.Errorf("%d lines for 30 containers: %v", n, r)
		}
		s.check()
	})
}

// TestBuilderOfAnotherStore: a live builder elsewhere keeps nothing here.
func TestBuilderOfAnotherStore(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		other := newScenario(t, s.gen, s.driver)
		other.importImage("image", image)
		other.buildah("from", "--pull-never", "--name", "b", image)
		running := other.buildahRun("b", "--network", "none")

		s.importImage("image", image)
		s.buildah("from", "--pull-never", "--name", "b", image)
		s.unmoor("rmi", "--force=idle", image).wantCode(t, 0)
		wantAlive(t, running)
		s.check()
	})
}
