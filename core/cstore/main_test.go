package cstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

var drivers = []string{"overlay", "vfs"}

// childVar makes the test binary a child that does one thing with a store: verb, graph root, run
// root, driver, and the verb's arguments, between blanks.
const childVar = "UNMOOR_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVar) != "" && os.Args[0] == os.Getenv("UNMOOR_TEST_SELF") {
		child(strings.Fields(os.Getenv(childVar)))
	}
	storetest.Main(m)
}

func child(args []string) {
	cstore.Reexec()
	ctx := context.Background()
	for i, arg := range args {
		if arg == "-" {
			args[i] = ""
		}
	}
	options := cstore.Options{GraphRoot: args[1], RunRoot: args[2], Driver: args[3]}
	if args[0] == "info" && args[4] != "" {
		options.DriverOptions = strings.Split(args[4], ",")
	}
	s, err := cstore.Open(ctx, options)
	if err == nil {
		switch args[0] {
		case "open":
			_, err = s.Snapshot(ctx)
		case "info":
			fmt.Println(s.Info().Default, s.Info().GraphRoot, s.Info().RunRoot, s.Info().GraphDriver, s.Info().GraphOptions)
		case "delete-image":
			if len(args) > 5 {
				dieAt(s, args[5])
			}
			var chain []core.ImageID
			for _, id := range strings.Split(args[4], ",") {
				chain = append(chain, core.ImageID(id))
			}
			err = deleteImages(ctx, s, chain...)
		case "complete":
			if len(args) > 4 {
				dieAt(s, args[4])
			}
			_, err = s.CompleteInterrupted(ctx)
		case "load":
			if len(args) > 6 {
				dieAt(s, args[6])
			}
			_, err = s.Load(ctx, core.LoadRequest{Source: core.ImageSource{Path: args[4]}, Copy: core.CopyOptions{SignaturePolicy: args[5]}})
		case "delete-all":
			err = deleteAll(ctx, s)
		case "delete-containers":
			if len(args) > 4 {
				dieAt(s, args[4])
			}
			var snapshot *core.Snapshot
			snapshot, err = s.Snapshot(ctx)
			for _, c := range snapshot.Containers {
				err = errors.Join(err, s.DeleteContainer(ctx, c))
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	os.Exit(0)
}

// deleteAll deletes whatever there is, not minding that another process does the same.
func deleteAll(ctx context.Context, s *cstore.Store) error {
	for {
		snapshot, err := s.Snapshot(ctx)
		if err != nil {
			return err
		}
		if len(snapshot.Containers)+len(snapshot.Images) == 0 {
			return nil
		}
		for _, c := range snapshot.Containers {
			if err := s.DeleteContainer(ctx, c); err != nil && !errors.Is(err, core.ErrContainerUnknown) {
				return err
			}
		}
		for _, i := range snapshot.Images {
			if err := deleteImages(ctx, s, i.ID); err != nil && !errors.Is(err, core.ErrImageUnknown) {
				return err
			}
		}
	}
}

// deleteImages deletes a chain as the core does, each image as it is just before.
func deleteImages(ctx context.Context, s *cstore.Store, chain ...core.ImageID) error {
	d, err := s.BeginDeletion(ctx, chain)
	if err != nil {
		return err
	}
	for _, id := range chain {
		var snapshot *core.Snapshot
		if snapshot, err = s.Snapshot(context.WithoutCancel(ctx)); err != nil {
			break
		}
		image, ok := snapshot.Image(id)
		if !ok {
			image.ID = id
		}
		if err = d.Delete(ctx, image); err != nil {
			break
		}
	}
	return errors.Join(err, d.End(ctx))
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// dieAt kills this process at a step of ours ("STEP[:N]", the Nth time), or, for "replaced:FILE[:N]",
// when the library has replaced that record file (for the Nth time).
func dieAt(s *cstore.Store, step string) {
	file, ok := strings.CutPrefix(step, "replaced:")
	n := 1
	if !ok {
		step, count, counted := strings.Cut(step, ":")
		if counted {
			fmt.Sscan(count, &n)
		}
		s.SetStep(func(name string) {
			if name != step {
				return
			}
			if n--; n == 0 {
				die()
			}
		})
		return
	}
	if path, count, ok := strings.Cut(file, ":"); ok {
		file = path
		fmt.Sscan(count, &n)
	}
	dir, name := file[:strings.LastIndex(file, "/")], file[strings.LastIndex(file, "/")+1:]
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err == nil {
		_, err = unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(4)
	}
	go func() {
		buffer := make([]byte, 4096)
		for {
			got, err := unix.Read(fd, buffer)
			if err != nil {
				return
			}
			n -= strings.Count(string(buffer[:got]), name+"\x00")
			if n <= 0 {
				die()
			}
		}
	}()
}

// childCommand runs the test binary as a child.
func childCommand(t testing.TB, o cstore.Options, verb string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "UNMOOR_TEST_SELF="+self,
		childVar+"="+strings.Join(append([]string{verb, o.GraphRoot, o.RunRoot, o.Driver}, args...), " "))
	return cmd
}

func mustImage(t testing.TB, snapshot *core.Snapshot, id core.ImageID) core.Image {
	t.Helper()
	i, ok := snapshot.Image(id)
	if !ok {
		t.Fatalf("image %s is not in the snapshot", id.Short())
	}
	return i
}

func mustContainer(t testing.TB, snapshot *core.Snapshot, id core.ContainerID) core.Container {
	t.Helper()
	c, ok := snapshot.Container(id)
	if !ok {
		t.Fatalf("container %s is not in the snapshot", id.Short())
	}
	return c
}
