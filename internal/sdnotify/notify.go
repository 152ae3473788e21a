package sdnotify

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the service answers, after its start or a reload, and how it stands. This process is the
// one to be signaled: an ordinary user's may have been started by another one.
func Ready(status string) {
	tell(daemon.SdNotifyReady, fmt.Sprintf("MAINPID=%d", os.Getpid()), "STATUS="+line(status))
}

// Reloading says that the configuration is being read again; Ready ends it.
func Reloading() {
	tell(daemon.SdNotifyReloading, strings.TrimSpace(daemon.SdNotifyMonotonicUsec()), "STATUS=Reading the configuration")
}

// Stopping says that the service is about to end.
func Stopping(status string) { tell(daemon.SdNotifyStopping, "STATUS="+line(status)) }

func tell(assignments ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		slog.Warn("the service manager could not be told", "message", assignments[0], "error", err)
	}
}

// line makes one of a text, which would else be several assignments.
func line(s string) string { return strings.Join(strings.Fields(s), " ") }
