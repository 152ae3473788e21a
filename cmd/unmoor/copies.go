package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/internal/fetch"
	"github.com/unmoor/unmoor/internal/service"
)

// copyFlags are those of the verbs that bring images in.
type copyFlags struct {
	quiet   bool
	policy  string
	max     bytesFlag
	timeout time.Duration
}

func (f *copyFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "print the result alone")
	flags.StringVar(&f.policy, "signature-policy", "", "read which images are let in from `file` (default the engines' policy.json)")
	flags.Var(&f.max, "max-size", "read no more than so many `bytes` from standard input or a web address, 2g say (default what there is room for)")
	flags.DurationVar(&f.timeout, "timeout", time.Hour, "how long a web address may take, to the last byte")
}

// bytesFlag is a number of bytes.
type bytesFlag int64

func (b *bytesFlag) Set(s string) error {
	n, err := units.RAMInBytes(s)
	if err != nil || n <= 0 {
		return errors.New("wants a positive number of bytes, such as 500m or 2g")
	}
	*b = bytesFlag(n)
	return nil
}

func (b *bytesFlag) Type() string { return "bytes" }

func (b *bytesFlag) String() string {
	if *b == 0 {
		return ""
	}
	return units.BytesSize(float64(*b))
}

// source is what an argument means: standard input, a web address, which is fetched, or a file; a directory too
// where directories may be. done is to be called when it was read.
func (f *copyFlags) source(ctx context.Context, from string, directories bool) (_ core.ImageSource, done func(), err error) {
	nothing := func() {}
	switch {
	case from == "-":
		if term.IsTerminal(int(os.Stdin.Fd())) {
			return core.ImageSource{}, nil, usagef("standard input is a terminal: redirect it, or name a file")
		}
		return core.ImageSource{Stream: os.Stdin, Called: "standard input", Limit: int64(f.max)}, nothing, nil
	case fetch.IsAddress(from):
		return f.fetched(ctx, from)
	}
	info, err := os.Stat(from)
	switch {
	case err != nil:
		return core.ImageSource{}, nil, err
	case info.Mode().IsRegular(), directories && info.IsDir():
		return core.ImageSource{Path: from}, nothing, nil
	case info.IsDir():
		return core.ImageSource{}, nil, fmt.Errorf("%s is a directory: pack it, tar -C %s -c . | unmoor import -", from, from)
	}
	stream, err := os.Open(from)
	if err != nil {
		return core.ImageSource{}, nil, err
	}
	return core.ImageSource{Stream: stream, Called: from, Limit: int64(f.max)}, func() { stream.Close() }, nil
}

// fetched copies what is behind a web address into a temporary file without a name.
func (f *copyFlags) fetched(ctx context.Context, address string) (_ core.ImageSource, done func(), err error) {
	file, room, err := cstore.TemporaryFile()
	if err != nil {
		return core.ImageSource{}, nil, fmt.Errorf("make a temporary file: %w", err)
	}
	limit := room
	if f.max > 0 {
		limit = min(limit, int64(f.max))
	}
	if err := fetch.Copy(ctx, file, address, fetch.Options{Timeout: f.timeout, Limit: limit}); err != nil {
		file.Close()
		return core.ImageSource{}, nil, err
	}
	path := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	return core.ImageSource{Path: path, Called: address}, func() { file.Close() }, nil
}

// copies says how images are brought in, and what is shown meanwhile: in this process what containers/image
// shows, and of a daemon's work much the same.
func (a *app) copies(b backend, f *copyFlags) core.CopyOptions {
	o := core.CopyOptions{SignaturePolicy: f.policy}
	if f.quiet {
		return o
	}
	if _, here := b.(*service.Local); here {
		o.Report = a.err
		return o
	}
	shown := &copyLines{w: a.err, seen: make(map[string]bool)}
	if file, ok := a.err.(*os.File); ok {
		shown.terminal = term.IsTerminal(int(file.Fd()))
	}
	o.Progress = shown.tell
	return o
}

// copyLines are a line a part of an image; on a terminal it says how far that is.
type copyLines struct {
	w        io.Writer
	terminal bool
	seen     map[string]bool
}

func (c *copyLines) tell(p core.CopyProgress) {
	digest := plain(p.Digest)
	if !c.terminal {
		if !c.seen[digest] {
			c.seen[digest] = true
			fmt.Fprintf(c.w, "Copying %s\n", digest)
		}
		return
	}
	if len(digest) > 19 {
		digest = digest[:19] // sha256: and a short ID
	}
	switch {
	case p.Skipped:
		fmt.Fprintf(c.w, "\r\x1b[KCopying %s: it is there already\n", digest)
	case p.Done:
		fmt.Fprintf(c.w, "\r\x1b[KCopying %s: done\n", digest)
	case p.Size > 0:
		fmt.Fprintf(c.w, "\r\x1b[KCopying %s: %s of %s", digest, units.BytesSize(float64(p.Copied)), units.BytesSize(float64(p.Size)))
	default:
		fmt.Fprintf(c.w, "\r\x1b[KCopying %s: %s", digest, units.BytesSize(float64(p.Copied)))
	}
}
