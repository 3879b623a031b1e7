//go:build unix && !linux

package exec

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

const pipeSize = 64 << 10

// enlargePipe has nothing to do: the kernel enlarges pipes as they are used.
func enlargePipe(fd, size int) {}

// A child is a program that we started.
type child struct{ pid int }

func (child) attr() *syscall.SysProcAttr { return nil }

// wait returns how the child ended: its exit code or the signal that killed
// it; -1 is the one that it was not.
func (c child) wait() (exitCode, signal int) {
	exitCode, signal, _ = wait4(c.pid, 0)
	return exitCode, signal
}

// hideDescriptors keeps the programs that we start from inheriting what
// whoever started us left open.
func hideDescriptors() {
	list, err := os.ReadDir("/dev/fd")
	if err != nil {
		return
	}
	for _, e := range list {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= 3 {
			unix.CloseOnExec(fd)
		}
	}
}
