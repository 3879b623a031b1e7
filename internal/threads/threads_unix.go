//go:build unix && !linux

package threads

import "syscall"

// ForkExec is that of package syscall.
func ForkExec(file string, args []string, attr *syscall.ProcAttr) (pid int, err error) {
	return syscall.ForkExec(file, args, attr)
}
