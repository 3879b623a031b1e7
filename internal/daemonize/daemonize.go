//go:build unix

// Package daemonize puts the agent into the background.
//
// A daemon of the C agent is its own forked copy. A Go process cannot fork, as
// only one of its threads would live on, so the program is started again with
// the same arguments, and told so by a variable in its environment. The second
// process does everything: reads the configuration, opens log and channel, and
// reports mistakes to the standard error that it inherited. When it serves, it
// says so through a pipe and cuts itself loose; only then does the first
// process end. Its exit status is thus that of the daemon's start:
//
//	if cfg.Daemon {
//		if d = daemonize.Child(); d == nil {
//			status, err := daemonize.Parent()
//			...
//			os.Exit(status)
//		}
//	}
//	... // open everything
//	if d != nil {
//		err = d.Ready()
//	}
package daemonize

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/threads"
)

// readyVariable is the environment variable by which the daemon knows that it
// is one. Its value is the descriptor of its end of the pipe.
const readyVariable = "BELLHOP_READY_FD"

// Daemon is the side of the process that goes to the background.
type Daemon struct {
	ready int // the pipe to the parent
}

// Child returns the daemon's side when Parent started this process, and
// otherwise nil. It has to be called before anything else looks at the
// environment: it removes its variable, and readdresses a socket of the service
// manager, which was meant for the parent's process id.
func Child() *Daemon {
	value, ok := os.LookupEnv(readyVariable)
	if !ok {
		return nil
	}
	os.Unsetenv(readyVariable) //nolint:errcheck // fails only for malformed names
	fd, err := strconv.Atoi(value)
	var st unix.Stat_t
	if err != nil || unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return nil // somebody else's variable
	}
	// A program that this one starts must not keep the parent waiting.
	unix.CloseOnExec(fd)
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getppid()) {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) //nolint:errcheck // fails only for malformed names
	}
	return &Daemon{fd}
}

// Parent starts the daemon and waits until it is ready or has ended. It returns
// the exit status for this process: 0, or that of the daemon. err is a failure
// to start it at all; what went wrong later the daemon itself has told.
func Parent() (status int, err error) {
	path, err := os.Executable()
	if err != nil {
		return 1, fmt.Errorf("start the daemon: %w", err)
	}
	pipe := make([]int, 2)
	if err := unix.Pipe(pipe); err != nil {
		return 1, fmt.Errorf("start the daemon: %w", err)
	}
	unix.CloseOnExec(pipe[0])
	// Descriptors above 2 go to the daemon as they are: the pipe, and sockets
	// of a service manager.
	pid, err := threads.ForkExec(path, os.Args, &syscall.ProcAttr{
		Env:   append(os.Environ(), readyVariable+"="+strconv.Itoa(pipe[1])),
		Files: []uintptr{0, 1, 2},
	})
	unix.Close(pipe[1])
	defer unix.Close(pipe[0])
	if err != nil {
		return 1, fmt.Errorf("start the daemon: %w", err)
	}
	var b [1]byte
	var n int
	retry(func() error {
		n, err = unix.Read(pipe[0], b[:])
		return err
	})
	if n == 1 {
		return 0, nil
	}
	var state unix.WaitStatus
	retry(func() error {
		_, err = unix.Wait4(pid, &state, 0, nil)
		return err
	})
	if err != nil || !state.Exited() {
		return 1, nil
	}
	// A daemon that ended before it was ready may have been asked to, by a
	// signal: its status is the answer, 0 included.
	return state.ExitStatus(), nil
}

func retry(call func() error) {
	for errors.Is(call(), unix.EINTR) {
	}
}

// Ready cuts the daemon loose from whoever started it and lets the parent end:
// a session of its own, umask 077, the root as working directory, and /dev/null
// for the standard streams. It comes after everything that may fail, whose
// reports need standard error, and which sees the caller's umask and relative
// paths as it does in the C agent.
func (d *Daemon) Ready() error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("go to the background: %w", err)
	}
	defer unix.Close(null)
	if _, err := unix.Setsid(); err != nil {
		return fmt.Errorf("go to the background: %w", err)
	}
	unix.Umask(0o077)
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("go to the background: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup2(null, fd); err != nil {
			return fmt.Errorf("go to the background: %w", err)
		}
	}
	// A parent that is gone does not need to know.
	retry(func() error {
		_, err := unix.Write(d.ready, []byte{1})
		return err
	})
	return unix.Close(d.ready)
}
