package root

import (
	"errors"
	"os"
	"syscall"
)

// maxAttribute is the size of the largest attribute that sysfs has.
const maxAttribute = 4096

// ReadAttribute returns the contents of an attribute, as it says them in one
// read. It allocates half of what ReadFile does, which tells where there are
// thousands; like Store it waits for nothing.
func (d Dir) ReadAttribute(name string) ([]byte, error) {
	fd, err := syscall.Open(d.Path(name), syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer syscall.Close(fd)
	var buf [maxAttribute]byte
	for {
		n, err := syscall.Read(fd, buf[:])
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
		return append([]byte(nil), buf[:n]...), nil
	}
}
