package buildah

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmoor/unmoor/core"
)

// Build has buildah build an image in the store and returns its ID. output is told of each line that buildah
// writes, one after the other. ctx ends the build; what is left then is at most a working container, which is
// removed as any other. An error means that there is no image.
func (p *Plugin) Build(ctx context.Context, store core.StoreInfo, r core.BuildRequest, output func(line string)) (core.ImageID, error) {
	dir, err := os.MkdirTemp("", "unmoor-build-")
	if err != nil {
		return "", fmt.Errorf("make a directory for the image's ID: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left is a file with an ID, below the directory of such files
	idFile := filepath.Join(dir, "id")
	cmd := exec.CommandContext(ctx, p.command[0], append(p.command[1:len(p.command):len(p.command)], buildArgs(store, r, idFile)...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's signals are for us, who end it another way
	cmd.Cancel = func() error { return endBuild(cmd.Process) }
	cmd.WaitDelay = 10 * time.Second // until it is killed
	reader, writer := io.Pipe()
	cmd.Stdout, cmd.Stderr = writer, writer
	told := make(chan string, 1)
	go func() { told <- tell(reader, output) }()
	err = cmd.Run()
	_ = writer.Close() // which never fails
	last := <-told
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist):
		return "", &absentError{fmt.Errorf("run %s: %w", p.command[0], err)}
	case err != nil && last != "":
		return "", fmt.Errorf("%w: %s", err, last)
	case err != nil:
		return "", err
	}
	return readID(idFile)
}

// absentError is that there is no buildah to run.
type absentError struct{ error }

func (e *absentError) Unwrap() []error { return []error{e.error, core.ErrEngineAbsent} }

// Advice is what an operator can do about it.
func (e *absentError) Advice() string {
	return "install Buildah, or say how it is run: [plugin.buildah] command in config.toml"
}

// endBuild ends a build as the end of its step would: what runs in the container is killed, and buildah, whose
// step has failed, clears away. At a signal it would end at once and leave the step running in a container
// that it has deleted (seen with buildah 1.28.2 and runc 1.1.5). Only between two steps is it signalled.
func endBuild(builder *os.Process) error {
	const between = time.Second
	last := time.Now()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		self, err := readStat(builder.Pid)
		if err != nil || self.dead() {
			return nil //nolint:nilerr // it has ended
		}
		steps, err := entered(self)
		if err != nil {
			return err
		}
		for _, p := range steps {
			last = time.Now()
			_ = p.signal(unix.SIGKILL) // one that has ended since is as good; any other is seen again
		}
		if time.Since(last) > between {
			return builder.Signal(unix.SIGTERM)
		}
	}
	return nil
}

// entered are the descendants of a process that have another root than it has.
func entered(builder process) ([]process, error) {
	root, err := os.Stat(proc(builder.pid, "root"))
	if err != nil {
		return nil, err
	}
	all, err := pids()
	if err != nil {
		return nil, err
	}
	children := make(map[int][]process)
	for _, pid := range all {
		if p, err := readStat(pid); err == nil { // one that has ended has no step to end
			children[p.parent] = append(children[p.parent], p)
		}
	}
	var found []process
	for open := children[builder.pid]; len(open) > 0; open = open[1:] {
		p := open[0]
		open = append(open, children[p.pid]...)
		if at, err := os.Stat(proc(p.pid, "root")); err == nil && !os.SameFile(root, at) {
			found = append(found, p)
		}
	}
	return found, nil
}

// buildArgs is the command line after the program's name.
func buildArgs(store core.StoreInfo, r core.BuildRequest, idFile string) []string {
	var args []string
	if !store.Default {
		args = append(args, "--root", store.GraphRoot, "--runroot", store.RunRoot, "--storage-driver", store.GraphDriver)
		for _, o := range store.GraphOptions {
			args = append(args, "--storage-opt", o)
		}
	}
	args = append(args, "build", "--iidfile", idFile)
	add := func(flag string, values ...string) {
		for _, v := range values {
			if v != "" {
				args = append(args, flag+"="+v)
			}
		}
	}
	add("--file", r.Containerfiles...)
	add("--tag", r.Names...)
	add("--build-arg", r.Args...)
	add("--label", r.Labels...)
	add("--target", r.Target)
	add("--pull", r.Pull)
	add("--format", r.Format)
	add("--network", r.Network)
	add("--isolation", r.Isolation)
	args = append(args, fmt.Sprintf("--layers=%t", r.Layers))
	for _, f := range []struct {
		flag string
		set  bool
	}{{"--no-cache", r.NoCache}, {"--squash", r.Squash}, {"--quiet", r.Quiet}} {
		if f.set {
			args = append(args, f.flag)
		}
	}
	return append(args, "--", r.Context)
}

// tell hands on the lines, each cut where it is endless, and returns the last one that says something.
func tell(r io.Reader, output func(string)) (last string) {
	const most = 64 << 10
	lines := bufio.NewReaderSize(r, most)
	for {
		line, cut, err := lines.ReadLine()
		if err != nil {
			return last
		}
		for more := cut; more; {
			if _, more, err = lines.ReadLine(); err != nil {
				break
			}
		}
		text := strings.ToValidUTF8(string(line), "?")
		if s := strings.TrimSpace(text); s != "" {
			last = s
		}
		output(text)
	}
}

// readID reads the file that buildah's --iidfile writes: sha256:ID (containers/buildah v1.28.2,
// pkg/cli/build.go and imagebuildah/build.go).
func readID(path string) (core.ImageID, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read which image was built: %w", err)
	}
	id := strings.TrimPrefix(strings.TrimSpace(string(text)), "sha256:")
	if len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "" {
		return "", fmt.Errorf("read which image was built: %q is no ID", text)
	}
	return core.ImageID(id), nil
}
