package kernel

import (
	"context"
	"errors"
	"os/exec"
	"testing"

	"github.com/unmoor/unmoor/core"
)

// TestTerminateAfterTheEnd: where ctx has ended nobody is signalled.
func TestTerminateAfterTheEnd(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	i := inspector(t)
	s, err := i.stat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	victim := core.Process{PID: cmd.Process.Pid, StartTime: s.startTime, Command: "sleep"}
	if err := i.Terminate(ctx, []core.Process{victim}, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the process ended: %v", err)
	default:
	}
	if err := i.Terminate(context.Background(), []core.Process{victim}, 0); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("the process ended by itself")
	}
}
