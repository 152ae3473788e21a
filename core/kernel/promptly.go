package kernel

import (
	"errors"
	"time"
)

// errNoAnswer: of a file system whose server is dead or stopped.
var errNoAnswer = errors.New("the file system does not answer")

// answerTime is how long a file system may take to answer.
const answerTime = time.Second

// promptly runs a system call that may wait for ever on a dead file system, and leaves it to itself
// where it does: nothing but a thread is lost. f must hold no lock of ours, and what it sets may be
// read only where it has ended.
func promptly(f func() error) error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	select {
	case err := <-result:
		return err
	case <-timer.C:
		return errNoAnswer
	}
}
