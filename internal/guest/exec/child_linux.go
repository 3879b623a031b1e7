package exec

import (
	"math"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is how much a pipe for output holds: as much as the kernel lets
// anybody have, so that a program that prints a lot seldom waits for us.
const pipeSize = 1 << 20

// enlargePipe makes a pipe hold up to size bytes, if that is more than usual
// and if the kernel agrees.
func enlargePipe(fd, size int) {
	const usual = 64 << 10
	if size > usual {
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, min(size, pipeSize))
	}
}

// A child is a program that we started.
type child struct {
	pid int
	// pidfd becomes readable when the child is gone. It is -1 with kernels
	// before 5.2.
	pidfd *int
}

// attr asks for the pidfd.
func (c *child) attr() *syscall.SysProcAttr {
	c.pidfd = new(-1)
	return &syscall.SysProcAttr{PidFD: c.pidfd}
}

// wait returns how the child ended: its exit code or the signal that killed
// it; -1 is the one that it was not.
//
// The runtime's poller waits for the pidfd. Where it cannot, a thread waits for
// the child.
func (c child) wait() (exitCode, signal int) {
	var done bool
	if *c.pidfd >= 0 {
		// It is the flag that tells package os to use the poller.
		if unix.SetNonblock(*c.pidfd, true) == nil {
			f := os.NewFile(uintptr(*c.pidfd), "pidfd")
			defer f.Close()
			if conn, err := f.SyscallConn(); err == nil {
				_ = conn.Read(func(uintptr) bool {
					exitCode, signal, done = wait4(c.pid, unix.WNOHANG)
					return done
				})
			}
		} else {
			unix.Close(*c.pidfd)
		}
	}
	if !done {
		exitCode, signal, _ = wait4(c.pid, 0)
	}
	return exitCode, signal
}

// hideDescriptors keeps the programs that we start from inheriting what
// whoever started us left open. Our own descriptors are hidden from the start.
func hideDescriptors() {
	const first = 3
	if unix.CloseRange(first, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	list, err := os.ReadDir("/proc/self/fd") // before Linux 5.11
	if err != nil {
		return
	}
	for _, e := range list {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
}
