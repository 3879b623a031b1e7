//go:build unix

package exec

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/stuck"
	"github.com/bellhop-vm/bellhop/internal/threads"
	"github.com/bellhop-vm/bellhop/qga"
)

// defaultPath is where programs are looked for when nobody has a PATH.
const defaultPath = "/bin:/usr/bin"

// A stdio is what a program gets as standard input, output and error.
type stdio struct {
	theirs [3]int // descriptors; -1 is none yet
	input  *os.File
	rest   []byte // what has yet to be written to input
	output [2]*os.File
}

// newStdio opens what args ask for. Pipes are ours to use without blocking,
// and theirs to use as usual.
func newStdio(args qga.ExecArgs) (*stdio, error) {
	s := &stdio{theirs: [3]int{-1, -1, -1}}
	if err := s.open(args); err != nil {
		s.closeTheirs()
		s.closeOurs()
		return nil, err
	}
	return s, nil
}

func (s *stdio) open(args qga.ExecArgs) (err error) {
	if args.InputData == nil {
		s.theirs[0], err = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	} else {
		err = s.openInput(args.InputData)
	}
	if err != nil {
		return err
	}
	mode := qga.CaptureNone
	if args.CaptureOutput != nil {
		mode = *args.CaptureOutput
	}
	captured := [2]bool{
		mode == qga.CaptureStdout || mode == qga.CaptureSeparated || mode == qga.CaptureMerged,
		mode == qga.CaptureStderr || mode == qga.CaptureSeparated,
	}
	for i, capture := range captured {
		switch {
		case capture:
			s.output[i], s.theirs[i+1], err = outputPipe()
		case i == 1 && mode == qga.CaptureMerged:
			s.theirs[2], err = unix.FcntlInt(uintptr(s.theirs[1]), unix.F_DUPFD_CLOEXEC, 0)
		default:
			s.theirs[i+1], err = unix.Open(os.DevNull, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// openInput makes a pipe with as much of the data as fits into it. Most input
// is short, and then there is nothing left to be done.
func (s *stdio) openInput(data []byte) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	s.theirs[0] = p[0]
	enlargePipe(p[1], len(data))
	if err := unix.SetNonblock(p[1], true); err != nil {
		unix.Close(p[1])
		return err
	}
	for len(data) > 0 {
		n, err := unix.Write(p[1], data)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			break // it is full
		}
		data = data[n:]
	}
	if len(data) == 0 {
		return unix.Close(p[1])
	}
	s.rest = data
	s.input = os.NewFile(uintptr(p[1]), "|stdin")
	return nil
}

func outputPipe() (ours *os.File, theirs int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, -1, err
	}
	enlargePipe(p[0], pipeSize)
	return os.NewFile(uintptr(p[0]), "|output"), p[1], nil
}

// closeTheirs closes what the program has now, or never will.
func (s *stdio) closeTheirs() {
	for _, fd := range s.theirs {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// closeOurs closes what there is no program for.
func (s *stdio) closeOurs() {
	for _, f := range []*os.File{s.input, s.output[0], s.output[1]} {
		if f != nil {
			f.Close()
		}
	}
}

// launch starts a program as execvp does: it looks for it in PATH, that of env
// if there is one, else our own, and takes what the kernel does not know for
// a script of the shell.
func launch(path string, argv, env []string, files [3]int) (child, error) {
	if path == "" {
		return child{}, unix.ENOENT
	}
	if strings.Contains(path, "/") {
		if stuck.Executable(path) == stuck.ErrStuck {
			return child{}, unix.ETIMEDOUT
		}
		return spawn(path, argv, env, files)
	}
	err, found := error(unix.ENOENT), false
	for dir := range strings.SplitSeq(searchPath(env), ":") {
		file := path // an empty name is the working directory
		if dir != "" {
			file = dir + "/" + path
		}
		// To ask is a lot cheaper than to try.
		e := stuck.Executable(file)
		if e == nil {
			var c child
			if c, e = spawn(file, argv, env, files); e == nil {
				return c, nil
			}
		}
		switch e {
		case unix.EACCES:
			err, found = e, true // what was found and cannot be run is worth more than nothing
		case unix.ENOENT, unix.ENOTDIR, unix.ESTALE, unix.ENODEV, unix.ETIMEDOUT:
			if !found {
				err = e
			}
		case stuck.ErrStuck:
		default:
			return child{}, e
		}
	}
	return child{}, err
}

func searchPath(env []string) string {
	for _, v := range env {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			return p
		}
	}
	if p, ok := os.LookupEnv("PATH"); ok {
		return p
	}
	return defaultPath
}

// spawn starts the program in file. It is in our session and process group,
// with our umask and directory, and with no signal ignored or blocked.
func spawn(file string, argv, env []string, files [3]int) (child, error) {
	var c child
	attr := &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{uintptr(files[0]), uintptr(files[1]), uintptr(files[2])},
		Sys:   c.attr(),
	}
	var err error
	c.pid, err = threads.ForkExec(file, argv, attr)
	if err == unix.ENOEXEC {
		argv = append([]string{"/bin/sh", file}, argv[1:]...)
		c.pid, err = threads.ForkExec(argv[0], argv, attr)
	}
	return c, err
}

// outcomeOf tells an exit code from a signal; of the two, -1 is the one that
// it was not.
func outcomeOf(status syscall.WaitStatus) (exitCode, signal int) {
	switch {
	case status.Exited():
		return status.ExitStatus(), -1
	case status.Signaled():
		return -1, int(status.Signal())
	}
	return -1, -1
}

// wait4 waits for a child, or looks whether it is gone if the options say so;
// then done is false when it is not. A child that cannot be waited for is gone
// without an outcome.
func wait4(pid, options int) (exitCode, signal int, done bool) {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(pid, &status, options, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return -1, -1, true
		case got == pid:
			exitCode, signal = outcomeOf(status)
			return exitCode, signal, true
		default:
			return -1, -1, false
		}
	}
}
