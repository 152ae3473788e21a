package main

import (
	"bufio"
	"errors"
	"io"
	"syscall"
)

// output is standard output: written in one go at the end, so that a reader that goes away never
// breaks off a removal. The first error sticks.
type output struct{ *bufio.Writer }

func newOutput(w io.Writer) *output { return &output{bufio.NewWriterSize(w, 64<<10)} }

// finish writes what is left. A reader that has read enough is no error.
func (o *output) finish() error {
	if err := o.Flush(); err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	return nil
}
