//go:build failpoints

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// failpoint makes a core.Engine's Step of $UNMOOR_FAILPOINT: "NAME" or "NAME:N" kills this process
// the first or the Nth time that the step is reached, "list" prints each step to standard error.
func failpoint() func(string) {
	text := os.Getenv("UNMOOR_FAILPOINT")
	if text == "" {
		return nil
	}
	if text == "list" {
		var mu sync.Mutex
		return func(step string) {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(os.Stderr, "step", step)
		}
	}
	name, count, counted := strings.Cut(text, ":")
	left := 1
	if counted {
		n, err := strconv.Atoi(count)
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "UNMOOR_FAILPOINT=%s: wants NAME or NAME:N\n", text)
			os.Exit(exitOther)
		}
		left = n
	}
	var mu sync.Mutex
	return func(step string) {
		mu.Lock()
		defer mu.Unlock()
		if step != name {
			return
		}
		if left--; left > 0 {
			return
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			panic(err)
		}
		select {} // the signal is on its way
	}
}
