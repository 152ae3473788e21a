package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/containers/storage/pkg/reexec"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// settings are the command line.
type settings struct {
	root, runroot, driver string
	options               list
	listen                string
	runtime, runtimeRoot  string
	dropInfra             bool
	pause, pauseCommand   string
	pinned, images        list
	control, log          string
	wipe                  bool
	remove                list
}

type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func main() {
	if reexec.Init() {
		return
	}
	var s settings
	flag.StringVar(&s.root, "root", "", "graph `root` of the store (required)")
	flag.StringVar(&s.runroot, "runroot", "", "run root of the store (required)")
	flag.StringVar(&s.driver, "storage-driver", "overlay", "storage `driver`")
	flag.Var(&s.options, "storage-opt", "storage driver `option`; may be repeated")
	flag.StringVar(&s.listen, "listen", "", "`socket` to serve")
	flag.StringVar(&s.runtime, "runtime", "runc", "OCI runtime `program`; none runs no processes")
	flag.StringVar(&s.runtimeRoot, "runtime-root", "", "state `directory` of the runtime (default RUNROOT/runc)")
	flag.BoolVar(&s.dropInfra, "drop-infra-ctr", true, "no process for pods that do not need one")
	flag.StringVar(&s.pause, "pause-image", "localhost/pause:latest", "`image` of the pods' own containers")
	flag.StringVar(&s.pauseCommand, "pause-command", "/bin/sleep 100000", "what runs there, words apart by spaces")
	flag.Var(&s.pinned, "pinned", "pinned image: a `name`, PREFIX* or *WORD*; may be repeated")
	flag.Var(&s.images, "image", "make an image NAME=`TARFILE` first; may be repeated")
	flag.StringVar(&s.control, "control", "", "`file` with the switches")
	flag.StringVar(&s.log, "log", "", "`file` to append a line to for each call: method and ID")
	flag.BoolVar(&s.wipe, "wipe", false, "end and remove everything in the store, and exit")
	flag.Var(&s.remove, "delete", "delete the storage of the container `ID` behind everybody's back, and exit; may be repeated")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "criodouble, a double of CRI-O:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	if s.root == "" || s.runroot == "" {
		return errors.New("-root and -runroot are needed: the host's own store is not for a double")
	}
	if s.runtimeRoot == "" {
		s.runtimeRoot = filepath.Join(s.runroot, "runc")
	}
	d, err := newDouble(s)
	if err != nil {
		return err
	}
	for _, i := range s.images {
		if err := d.addImage(i); err != nil {
			return err
		}
	}
	if len(s.remove) > 0 {
		return d.wreck(s.remove)
	}
	if err := d.restore(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if s.wipe {
		return d.wipe(ctx)
	}
	if s.listen == "" {
		if len(s.images) > 0 {
			return nil
		}
		return errors.New("-listen is needed")
	}
	return d.serve(ctx)
}

// serve answers until it is told to end.
func (d *double) serve(ctx context.Context) error {
	// What an earlier run left; CRI-O does the same (server/listen_unix.go).
	if err := os.Remove(d.listen); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", d.listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(d.switches.intercept), grpc.MaxSendMsgSize(80<<20), grpc.MaxRecvMsgSize(80<<20))
	cri.RegisterRuntimeServiceServer(server, d)
	cri.RegisterImageServiceServer(server, imageService{double: d})
	context.AfterFunc(ctx, server.Stop)
	fmt.Println("criodouble, a double of CRI-O: listening on", d.listen)
	if err := server.Serve(babbler{listener, d.switches}); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
