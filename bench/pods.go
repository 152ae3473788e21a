package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pods measures n pods of CRI-O's with a container of the image each: unmoor rmi -f against what crictl does,
// stop and remove of one container after the other and then the image, both against the double of CRI-O
// (CRIO_DOUBLE). A container takes ending to end after SIGTERM.
func (b *bench) pods(n, rounds int, ending string) error {
	serial, all := make([]time.Duration, 0, rounds), make([]time.Duration, 0, rounds)
	for range rounds {
		for _, c := range []struct {
			times  *[]time.Duration
			remove func(*node) error
		}{{&serial, (*node).crictl}, {&all, (*node).unmoor}} {
			d, err := b.podsOnce(n, ending, c.remove)
			if err != nil {
				return err
			}
			*c.times = append(*c.times, d)
		}
	}
	ratio := float64(median(all)) / float64(median(serial))
	fmt.Printf("%-8s %5d  %-28s %7dms %8.2fx   (containers take %s s to end)\n", "pods", n, "stop, rm, one by one; rmi", median(serial).Milliseconds(), 1.0, ending)
	fmt.Printf("%-8s %5d  %-28s %7dms %8.2fx\n", "pods", n, "unmoor rmi -f", median(all).Milliseconds(), ratio)
	return nil
}

// node is a double of CRI-O on the bench's store.
type node struct {
	*bench
	double     *exec.Cmd
	conn       *grpc.ClientConn
	runtime    cri.RuntimeServiceClient
	containers []string
}

const pauseImage = "localhost/pause:1"

func (b *bench) doubleCommand(args ...string) *exec.Cmd {
	return exec.Command(os.Getenv("CRIO_DOUBLE"), append([]string{"-root", b.path("store", "root"), "-runroot", b.path("store", "run"),
		"-storage-driver", b.driver, "-runtime-root", b.path("store", "runc"), "-pause-image", pauseImage}, args...)...)
}

func (b *bench) podsOnce(n int, ending string, remove func(*node) error) (took time.Duration, err error) {
	if err := b.fill("podman", 0); err != nil {
		return 0, err
	}
	if err := os.WriteFile(b.path("rootfs", "bin", "pause"), []byte("pause"), 0o600); err != nil {
		return 0, err
	}
	tar, err := exec.Command("tar", "-C", b.path("rootfs"), "-c", ".").Output()
	if err != nil {
		return 0, err
	}
	imp := b.command("podman", "import", "-", pauseImage)
	imp.Stdin = bytes.NewReader(tar)
	if out, err := imp.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("podman import: %w\n%s", err, out)
	}
	socket := b.path("store", "crio.sock")
	nd := &node{bench: b, double: b.doubleCommand("-listen", socket)}
	if err := nd.double.Start(); err != nil {
		return 0, fmt.Errorf("start the double of CRI-O: %w", err)
	}
	defer func() {
		_ = nd.double.Process.Kill() // its containers go with the wipe
		_ = nd.double.Wait()
		if out, wipe := b.doubleCommand("-wipe").CombinedOutput(); wipe != nil && err == nil {
			err = fmt.Errorf("wipe the double's store: %w\n%s", wipe, out)
		}
	}()
	if nd.conn, err = grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		return 0, err
	}
	defer func() { _ = nd.conn.Close() }() // all answers are in
	nd.runtime = cri.NewRuntimeServiceClient(nd.conn)
	for i := range n {
		if err := nd.run(i, ending); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	if err := remove(nd); err != nil {
		return 0, err
	}
	took = time.Since(start)
	left, err := b.command("podman", "images", "-q", image).CombinedOutput()
	if err == nil && len(bytes.TrimSpace(left)) > 0 {
		err = fmt.Errorf("the image is left: %s", left)
	}
	return took, err
}

// run makes a pod with a container that runs.
func (n *node) run(i int, ending string) error {
	ctx := context.Background()
	config := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: fmt.Sprintf("p%d", i), Namespace: "bench", Uid: fmt.Sprint(i)},
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}}}}
	pod, err := n.runtime.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: config}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("make pod %d: %w", i, err)
	}
	script := "trap 'sleep " + ending + "; exit 0' TERM; while :; do sleep 1000 & wait; done"
	c, err := n.runtime.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: pod.PodSandboxId, SandboxConfig: config,
		Config: &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "app"}, Image: &cri.ImageSpec{Image: image},
			Command: []string{"/bin/sh", "-c", script}}})
	if err != nil {
		return fmt.Errorf("make a container of pod %d: %w", i, err)
	}
	n.containers = append(n.containers, c.ContainerId)
	if _, err := n.runtime.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		return fmt.Errorf("start the container of pod %d: %w", i, err)
	}
	return nil
}

// crictl does what `crictl stop`, `crictl rm` and `crictl rmi` ask CRI-O for, without a process for each.
func (n *node) crictl() error {
	ctx := context.Background()
	for _, id := range n.containers {
		if _, err := n.runtime.StopContainer(ctx, &cri.StopContainerRequest{ContainerId: id, Timeout: 10}); err != nil {
			return err
		}
		if _, err := n.runtime.RemoveContainer(ctx, &cri.RemoveContainerRequest{ContainerId: id}); err != nil {
			return err
		}
	}
	_, err := cri.NewImageServiceClient(n.conn).RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: image}})
	return err
}

func (n *node) unmoor() error {
	config := n.path("store", "unmoor.toml")
	text := fmt.Sprintf("[plugin.crio]\naddress = \"unix://%s\"\n", n.path("store", "crio.sock"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	out, err := n.command("unmoor", "--config", config, "rmi", "-f", "--time", "10", image).CombinedOutput()
	if err != nil {
		return fmt.Errorf("unmoor rmi -f: %w\n%s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
