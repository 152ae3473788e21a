// Demosleep is what runs in the demo's containers: it says that it is there, and waits until it is
// told to end.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("ready")
	<-told
}
