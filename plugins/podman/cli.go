package podman

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/unmoor/unmoor/core"
)

// cli talks to Podman through its command line.
type cli struct {
	command []string
	extra   []string
	tmpDir  string
	env     []string

	mu sync.Mutex
	// known is podman's version, once it was found out.
	known string
}

// maxIDs a process: 4,000 IDs are 260 KB, and the kernel takes 2 MB of arguments.
const maxIDs = 4000

// maxWorkers are the containers that one podman process stops side by side. Its own default is three
// a processor and one (4.3.1, 5.4.2: with 2 processors, 8 containers that ignore SIGTERM take two
// grace periods; with --max-workers=64 sixteen take one).
const maxWorkers = 256

// removers are the containers that Podman is asked to remove side by side. A removal is bound by the
// locks of the store and the database, not by waiting: 100 containers on 2 processors take 470 ms
// with two workers and 510 ms with Podman's default of seven (4.3.1), 510 and 660 ms (5.4.2).
func removers() int { return min(max(runtime.NumCPU(), 2), 4) }

func newCLI(o Options) *cli {
	command := slices.Clone(o.Command)
	if len(command) == 0 {
		command = []string{"podman"}
	}
	return &cli{command: command, extra: slices.Clone(o.ExtraArgs), tmpDir: o.TmpDir, env: slices.Clone(o.Env)}
}

// podman runs a subcommand on the store that only reads.
func (c *cli) podman(ctx context.Context, store core.StoreInfo, what string, args ...string) (output, error) {
	return run(ctx, c.command, c.env, "podman "+what, append(c.options(store), args...)...)
}

// change runs a subcommand on the store that changes something.
func (c *cli) change(ctx context.Context, store core.StoreInfo, global []string, what string, args ...string) (output, error) {
	return change(ctx, c.command, c.env, "podman "+what, slices.Concat(c.options(store), global, args)...)
}

// options say which store is meant. Podman finds its database below the graph root, and takes the
// temporary directory from the database where it is not given (4.3.1; 5.4.2 looks no different
// with either).
func (c *cli) options(store core.StoreInfo) []string {
	var args []string
	if !store.Default {
		if store.GraphRoot != "" {
			args = append(args, "--root", store.GraphRoot)
		}
		if store.RunRoot != "" {
			args = append(args, "--runroot", store.RunRoot)
		}
		if store.GraphDriver != "" {
			args = append(args, "--storage-driver", store.GraphDriver)
		}
		for _, o := range store.GraphOptions {
			args = append(args, "--storage-opt", o)
		}
	}
	if c.tmpDir != "" {
		args = append(args, "--tmpdir", c.tmpDir)
	}
	return append(args, c.extra...)
}

