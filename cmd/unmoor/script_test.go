package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

func TestMain(m *testing.M) {
	if cstore.Reexec() {
		return
	}
	testscript.Main(m, map[string]func(){"unmoor": main})
}

// exits is the script command "exits CODE COMMAND ARG...".
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Check(err)
		}
		code = exit.ExitCode()
	}
	if strings.Contains(ts.ReadFile("stderr"), "goroutine ") {
		ts.Fatalf("a stack trace")
	}
	if code != want {
		ts.Fatalf("exit %d, want %d", code, want)
	}
}

var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){"exits": exits}

// TestScript runs the scripts that need no store.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Cmds: scriptCommands, RequireExplicitExec: true})
}

// TestStoreScript runs each script of testdata/store on a store of its own. The
// configuration that UNMOOR_CONFIG names leads to it. In the store are
//
//	localhost/web:1       with the idle containers leftover and spare
//	localhost/busy:1      with the container mystery, whose mount is the working directory of $PID
//	localhost/two:1, :2   one image, without containers
//	localhost/pm:1        with the container pm, which looks like Podman's and so keeps every image:
//	                      only in the scripts owner-*
func TestStoreScript(t *testing.T) {
	scripts, err := filepath.Glob("testdata/store/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	// Not vfs: there, a process that uses files which are mounted nowhere, as other packages' tests
	// have them, may use any store. The words are the same; itest has both drivers.
	const driver = "overlay"
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			f := storetest.New(t, driver)
			vars := scene(t, f, strings.HasPrefix(filepath.Base(script), "owner-"))
			testscript.Run(t, testscript.Params{
				Files: []string{script}, Cmds: scriptCommands, RequireExplicitExec: true,
				Setup: func(e *testscript.Env) error {
					e.Vars = append(e.Vars, vars...)
					config := filepath.Join(e.WorkDir, "config.toml")
					e.Setenv("UNMOOR_CONFIG", config)
					e.Setenv("DRIVER", driver)
					// The scenes have no live engine, and this machine's must not be asked.
					return os.WriteFile(config, fmt.Appendf(nil, `[store]
root = %q
runroot = %q
driver = %q
[plugin.podman]
command = ["/nonexistent/podman"]
[plugin.buildah]
enabled = false
`, f.Options.GraphRoot, f.Options.RunRoot, driver), 0o644)
				},
			})
			f.Clean()
		})
	}
}

// scene fills the store and returns the scripts' variables.
func scene(t *testing.T, f *storetest.Fixture, pm bool) []string {
	web := f.AddImage(storetest.Image{Names: []string{"localhost/web:1"}, Files: map[string]string{"etc/name": "web"}})
	leftover := f.AddContainer(web, storetest.Container{Names: []string{"leftover"}})
	f.AddContainer(web, storetest.Container{Names: []string{"spare"}})
	f.Mount(leftover)

	busy := f.AddImage(storetest.Image{Names: []string{"localhost/busy:1"}, Files: map[string]string{"etc/name": "busy"}})
	mystery := f.AddContainer(busy, storetest.Container{Names: []string{"mystery"}})
	holder := exec.Command("sleep", "997")
	holder.Dir = f.Mount(mystery)
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = holder.Wait() // killed: by the script or below
	}()
	t.Cleanup(func() {
		_ = holder.Process.Kill() // gone already: as good
		<-ended
	})

	two := f.AddImage(storetest.Image{Names: []string{"localhost/two:1", "localhost/two:2"}, Files: map[string]string{"etc/name": "two"}})

	if pm {
		image := f.AddImage(storetest.Image{Names: []string{"localhost/pm:1"}, Files: map[string]string{"etc/name": "pm"}})
		f.AddContainer(image, storetest.Container{Names: []string{"pm"},
			Metadata: `{"image-name":"localhost/pm:1","image-id":"` + string(image) + `","name":"pm","created-at":1700000000}`})
	}
	return []string{
		"WEB=" + string(web), "BUSY=" + string(busy), "TWO=" + string(two), "PID=" + strconv.Itoa(holder.Process.Pid),
		"LEFTOVER=" + string(leftover), "MYSTERY=" + string(mystery),
		"ROOT=" + f.Options.GraphRoot, "RUNROOT=" + f.Options.RunRoot,
	}
}
