//go:build unix

package state

import (
	"os"
	"syscall"
)

// unlinked reports whether f has no name any more. Renaming another file over
// it counts; moving f elsewhere does not, and is not worth a look at the path
// for every handle.
func unlinked(f *os.File) bool {
	var st syscall.Stat_t
	// Fd would set the file to blocking mode, which a regular file is anyhow.
	err := syscall.Fstat(int(f.Fd()), &st)
	return err == nil && st.Nlink == 0
}
