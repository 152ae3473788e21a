package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/unmoor/unmoor/internal/daemon"
	"github.com/unmoor/unmoor/internal/journal"
	"github.com/unmoor/unmoor/internal/sdnotify"
	"github.com/unmoor/unmoor/internal/wire"
)

func (a *app) serveCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:   "serve [flags]",
		Short: "Serve the store to others over a socket",
		Long: `Serve the store to others over a socket, as the Varlink interface io.unmoor.Removal.

The socket is the one that the service manager or varlinkctl's exec: passes in, or else --socket, or that
of the configuration. Who may call what is said there under [access].

SIGHUP reads the configuration again; a file that is wrong changes nothing. SIGTERM ends it: removals end
between two actions, and whoever asked for them learns what was done. A second one ends it at once, which
the same removal, asked for again, goes on from.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.serve(cmd, socket) },
	}
	cmd.Flags().StringVar(&socket, "socket", "", "listen on `path` (default "+a.socket+")")
	return cmd
}

func (a *app) serve(cmd *cobra.Command, socket string) error {
	if a.global.url != "" || a.global.local {
		return usagef("serve works on the store itself: leave --url and --local out")
	}
	if err := a.configure(cmd); err != nil {
		return err
	}
	level := a.logAsService()
	if err := checkStore(a.config.Store); err != nil {
		return err
	}
	if err := refuseSockets(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		// Which is ours: who feeds it is the process in the user namespace.
		if err := os.Unsetenv("WATCHDOG_PID"); err != nil {
			return err
		}
	}
	beginPause(cmd.Context(), a.config.Podman.Command)
	if err := enterUserNamespace(a.config.Podman.Command); err != nil {
		return err
	}
	ctx, release, err := withParent(cmd.Context())
	if err != nil {
		return err
	}
	defer release()
	cmd.SetContext(ctx)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	sockets, err := a.sockets(socket)
	if err != nil {
		return err
	}
	s, err := a.newServing(cmd, level)
	if err != nil {
		return errors.Join(err, sockets.close())
	}
	return s.run(ctx, sockets, hangup)
}

// logAsService has the journal know how much each record weighs. The level can be set anew.
func (a *app) logAsService() *slog.LevelVar {
	level := new(slog.LevelVar)
	level.Set(logLevel(a.config.Log.Level))
	if f, ok := a.err.(*os.File); ok && journal.Listens(f) {
		slog.SetDefault(slog.New(journal.New(f, level)))
	} else {
		slog.SetDefault(slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level})))
	}
	return level
}

// sockets are what is served: connections that are there already, or else listeners.
type sockets struct {
	listeners   []net.Listener
	connections []net.Conn
}

func (s sockets) close() error {
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.Close())
	}
	for _, c := range s.connections {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// sockets takes what was passed in, or listens.
func (a *app) sockets(path string) (sockets, error) {
	var s sockets
	var err error
	if s.listeners, s.connections, err = wire.Activated(); err != nil {
		return sockets{}, err
	}
	if len(s.listeners)+len(s.connections) > 0 {
		return s, nil
	}
	if path == "" {
		path = a.config.Service.Socket
	}
	if path == "" {
		path = a.socket
	}
	if path == "" {
		return sockets{}, errors.New("$XDG_RUNTIME_DIR is not set, and so there is no usual place for the socket: name one with --socket")
	}
	if err := makeDirectory(filepath.Dir(path)); err != nil {
		return sockets{}, fmt.Errorf("make the directory of the socket: %w", err)
	}
	l, err := wire.Listen(path, os.FileMode(a.config.Service.Mode))
	if errors.Is(err, wire.ErrInUse) {
		return sockets{}, fmt.Errorf("%w: end that one first, or name another socket with --socket", err)
	}
	if err != nil {
		return sockets{}, err
	}
	return sockets{listeners: []net.Listener{l}}, nil
}

// makeDirectory makes a directory that others can pass through, whatever the umask. One that is there stays
// as it is.
func makeDirectory(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chmod(path, 0o755)
}

// run serves until ctx ends, or the last of the connections that were passed in.
func (s *serving) run(ctx context.Context, sockets sockets, hangup <-chan os.Signal) error {
	server, err := wire.NewServer(wire.ServerOptions{
		Vendor: "Unmoor", Product: "Unmoor", Version: version, URL: "https://github.com/unmoor/unmoor",
		TakesFiles: daemon.TakesFiles,
	}, s.daemon.Interface())
	if err != nil {
		s.close()
		return errors.Join(err, sockets.close())
	}
	// What serves goes on after ctx has ended, until all have their answers.
	serveCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, serveCtx := errgroup.WithContext(serveCtx)
	for _, l := range sockets.listeners {
		group.Go(func() error { return server.Serve(serveCtx, l) })
	}
	connected := make(chan struct{})
	if len(sockets.connections) > 0 {
		var wg sync.WaitGroup
		for _, c := range sockets.connections {
			wg.Go(func() { server.ServeConn(serveCtx, c) })
		}
		group.Go(func() error {
			wg.Wait()
			if len(sockets.listeners) == 0 {
				close(connected)
			}
			return nil
		})
	}
	group.Go(func() error { return s.registry.Run(serveCtx) })
	group.Go(func() error {
		s.daemon.KeepClean(serveCtx)
		return nil
	})
	if len(sockets.listeners) > 0 {
		address := sockets.listeners[0].Addr().String()
		group.Go(func() error {
			return sdnotify.Watchdog(serveCtx, func(ctx context.Context) error { return answers(ctx, address) })
		})
	}
	sdnotify.Ready(s.status())
	slog.Info("the service is ready", "store", s.store, "version", version)
	patience := context.WithoutCancel(ctx)
	for {
		select {
		case <-hangup:
			s.reload(ctx)
			continue
		case <-ctx.Done():
		case <-serveCtx.Done(): // a listener broke
		case <-connected:
		case err = <-s.broken:
			// What waits for the locks that this process holds waits for its end.
			var cancel context.CancelFunc
			patience, cancel = context.WithTimeout(patience, 5*time.Second)
			defer cancel()
			slog.Error("the store broke under the service, which ends so that all locks are released", "error", err)
		}
		break
	}
	sdnotify.Stopping("Ending what is being done")
	slog.Info("the service stops")
	if stopped := s.daemon.Stop(patience); err != nil || stopped != nil {
		return errors.Join(err, stopped) // without waiting for what may never end
	}
	stop()
	err = errors.Join(err, group.Wait())
	s.close()
	return err
}
