// Demostore makes what the demo removes, on machines without any engine: images and containers of a
// store, as a program that Unmoor knows nothing of would make them.
//
//	demostore DIRECTORY DRIVER image NAME PROGRAM     an image of one static program, /bin/demosleep
//	demostore DIRECTORY DRIVER container NAME IMAGE   a container of the image with that ID
//	demostore DIRECTORY DRIVER mount ID               mounts a container, prints where
//	demostore DIRECTORY DRIVER check                  says what is wrong with the store, if anything
package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/core/cstore"
	"github.com/unmoor/unmoor/core/cstore/storetest"
)

func main() {
	if cstore.Reexec() {
		return
	}
	args := os.Args[1:]
	if len(args) < 3 {
		program{}.Fatalf("usage: demostore DIRECTORY DRIVER image|container|mount|check …")
	}
	fixture := storetest.At(program{}, args[0], args[1])
	switch what, rest := args[2], args[3:]; {
	case what == "image" && len(rest) == 2:
		sleep, err := os.ReadFile(rest[1])
		if err != nil {
			program{}.Fatal(err)
		}
		fmt.Println(fixture.AddImage(storetest.Image{
			Names: []string{rest[0]},
			Files: map[string]string{"bin/demosleep": string(sleep), "etc/motd": "a file of the image\n"},
		}))
	case what == "container" && len(rest) == 2:
		fmt.Println(fixture.AddContainer(core.ImageID(rest[1]), storetest.Container{Names: []string{rest[0]}}))
	case what == "mount" && len(rest) == 1:
		fmt.Println(fixture.Mount(core.ContainerID(rest[0])))
	case what == "check" && len(rest) == 0:
		findings, err := fixture.Open().Check(context.Background())
		if err != nil {
			program{}.Fatal(err)
		}
		for _, finding := range findings {
			program{}.Fatalf("%s", finding)
		}
	default:
		program{}.Fatalf("demostore: what is %q?", args[2:])
	}
}

// program is a testing.TB for a fixture outside of a test: what fails ends the program, and what is
// mounted stays, for it is what the demo is about.
type program struct{ testing.TB }

func (program) Helper()                          {}
func (program) Cleanup(func())                   {}
func (p program) Fatal(args ...any)              { p.Fatalf("%s", fmt.Sprint(args...)) }
func (p program) Errorf(format string, a ...any) { p.Fatalf(format, a...) }
func (program) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
