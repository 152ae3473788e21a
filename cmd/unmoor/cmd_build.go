package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
)

// buildFlags are spelled as Buildah's.
type buildFlags struct {
	request core.BuildRequest
	iidFile string
}

func (a *app) buildCommand() *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build [flags] [CONTEXT]",
		Short: "Have an engine build an image",
		Long: `Have an engine build an image in the store from a Containerfile and the files of the directory CONTEXT
(the working directory where it is left out), as buildah build does: its output as it comes, and at the end
the image's ID. That needs an engine that builds: Buildah, or one whose plugin has the capability build.

Through a daemon the paths are those of the daemon's machine; relative ones are taken from here. A daemon
builds for root and for the user that it runs as. An interrupt ends the build.`,
		Example: `  unmoor build -t web:1 .
  unmoor build -f Containerfile.test --build-arg VERSION=3 --layers ~/web`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("one directory is built: %q is one too many", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.build(cmd, args, &f) },
	}
	flags, r := cmd.Flags(), &f.request
	flags.StringArrayVarP(&r.Containerfiles, "file", "f", nil, "build by `containerfile`, from here or from the context; may be given several times")
	flags.StringArrayVarP(&r.Names, "tag", "t", nil, "give the image this `name`; may be given several times")
	flags.StringArrayVar(&r.Args, "build-arg", nil, "set an argument, `key=value`; a key alone has its value from the environment")
	flags.StringArrayVar(&r.Labels, "label", nil, "give the image a label, `key=value`")
	flags.StringVar(&r.Target, "target", "", "build this `stage`, and not the last")
	flags.StringVar(&r.Pull, "pull", "", "when base images are pulled: always (which --pull is), missing, never or newer")
	flags.Lookup("pull").NoOptDefVal = "always"
	flags.BoolVar(&r.NoCache, "no-cache", false, "build every layer anew")
	flags.BoolVar(&r.Layers, "layers", false, "keep intermediate layers as a cache")
	flags.BoolVar(&r.Squash, "squash", false, "make one layer of the new ones")
	flags.StringVar(&r.Format, "format", "", "the image's `format`: oci or docker")
	flags.StringVar(&r.Network, "network", "", "the network of RUN, by the engine's `word` for it: host, none, private, ns:PATH")
	flags.StringVar(&r.Isolation, "isolation", "", "the isolation of RUN, by the engine's `word` for it: oci, rootless, chroot")
	flags.BoolVarP(&r.Quiet, "quiet", "q", false, "leave out the engine's progress")
	flags.StringVar(&f.iidFile, "iidfile", "", "write the image's ID to `file`, and do not print it")
	flags.StringVar(&r.Engine, "engine", "", "have this `plugin` build, where several can")
	return cmd
}

func (a *app) build(cmd *cobra.Command, args []string, f *buildFlags) error {
	request := f.request
	request.Context = "."
	if len(args) > 0 {
		request.Context = args[0]
	}
	if err := settleBuild(&request); err != nil {
		return err
	}
	return a.ask(cmd, func(ctx context.Context, b backend) error {
		built, err := b.Build(ctx, request, func(line string) {
			fmt.Fprintln(a.out, line)
			_ = a.out.Flush() // the error sticks, and a build goes on without a reader
		})
		if err != nil {
			return err
		}
		if f.iidFile == "" {
			fmt.Fprintln(a.out, built.Image)
			return nil
		}
		if err := os.WriteFile(f.iidFile, []byte("sha256:"+built.Image), 0o644); err != nil {
			return fmt.Errorf("image %s was built; write its ID: %w", built.Image, err)
		}
		return nil
	})
}

// settleBuild makes what was typed mean the same elsewhere: paths absolute, arguments with their values.
func settleBuild(r *core.BuildRequest) error {
	if strings.Contains(r.Context, "://") || r.Context == "-" {
		return usagef("the context is a directory, not %q", r.Context)
	}
	var err error
	if r.Context, err = filepath.Abs(r.Context); err != nil {
		return fmt.Errorf("find the context: %w", err)
	}
	var files, values []string
	for _, file := range r.Containerfiles {
		if file == "-" || strings.Contains(file, "://") {
			return usagef("--file wants a file, not %q", file)
		}
		path, err := filepath.Abs(file)
		if err != nil {
			return fmt.Errorf("find the containerfile: %w", err)
		}
		// As Buildah looks for it (containers/buildah v1.28.2, imagebuildah/build.go).
		if _, err := os.Stat(path); err != nil && !filepath.IsAbs(file) {
			path = filepath.Join(r.Context, file)
		}
		files = append(files, path)
	}
	for _, arg := range r.Args {
		if !strings.Contains(arg, "=") {
			value, set := os.LookupEnv(arg)
			if !set {
				continue // as Buildah does
			}
			arg += "=" + value
		}
		values = append(values, arg)
	}
	r.Containerfiles, r.Args = files, values
	if err := r.Check(); err != nil {
		return &usageError{err}
	}
	return nil
}
