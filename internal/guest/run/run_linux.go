package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/internal/threads"
)

// maxOutput is how much of a program's output is kept. It is for people.
const maxOutput = 64 << 10

// grace is how long we go on reading when the program has ended, and somebody
// else still holds its output: a child that it left in the background.
const grace = 250 * time.Millisecond

// maxDying is how many programs that were killed may have yet to die.
const maxDying = 32

// dying is how many there are. Each holds a thread.
var dying atomic.Int32

var _ Func = Run

// Run runs a program. It has a session of its own, and the environment and the
// working directory of the agent.
func Run(ctx context.Context, c Command) ([]byte, error) {
	limit := c.Limit
	if limit == 0 {
		limit = DefaultLimit
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, &limitError{c.Args, limit})
	defer cancel()
	if ctx.Err() != nil {
		return nil, failed(c, context.Cause(ctx))
	}

	p, err := start(c)
	if err != nil {
		return nil, err
	}
	defer p.close()
	p.feed(c.Input)
	go func() {
		// The program is not reaped before it is known whether it must be
		// killed, so its number is no other's.
		p.exited <- awaitExit(p.pid)
	}()
	collected := make(chan []byte, 1)
	go func() { collected <- collect(p.output) }()

	var exit error
	select {
	case exit = <-p.exited:
	case <-ctx.Done():
		p.kill()
		err = failed(c, context.Cause(ctx))
	}
	_ = p.output.SetReadDeadline(time.Now().Add(grace))
	output := <-collected
	if err != nil {
		return output, err
	}

	status, waitErr := reap(p.pid)
	switch {
	case exit != nil || waitErr != nil:
		err = fmt.Errorf("failed to wait for child (pid: %d): %w", p.pid, strerror.Reason(errors.Join(exit, waitErr)))
	case status.Signaled():
		err = &ExitError{Action: c.Action, Code: -1, Output: output}
	case status.ExitStatus() != 0:
		err = &ExitError{Action: c.Action, Code: status.ExitStatus(), Output: output}
	}
	return output, err
}

// failed is the error of a program that was not allowed to end.
func failed(c Command, err error) error {
	return fmt.Errorf("child process has failed to %s: %w", c.Action, err)
}

// A limitError is a program that took too long.
type limitError struct {
	args  []string
	limit time.Duration
}

func (e *limitError) Error() string {
	return fmt.Sprintf("%s did not end within %v", strings.Join(e.args, " "), e.limit)
}

func (e *limitError) Unwrap() error { return context.DeadlineExceeded }

// A process is a program on its way, and our ends of its pipes.
type process struct {
	pid    int
	input  *os.File // nil if there is none
	output *os.File
	exited chan error
}

func (p *process) close() {
	p.output.Close()
	if p.input != nil {
		p.input.Close() // also for the one who still writes
	}
}

// kill ends the program and what it started, and does not wait for it: one that
// sleeps in the kernel, on a disk that does not answer or a frozen file system,
// dies only when it wakes up.
func (p *process) kill() {
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	dying.Add(1)
	go func() {
		<-p.exited
		_, _ = reap(p.pid)
		dying.Add(-1)
	}()
}

// start starts the program, its standard files being pipes.
func start(c Command) (*process, error) {
	if dying.Load() >= maxDying {
		return nil, fmt.Errorf("failed to create child process: %w", strerror.Reason(unix.EAGAIN))
	}
	p := &process{exited: make(chan error, 1)}
	var theirInput *os.File
	ourOutput, theirOutput, err := os.Pipe()
	if err == nil {
		defer theirOutput.Close()
		p.output = ourOutput
		if c.Input != nil {
			theirInput, p.input, err = os.Pipe()
		} else {
			theirInput, err = os.Open(os.DevNull)
		}
	}
	if err != nil {
		if p.output != nil {
			p.output.Close()
		}
		return nil, fmt.Errorf("cannot create pipe FDs: %w", strerror.Reason(err))
	}
	defer theirInput.Close()

	out := theirOutput.Fd() // which makes it block, as programs expect
	p.pid, err = launch(c.Args, []uintptr{theirInput.Fd(), out, out})
	switch {
	case err == nil:
		return p, nil
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOMEM):
		err = fmt.Errorf("failed to create child process: %w", strerror.Reason(err))
	default:
		err = &StartError{Action: c.Action, Program: c.Args[0], Err: err}
	}
	p.close()
	return nil, err
}

// launch starts a program as execvp(3) does.
func launch(args []string, files []uintptr) (pid int, err error) {
	file, err := find(args[0])
	if err != nil {
		return 0, err
	}
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	pid, err = threads.ForkExec(file, args, attr)
	if err == unix.ENOEXEC { // a script that does not say whose
		script := append([]string{"/bin/sh", file}, args[1:]...)
		pid, err = threads.ForkExec(script[0], script, attr)
	}
	return pid, err
}

// find returns the file of a program.
func find(program string) (string, error) {
	if program == "" {
		return "", unix.ENOENT
	}
	if strings.Contains(program, "/") {
		if stuck.Executable(program) == stuck.ErrStuck {
			return "", unix.ETIMEDOUT
		}
		return program, nil
	}
	path, ok := os.LookupEnv("PATH")
	if !ok {
		path = "/bin:/usr/bin"
	}
	reason := unix.ENOENT
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		file := dir + "/" + program
		if stuck.Executable(file) == stuck.ErrStuck {
			reason = unix.ETIMEDOUT
			continue
		}
		info, err := os.Stat(file)
		if err != nil || info.IsDir() {
			continue
		}
		if unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS) == nil {
			return file, nil
		}
		reason = unix.EACCES // says more than that there is none
	}
	return "", reason
}

// feed writes data to the program. One that does not read it is nothing to
// complain of here: how it ends will tell.
func (p *process) feed(data []byte) {
	if p.input == nil {
		return
	}
	go func() {
		_, _ = p.input.Write(data)
		_ = p.input.Close()
	}()
}

// collect returns the beginning of what can be read from r, and reads on until
// its end, so that nobody waits for a reader.
func collect(r io.Reader) []byte {
	output, err := io.ReadAll(io.LimitReader(r, maxOutput))
	if err == nil {
		_, _ = io.Copy(io.Discard, r)
	}
	return output
}

// awaitExit waits until the process is no more than a number and a status.
func awaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

func reap(pid int) (status syscall.WaitStatus, err error) {
	for {
		_, err = syscall.Wait4(pid, &status, 0, nil)
		if err != unix.EINTR {
			return status, err
		}
	}
}
