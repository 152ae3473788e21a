package itest

import (
	"os"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// called is whether the double has been asked for a method.
func (n *node) called(method string) bool {
	n.t.Helper()
	b, err := os.ReadFile(n.path("calls"))
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	return strings.Contains(string(b), method+" ") || strings.Contains(string(b), method+"\n")
}

// TestCRIOMakesMoreMeanwhile: CRI-O makes pods and containers of what is being removed between the plan and its
// execution. What is new is kept, and so is its image.
func TestCRIOMakesMoreMeanwhile(t *testing.T) {
	hostOnly(t, []string{"overlay"}, func(t *testing.T, s *scenario) {
		n := newNode(s)
		web := n.pod("web", cri.NamespaceMode_CONTAINER)
		n.run(web, "app", image, obliging...)
		beside := n.firstProcess(n.run(web, "beside", pauseImage, obliging...))
		begun := func(verb, name, method string) *background {
			t.Helper()
			n.control("slow=2s " + method)
			b := s.start(s.gen.command(s.environment(), unmoorBinary, append(s.storeFlags(), "--config", n.path("unmoor.toml"), verb, "-f", "--time", "2", name)...))
			eventually(t, "CRI-O is asked to "+method, func() bool { return n.called(method) })
			return b
		}
		kept := func(b *background, image string, all ...process) {
			t.Helper()
			<-b.done
			n.control("")
			code, said := b.cmd.ProcessState.ExitCode(), b.out.String()
			t.Logf("exit %d: %s", code, said)
			if code != 2 && code != 125 || !strings.Contains(said, "Error: ") {
				t.Errorf("exit %d: %s", code, said)
			}
			wantAlive(t, all...)
			for _, p := range all {
				if err := p.sees("/etc/name"); err != nil {
					t.Errorf("%v of the new container lost its files: %v", p, err)
				}
			}
			n.unmoor("why", image).wantCode(t, 0)
		}

		// A pod with a container of the image comes while an earlier container is stopped.
		b := begun("rmi", image, "StopContainer")
		latePod := n.pod("late", cri.NamespaceMode_CONTAINER)
		late := n.run(latePod, "app", image, obliging...)
		lateProcess := n.firstProcess(late)
		kept(b, image, lateProcess, beside)
		if !s.hasImage(n.target) || !s.hasContainer(late) {
			t.Fatal("the image or the new container is gone")
		}

		// A container joins a pod while that one is stopped: CRI-O stops it too, but it is not removed.
		if err := os.Remove(n.path("calls")); err != nil {
			t.Fatal(err)
		}
		b = begun("rm", web, "StopPodSandbox")
		joined := n.run(web, "joined", pauseImage, obliging...)
		kept(b, pauseImage, lateProcess)
		if containers, _ := n.lists(); !s.hasContainer(joined) || !strings.Contains(strings.Join(containers, " "), joined) {
			t.Errorf("the new container is lost: CRI-O lists %v", containers)
		}

		// The same command again decides anew.
		n.unmoor("rmi", "-f", "--time", "2", image).wantCode(t, 0)
		wantGone(t, []process{lateProcess})
		n.unmoor("rm", "-f", "--time", "2", web, latePod).wantCode(t, 0)
		wantGone(t, []process{beside})
		if containers, pods := n.lists(); len(containers)+len(pods) > 0 {
			t.Errorf("CRI-O still lists %v, %v", containers, pods)
		}
		n.wantNoMounts()
		s.check()
	})
}
