package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// manager is a double of the service manager's end.
func manager(t *testing.T) <-chan string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	messages := make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			messages <- string(b[:n])
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	return messages
}

func next(t *testing.T, messages <-chan string) string {
	t.Helper()
	select {
	case m := <-messages:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was told")
		return ""
	}
}

func TestNotify(t *testing.T) {
	messages := manager(t)
	Ready("serves /x\nREADY=0")
	if got := next(t, messages); got != fmt.Sprintf("READY=1\nMAINPID=%d\nSTATUS=serves /x READY=0", os.Getpid()) {
		t.Errorf("%q", got)
	}
	Reloading()
	lines := strings.Split(next(t, messages), "\n")
	if len(lines) != 3 || lines[0] != "RELOADING=1" || !strings.HasPrefix(lines[1], "MONOTONIC_USEC=") || !strings.HasPrefix(lines[2], "STATUS=") {
		t.Errorf("%q", lines)
	}
	if _, err := strconv.ParseUint(strings.TrimPrefix(lines[1], "MONOTONIC_USEC="), 10, 64); err != nil {
		t.Error(err)
	}
	Stopping("ends 2 removals")
	if got := next(t, messages); got != "STOPPING=1\nSTATUS=ends 2 removals" {
		t.Errorf("%q", got)
	}
}

func TestWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	Ready("x")
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	Ready("x") // is logged
	t.Setenv("WATCHDOG_USEC", "")
	if err := Watchdog(t.Context(), nil); err != nil {
		t.Error(err)
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if err := Watchdog(t.Context(), nil); err == nil {
		t.Error("a time that is none is no error")
	}
}

// TestWatchdog: it is told while the service lives, and only then.
func TestWatchdog(t *testing.T) {
	messages := manager(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", "")
	var dead, asked atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Watchdog(ctx, func(ctx context.Context) error {
			asked.Add(1)
			switch dead.Load() {
			case 1:
				return errors.New("no answer")
			case 2:
				<-ctx.Done() // which is soon
				return ctx.Err()
			}
			return nil
		})
	}()
	for range 3 {
		if got := next(t, messages); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
	for how := range int32(2) {
		dead.Store(how + 1)
		settled := asked.Load() + 1
		for asked.Load() <= settled {
			time.Sleep(time.Millisecond)
		}
		for len(messages) > 0 {
			<-messages
		}
		for more := asked.Load() + 3; asked.Load() < more; {
			time.Sleep(time.Millisecond)
		}
		if len(messages) > 0 {
			t.Errorf("the service is dead (%d), and said to live", how+1)
		}
	}
	dead.Store(0)
	next(t, messages)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
