package root

import (
	"bytes"
	"os"
	"syscall"
)

// maxAttribute is the size of the largest attribute that sysfs has.
const maxAttribute = 4096

// ReadAttribute returns the contents of an attribute, as it says them in one
// read. It costs half of what ReadFile does, which tells where there are
// thousands; like Store it waits for nothing.
func (d Dir) ReadAttribute(name string) ([]byte, error) {
	var buf [maxAttribute]byte
	data, err := d.readOnce(name, buf[:])
	return bytes.Clone(data), err
}

// ReadLine returns the contents of an attribute without the blanks around it.
func (d Dir) ReadLine(name string) (string, error) {
	var buf [maxAttribute]byte
	data, err := d.readOnce(name, buf[:])
	return string(bytes.TrimSpace(data)), err
}

func (d Dir) readOnce(name string, buf []byte) ([]byte, error) {
	fd, err := syscall.Open(d.Path(name), syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer syscall.Close(fd)
	for {
		n, err := syscall.Read(fd, buf)
		switch {
		case err == nil:
			return buf[:n], nil
		case err != syscall.EINTR:
			return nil, &os.PathError{Op: "read", Path: name, Err: err}
		}
	}
}