// version is asked for once, unless that fails: a podman that is replaced under us is a later one.
func (c *cli) version(ctx context.Context) (string, error) {
	c.mu.Lock()
	known := c.known
	c.mu.Unlock()
	if known != "" {
		return known, nil
	}
	// "podman --version" opens no store.
	out, err := run(ctx, c.command, c.env, "podman --version", "--version")
	if err != nil {
		return "", err
	}
	words := strings.Fields(string(out.stdout))
	if len(words) == 0 {
		return "", errors.New("podman --version printed nothing")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = words[len(words)-1]
	return c.known, nil
}

// serves makes sure that this podman reads the store's database. The store itself is named by the
// command line.
func (c *cli) serves(ctx context.Context, store core.StoreInfo) error {
	found, err := findDatabases(store)
	if err != nil {
		return err
	}
	if !found.sqlite || found.bolt || c.toldSQLite() {
		return nil
	}
	version, err := c.version(ctx)
	if err != nil {
		return err
	}
	if !found.reads(version) {
		return &olderError{version, filepath.Join(store.GraphRoot, sqliteFile)}
	}
	return nil
}

// toldSQLite is whether the command line has podman use SQLite, as 4.5 to 4.7 need to be.
func (c *cli) toldSQLite() bool {
	words := slices.Concat(c.command, c.extra)
	for i, word := range words {
		if word == "--db-backend=sqlite" || word == "sqlite" && i > 0 && words[i-1] == "--db-backend" {
			return true
		}
	}
	return false
}

func (c *cli) inspect(ctx context.Context, store core.StoreInfo, ids []core.ContainerID) (inspection, error) {
	all := newInspection()
	for chunk := range slices.Chunk(ids, maxIDs) {
		// With unknown IDs among them it exits with 125, prints the others' records all the same,
		// and says "no such container ID" of each unknown one on standard error.
		out, err := c.podman(ctx, store, "container inspect", append([]string{"container", "inspect"}, texts(chunk)...)...)
		var exit *exitError
		if err != nil && (!errors.As(err, &exit) || len(out.stdout) == 0) {
			return inspection{}, err
		}
		records, parseErr := parseRecords(out.stdout)
		if parseErr != nil {
			if err != nil {
				return inspection{}, err
			}
			return inspection{}, parseErr
		}
		for _, r := range records {
			all.records[r.ID] = r
		}
		for id := range parseAbsent(out.stderr) {
			all.absent[id] = true
		}
	}
	return all, nil
}

func (c *cli) imageID(ctx context.Context, store core.StoreInfo, name string) (core.ImageID, error) {
	out, err := c.podman(ctx, store, "image inspect", "image", "inspect", "--format", "{{.Id}}", "--", name)
	if err != nil {
		var exit *exitError
		if errors.As(err, &exit) && strings.Contains(string(exit.stderr), "image not known") {
			return "", fmt.Errorf("%w: %s", errNoImage, name)
		}
		return "", err
	}
	return parseImageID(out.stdout)
}

func (c *cli) imageVolumes(ctx context.Context, store core.StoreInfo) ([]volume, error) {
	out, err := c.podman(ctx, store, "volume ls", "volume", "ls", "--format", "json", "--filter", "driver="+imageDriver)
	if err != nil {
		return nil, err
	}
	return parseVolumes(out.stdout)
}

func (c *cli) pods(ctx context.Context, store core.StoreInfo) ([]pod, error) {
	out, err := c.podman(ctx, store, "pod ps", "pod", "ps", "--no-trunc", "--format", "json")
	if err != nil {
		return nil, err
	}
	return parsePods(out.stdout)
}

func (c *cli) unpause(ctx context.Context, store core.StoreInfo, ids []core.ContainerID) {
	for chunk := range slices.Chunk(ids, maxIDs) {
		if _, err := c.change(ctx, store, nil, "unpause", append([]string{"unpause"}, texts(chunk)...)...); err == nil {
			continue
		}
		// One that vanished makes it give up on all of them.
		for _, id := range chunk {
			// The stop that follows reports what is still paused.
			_, _ = c.change(ctx, store, nil, "unpause", "unpause", string(id))
		}
	}
}

func (c *cli) stop(ctx context.Context, store core.StoreInfo, records []record, grace time.Duration) map[core.ContainerID]error {
	failed := make(map[core.ContainerID]error)
	for chunk := range slices.Chunk(idsOf(records), maxIDs) {
		workers := "--max-workers=" + strconv.Itoa(min(len(chunk), maxWorkers))
		args := append([]string{"stop", "--ignore", "--time", strconv.Itoa(seconds(grace))}, texts(chunk)...)
		out, err := c.change(ctx, store, []string{workers}, "stop", args...)
		blame(failed, chunk, parseLines(out.stdout), err)
	}
	return failed
}

// remove runs without --force, so that what runs is refused, and without --volumes, as "podman rmi
// --force" does: anonymous volumes stay (4.3.1, 5.4.2).
func (c *cli) remove(ctx context.Context, store core.StoreInfo, ids []core.ContainerID) (map[core.ContainerID]bool, map[core.ContainerID]error) {
	removed, failed := make(map[core.ContainerID]bool), make(map[core.ContainerID]error)
	workers := "--max-workers=" + strconv.Itoa(removers())
	for chunk := range slices.Chunk(ids, maxIDs) {
		// Without --ignore an unknown ID makes it give up on all of them.
		out, err := c.change(ctx, store, []string{workers}, "rm", append([]string{"rm", "--ignore"}, texts(chunk)...)...)
		done := parseLines(out.stdout)
		for _, id := range chunk {
			if done[id] {
				removed[id] = true
			}
		}
		blame(failed, chunk, done, err)
	}
	return removed, failed
}

func (c *cli) removePod(ctx context.Context, store core.StoreInfo, id string) error {
	_, err := c.change(ctx, store, nil, "pod rm", "pod", "rm", "--ignore", id)
	return err
}

func (c *cli) removeVolume(ctx context.Context, store core.StoreInfo, name string) error {
	_, err := c.change(ctx, store, nil, "volume rm", "volume", "rm", "--", name)
	var exit *exitError
	if errors.As(err, &exit) && strings.Contains(string(exit.stderr), "no such volume") {
		return nil
	}
	return err
}

// blame notes an error for each ID that a failed process does not report as done: the lines that
// name it, or all that it says.
func blame(failed map[core.ContainerID]error, ids []core.ContainerID, done map[core.ContainerID]bool, err error) {
	if err == nil {
		return
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		for _, id := range ids {
			failed[id] = err
		}
		return
	}
	for _, id := range ids {
		if done[id] {
			continue
		}
		var lines []byte
		for line := range strings.Lines(string(exit.stderr)) {
			if strings.Contains(line, string(id)) {
				lines = append(lines, line...)
			}
		}
		if len(lines) == 0 {
			failed[id] = err
			continue
		}
		failed[id] = errors.New(complaint(lines))
	}
}

func texts(ids []core.ContainerID) []string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = string(id)
	}
	return all
}

func idsOf(records []record) []core.ContainerID {
	all := make([]core.ContainerID, len(records))
	for i, r := range records {
		all[i] = r.ID
	}
	return all
}
