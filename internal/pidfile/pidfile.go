//go:build unix

// Package pidfile claims the file that holds the agent's process id. The claim
// is a lock, so that it ends with the process and a file left behind is no
// obstacle.
package pidfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// File is a pid file that this process holds.
type File struct {
	path string
	file *os.File
}

// Create opens the file at path, which need not exist, locks it and writes
// this process's id and a line feed. It fails when another process holds the
// lock, and does not harm that process's file.
//
// The lock is a POSIX record lock over the whole file, as in the C agent:
// either agent keeps the other out. It belongs to the process, so that the
// file must not be opened and closed elsewhere in this process.
func Create(path string) (*File, error) {
	for {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return nil, fmt.Errorf("Cannot open pid file: %w", strerror.Reason(err)) //nolint:staticcheck // the C agent's text
		}
		// The former holder unlinks the file as it ends. If that was between
		// our opening and locking it, the lock is on a file without a name,
		// which keeps nobody out.
		claimed, err := claim(f, path)
		if err == nil && !claimed {
			f.Close()
			continue
		}
		if err == nil {
			err = write(f)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return &File{path, f}, nil
	}
}

// claim locks f and reports whether it is still the file at path.
func claim(f *os.File, path string) (bool, error) {
	lock := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &lock); err != nil {
		return false, fmt.Errorf("Cannot lock pid file: %w", strerror.Reason(err)) //nolint:staticcheck // the C agent's text
	}
	return named(f, path)
}

// named reports whether f is the file at path.
func named(f *os.File, path string) (bool, error) {
	here, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("Cannot stat pid file: %w", strerror.Reason(err)) //nolint:staticcheck // like the other texts
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(here, there), nil
}

func write(f *os.File) error {
	err := f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return fmt.Errorf("Failed to write pid file: %w", strerror.Reason(err)) //nolint:staticcheck // like the other texts
	}
	return nil
}

// Close removes the file, if it is still the one that this process locked, and
// gives up the lock.
func (f *File) Close() error {
	var err error
	if ok, _ := named(f.file, f.path); ok {
		// Before the lock is gone: afterwards the file may be another's.
		err = os.Remove(f.path)
	}
	return errors.Join(err, f.file.Close())
}
