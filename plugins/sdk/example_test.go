package sdk_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/unmoor/unmoor/core"
	"github.com/unmoor/unmoor/internal/protocol"
	"github.com/unmoor/unmoor/internal/wire"
	"github.com/unmoor/unmoor/plugins/sdk"
)

// toy is the plugin of an engine that puts a toy.json beside each container that it makes, and runs
// nothing.
type toy struct{}

func (toy) Describe(context.Context) (core.Description, error) {
	return core.Description{Name: "toy", Engine: "The Toy Engine", Hints: []core.ClaimHint{{File: "toy.json"}}}, nil
}

func (toy) Claim(_ context.Context, _ core.StoreInfo, containers []core.Container) ([]core.Claim, error) {
	var claims []core.Claim
	for _, c := range containers {
		claim := core.Claim{Container: c.ID, Ownership: core.OwnershipNotMine}
		_, err := os.Lstat(filepath.Join(c.Directory, "toy.json"))
		switch {
		case err == nil:
			claim.Ownership, claim.State, claim.Use = core.OwnershipMine, core.StateStopped, core.UseIdle
		case !os.IsNotExist(err):
			claim.Ownership = core.OwnershipUnknown
		}
		claims = append(claims, claim)
	}
	return claims, nil
}

// Stop has nothing to stop, and Remove leaves the storage container to Unmoor.
func (toy) Stop(_ context.Context, _ core.StoreInfo, handles []core.Handle, _ time.Duration) []core.Outcome {
	return done(handles)
}

func (toy) Remove(_ context.Context, _ core.StoreInfo, handles []core.Handle) []core.Outcome {
	return done(handles)
}

func done(handles []core.Handle) []core.Outcome {
	var outcomes []core.Outcome
	for _, h := range handles {
		outcomes = append(outcomes, core.Outcome{Container: h.Container.ID})
	}
	return outcomes
}

// A program has sdk.Main(toy{}) in its main function, which is Serve with the signals and the exit codes.
func Example() {
	dir, err := os.MkdirTemp("", "toy")
	if err != nil {
		slog.Error("no directory", "error", err)
		return
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "toy.sock")

	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- sdk.Serve(ctx, toy{}, sdk.Options{Socket: socket}) }()

	fmt.Println(ask(ctx, socket))
	cancel()
	fmt.Println("ended:", <-served)
	// Output:
	// The Toy Engine can [stop remove]; ready: true
	// ended: <nil>
}

// ask is Unmoor's part.
func ask(ctx context.Context, socket string) string {
	var c *wire.Conn
	for c == nil { // until it listens
		c, _ = wire.Dial(ctx, "unix:"+socket, wire.DialOptions{})
	}
	defer c.Close()
	var d protocol.DescribeOut
	if err := c.Call(ctx, protocol.MethodDescribe, nil, &d); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s can %v; ready: %t", d.Engine, d.Capabilities, d.Ready)
}
