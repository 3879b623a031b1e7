// Package run has programs of the guest do what there is no system call for:
// chpasswd, hwclock, shutdown, the freeze hooks.
//
// The agent waits for such a program, so there is an end to everything: to the
// time it may take, to what is kept of its output, and to the patience with
// whatever it leaves behind. Nothing of this is for the programs that a host
// starts; they are the business of package exec.
package run

import (
	"context"
	"fmt"
	"time"

	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// DefaultLimit is how long a program may take that says nothing else. It is
// meant for those that ask a directory server first; most take milliseconds.
const DefaultLimit = time.Minute

// A Command is a program to run.
type Command struct {
	// Args are the program and its arguments. A program without a slash is
	// looked for in PATH.
	Args []string
	// Input is what the program reads. If nil it reads /dev/null.
	Input []byte
	// Action says what the program is for, in an error's words: it has failed
	// to ACTION.
	Action string
	// Limit is how long the program may take; then it is killed, with all that
	// it started. Zero means DefaultLimit.
	Limit time.Duration
}

// A Func runs a program and returns what it wrote to standard output and error
// in the order in which it did so. The output is returned with an error too.
//
// A program that ends with anything but success is an *ExitError, one that
// could not be started a *StartError, one that took too long is
// context.DeadlineExceeded; errors of ctx are returned as such.
//
// Run is the one that does it, and package runtest has one that does not.
type Func func(ctx context.Context, c Command) ([]byte, error)

// An ExitError is a program that did not end well.
type ExitError struct {
	Action string
	// Code is the exit code, or -1 if a signal ended the program.
	Code int
	// Output is what the program had to say about it.
	Output []byte
}

// Error uses the C agent's words.
func (e *ExitError) Error() string {
	switch {
	case e.Code < 0 && len(e.Output) == 0:
		return "child process has terminated abnormally"
	case e.Code < 0:
		return "child process has terminated abnormally: " + string(e.Output)
	case len(e.Output) == 0:
		return fmt.Sprintf("child process has failed to %s: exit status %d", e.Action, e.Code)
	}
	return fmt.Sprintf("child process has failed to %s: %s", e.Action, e.Output)
}

// A StartError is a program that could not be started. It wraps the reason.
type StartError struct {
	Action, Program string
	Err             error
}

// Error uses the C agent's words; there it is the child that says them, whence
// the line feed.
func (e *StartError) Error() string {
	return fmt.Sprintf("child process has failed to %s: failed to exec '%s': %s\n",
		e.Action, e.Program, strerror.Text(e.Err))
}

func (e *StartError) Unwrap() error { return e.Err }
