package sdk

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/unmoor/unmoor/internal/wire"
	iounmoorplugin "github.com/unmoor/unmoor/varlink/plugin"
)

// Options say how a plugin is served. The zero value is right for a unit of systemd's.
type Options struct {
	// Socket is where to listen: an absolute path whose last part is the plugin's name and .sock. Empty
	// is DefaultSocket. It goes unused where the service manager, or Unmoor, passes a socket in.
	Socket string
	// Logger is slog.Default() if nil.
	Logger *slog.Logger
}

// DefaultSocket is where Unmoor looks for a plugin of that name: in /run/unmoor/plugins, or for a user
// other than root in $XDG_RUNTIME_DIR/unmoor/plugins.
func DefaultSocket(name string) string {
	run := "/run"
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		run = dir
	}
	return filepath.Join(run, "unmoor", "plugins", name+".sock")
}

// Main serves p until SIGTERM or SIGINT, and ends the process: with 0 after a clean stop, 1 after an
// error, 2 where the command line makes no sense. --socket PATH on the command line is Options.Socket. A
// second signal does not wait for a running Stop or Remove.
func Main(p Plugin) {
	os.Exit(run(p, os.Args, os.Stderr))
}

func run(p Plugin, args []string, stderr io.Writer) int {
	var o Options
	flags := flag.NewFlagSet(filepath.Base(args[0]), flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.Socket, "socket", "", "listen on `PATH`, which ends in the plugin's name and .sock")
	if err := flags.Parse(args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "%s: unknown argument %q\n", flags.Name(), flags.Arg(0))
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if err := Serve(ctx, p, o); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", flags.Name(), err)
		return 1
	}
	return 0
}

// Serve serves p until ctx ends, and until each Stop and Remove that runs by then has ended. It listens
// on the sockets that were passed in by the service manager, else on that of o, and says to the service
// manager when it does. Where all that was passed in are connections, it ends with them.
func Serve(ctx context.Context, p Plugin, o Options) error {
	log := cmp.Or(o.Logger, slog.Default())
	listeners, connections, err := wire.Activated()
	if err != nil {
		return err
	}
	s, err := newService(ctx, p, log)
	if err == nil && len(listeners)+len(connections) == 0 {
		var l net.Listener
		if l, err = s.listen(o.Socket); err == nil {
			listeners = append(listeners, l)
		}
	}
	if err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		for _, c := range connections {
			err = errors.Join(err, c.Close())
		}
		return err
	}
	// The engine's own programs are not to take the service manager's socket for theirs.
	if _, err := daemon.SdNotify(true, daemon.SdNotifyReady); err != nil {
		log.Warn("tell the service manager that the plugin is ready", "error", err)
	}
	return s.serve(ctx, listeners, connections)
}

// listen binds the plugin's own socket, for its own user and root alone.
func (s *service) listen(path string) (net.Listener, error) {
	name := s.engine.name()
	if path == "" {
		path = DefaultSocket(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, fmt.Errorf("make the directory of the socket: %w", err)
		}
	}
	if want := name + ".sock"; filepath.Base(path) != want {
		return nil, fmt.Errorf("listen on %s: the plugin's name is %s, so that its socket has to be a %s", path, name, want)
	}
	return wire.Listen(path, 0o600)
}

func (s *service) serve(ctx context.Context, listeners []net.Listener, connections []net.Conn) error {
	server, err := wire.NewServer(s.identity(), iounmoorplugin.VarlinkNew(s))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.engine.wait()
	defer cancel()
	failed := make([]error, len(listeners))
	var wg sync.WaitGroup
	for i, l := range listeners {
		wg.Go(func() {
			defer cancel() // one that fails takes the others along
			failed[i] = server.Serve(ctx, l)
		})
	}
	for _, c := range connections {
		wg.Go(func() { server.ServeConn(ctx, c) })
	}
	wg.Wait()
	return errors.Join(failed...)
}

// identity is what org.varlink.service.GetInfo answers: the program, by its module.
func (s *service) identity() wire.ServerOptions {
	o := wire.ServerOptions{Product: s.engine.name(), MaxConnections: 64, MaxConnectionsPerUID: 64, Logger: s.log}
	if info, ok := debug.ReadBuildInfo(); ok {
		o.Vendor, o.Version = info.Main.Path, info.Main.Version
		if info.Main.Path != "" {
			o.URL = "https://" + info.Main.Path
		}
	}
	return o
}
