package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/client"
	"github.com/unmoor/unmoor/internal/config"
	"github.com/unmoor/unmoor/internal/service"
	"github.com/unmoor/unmoor/plugins/buildah"
)

// machine is a store with all that is asked about it.
type machine struct {
	engine *core.Engine
	doctor *core.Doctor
	// builder has engines build images.
	builder service.Builder
	loader  service.Loader
	// process tells of a process.
	process func(pid int) (core.Process, bool)
	// journal knows when images were used; places are the directories that change when a container comes or
	// goes.
	journal service.Journal
	places  []string
	// close releases the store.
	close func()
}

// local answers what is asked of it, as it is configured.
func (m *machine) local(c config.Config, file string, step func(string)) *service.Local {
	m.engine.Step = step
	m.engine.Protection = protection(c, file)
	return &service.Local{Engine: m.engine, Doctor: m.doctor, Builder: m.builder, Loader: m.loader,
		Grace: time.Duration(c.Removal.GracePeriod), Cleaning: cleaning(c.Prune), Journal: m.journal}
}

// cleaning is what a prune goes by.
func cleaning(c config.Prune) service.Cleaning {
	return service.Cleaning{Thresholds: core.Thresholds{High: int(c.High), Low: int(c.Low)},
		MinAge: time.Duration(c.MinAge), AbandonedAge: time.Duration(c.AbandonedAge), Builders: []string{buildah.Name}}
}

// app is one call of the program.
type app struct {
	out *output
	err io.Writer
	// in is where answers to questions come from; where it is no terminal, nobody is asked.
	in io.Reader
	// labels is whether the verb goes by labels of images.
	labels bool
	open   func(ctx context.Context, c config.Config) (*machine, error)
	// plugins asks the plugins of this process who they are.
	plugins func(ctx context.Context, c config.Config) ([]service.Plugin, error)
	// socket is where the daemon of this user's store listens, dialing how it is connected to.
	socket  string
	dialing client.Options
	// step is told of each step of a removal, where the failpoints are compiled in.
	step func(string)

	global globalFlags
	// program is how this call was made, with its global flags, fit to be pasted into a shell.
	program string
	config  config.Config
	// configFile is where config was read from, empty where there is no file.
	configFile string
	// code is the highest exit code so far.
	code int
}

// globalFlags are spelled as Podman's.
type globalFlags struct {
	root, runRoot, driver string
	options               []string
	config                string
	logLevel              string
	// url is the address of a daemon; local is whether to do without one.
	url   string
	local bool
}

// program is the program with those of the flags that say which store is meant.
func (g globalFlags) program(given func(flag string) bool) string {
	words := []string{"unmoor"}
	for _, f := range []struct{ name, value string }{
		{"url", g.url}, {"config", g.config}, {"root", g.root}, {"runroot", g.runRoot}, {"storage-driver", g.driver},
	} {
		if given(f.name) {
			words = append(words, "--"+f.name, quoted(f.value))
		}
	}
	if g.local {
		words = append(words, "--local")
	}
	for _, o := range g.options {
		words = append(words, "--storage-opt", quoted(o))
	}
	return strings.Join(words, " ")
}

// run carries out a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetOut(a.out)
	root.SetErr(a.err)
	if cmd, err := root.ExecuteContextC(ctx); err != nil {
		a.refuse(err)
		var usage *usageError
		if errors.As(err, &usage) {
			fmt.Fprintf(a.err, "See '%s --help'\n", cmd.CommandPath())
		}
	}
	if err := a.out.finish(); err != nil {
		a.refuse(fmt.Errorf("write the output: %w", err))
	}
	return a.code
}

// usageError is a command line that makes no sense.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "unmoor",
		Short: "Remove images and containers from a store that several engines share",
		Long: `Unmoor removes images and containers from a containers/storage store that Podman, Buildah and others
share. It asks each engine whether it still uses a container and lets that engine stop and remove it.
What no engine claims it deletes itself, once the kernel shows that nothing uses it.

Exit codes: 0 done, 1 no such image or container, 2 in use and kept, 125 anything else. With several
images or containers, the highest.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q", args[0])
			}
			return nil
		},
		RunE:          func(*cobra.Command, []string) error { return usagef("missing command: unmoor COMMAND") },
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("unmoor {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = false
	flags := root.PersistentFlags()
	flags.StringVar(&a.global.root, "root", "", "the store's `directory`, as podman --root")
	flags.StringVar(&a.global.runRoot, "runroot", "", "the store's run `directory`, as podman --runroot")
	flags.StringVar(&a.global.driver, "storage-driver", "", "the store's `driver`: overlay or vfs")
	flags.StringArrayVar(&a.global.options, "storage-opt", nil, "an `option` of the storage driver; may be given several times")
	flags.StringVar(&a.global.config, "config", "", "read the configuration from `file` (default "+config.DefaultPath+", or $UNMOOR_CONFIG)")
	flags.StringVar(&a.global.url, "url", "", "ask the daemon at `address`: unix:PATH, ssh-unix:[USER@]HOST:PATH or exec:PROGRAM (default $UNMOOR_URL, or else the system's where one answers)")
	flags.BoolVar(&a.global.local, "local", false, "do without a daemon: work on the store in this process")
	flags.StringVar(&a.global.logLevel, "log-level", "", "log `level`: debug, info, warn or error (default warn)")
	root.AddCommand(a.rmiCommand(), a.rmCommand(), a.planCommand(), a.whyCommand(), a.psCommand(),
		a.imagesCommand(), a.buildCommand(), a.loadCommand(), a.importCommand(), a.pruneCommand(), a.dfCommand(),
		a.doctorCommand(), a.eventsCommand(), a.pluginsCommand(), a.pluginCommand(), a.serveCommand(), a.configCommand(),
		a.versionCommand(), a.manCommand())
	return root
}

// configure reads the configuration and has it in force.
func (a *app) configure(cmd *cobra.Command) error {
	c, path, err := a.effective(cmd)
	if err != nil {
		return err
	}
	a.config, a.configFile = c, path
	a.program = a.global.program(cmd.Flags().Changed)
	a.logTo(c.Log.Level)
	return nil
}

// effective is the configuration that the file and the global flags come to, and the file, if there is one.
func (a *app) effective(cmd *cobra.Command) (config.Config, string, error) {
	c, path, err := a.loadConfig()
	if err != nil {
		return c, "", err
	}
	flags := cmd.Flags()
	if flags.Changed("root") {
		c.Store.Root = a.global.root
	}
	if flags.Changed("runroot") {
		c.Store.RunRoot = a.global.runRoot
	}
	if flags.Changed("storage-driver") {
		c.Store.Driver = a.global.driver
	}
	if flags.Changed("storage-opt") {
		c.Store.Options = a.global.options
	}
	if flags.Changed("log-level") {
		if err := c.Log.Level.UnmarshalText([]byte(a.global.logLevel)); err != nil {
			return c, "", usagef("--log-level %w", err)
		}
	}
	return c, path, nil
}

// loadConfig reads the file that is meant; a file that somebody named must be there. It returns the
// path, empty where there is no file.
func (a *app) loadConfig() (config.Config, string, error) {
	path := a.global.config
	if path == "" {
		path = os.Getenv("UNMOOR_CONFIG")
	}
	if path != "" {
		c, err := config.Load(path)
		return c, path, err
	}
	c, err := config.Load(config.DefaultPath)
	if errors.Is(err, fs.ErrNotExist) {
		return config.Default(), "", nil
	}
	return c, config.DefaultPath, err
}

func (a *app) logTo(level config.Level) {
	slog.SetDefault(slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: logLevel(level)})))
}

func logLevel(level config.Level) slog.Level {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		l = slog.LevelWarn // config.Level knows slog's words alone
	}
	return l
}

// backend answers what the verbs ask: service.Local in this process, client.Client through a daemon.
type backend interface {
	Store(ctx context.Context) (core.StoreInfo, error)
	Images(ctx context.Context, reference string, each func(service.Image) error) error
	Containers(ctx context.Context, q service.ContainerQuery, each func(service.Container) error) error
	ContainerNames(ctx context.Context) ([]string, error)
	Plan(ctx context.Context, r service.Request) (*service.Outcome, error)
	Remove(ctx context.Context, r service.Request, progress func(core.Progress)) (*service.Outcome, error)
	Explain(ctx context.Context, reference string) (*service.Explanation, error)
	Examine(ctx context.Context, r service.ExamineRequest) (*service.Examination, error)
	Build(ctx context.Context, r core.BuildRequest, output func(line string)) (*service.Built, error)
	Load(ctx context.Context, r core.LoadRequest) ([]core.LoadedImage, error)
	Import(ctx context.Context, r core.ImportRequest) (core.LoadedImage, error)
	PlanPrune(ctx context.Context, r service.PruneRequest) (*service.Pruned, error)
	Prune(ctx context.Context, r service.PruneRequest, progress func(core.Progress)) (*service.Pruned, error)
	Usage(ctx context.Context) (*service.Usage, error)
}

var (
	_ backend = (*service.Local)(nil)
	_ backend = (*client.Client)(nil)
)

// ask configures, and runs a verb on a store that is there.
func (a *app) ask(cmd *cobra.Command, run func(ctx context.Context, b backend) error) error {
	return a.askOf(cmd, checkStore, run)
}

// askForMore configures, and runs a verb that makes the store where there is none.
func (a *app) askForMore(cmd *cobra.Command, run func(ctx context.Context, b backend) error) error {
	return a.askOf(cmd, func(config.Store) error { return nil }, run)
}

func (a *app) askOf(cmd *cobra.Command, check func(config.Store) error, run func(ctx context.Context, b backend) error) error {
	if err := a.configure(cmd); err != nil {
		return err
	}
	ctx := cmd.Context()
	c, err := a.connect(ctx, cmd)
	if err != nil {
		return err
	}
	if c != nil {
		defer c.Close() //nolint:errcheck // The answer was read, or the error is known.
		return run(ctx, c)
	}
	if err := check(a.config.Store); err != nil {
		return err
	}
	m, err := a.open(ctx, a.config)
	if err != nil {
		return err
	}
	defer m.close()
	return run(ctx, m.local(a.config, a.configFile, a.step))
}

// protection is what the configuration of a file keeps.
func protection(c config.Config, file string) core.Protection {
	return core.Protection{Images: c.Protect.Images, Containers: c.Protect.Containers, Labels: c.Protect.Labels, File: file}
}

// grace is how long a container has to end; negative where only the daemon knows.
func grace(b backend, asked *time.Duration) time.Duration {
	if asked != nil {
		return *asked
	}
	if local, ok := b.(*service.Local); ok {
		return local.Grace
	}
	return -1
}
