package root

import (
	"bytes"
	"io"
	"os"
	"sync"
	"syscall"
)

// A page is what the kernel says in one read at the most: an attribute of sysfs is not
// larger, at least where memory has pages of that size.
type page [4096]byte

// pages are for reading into. A stack would have to grow for one, and be cleared each
// time, both of which take longer than to read a few bytes.
var pages = sync.Pool{New: func() any { return new(page) }}

// ReadAttribute returns the contents of an attribute, as it says them in one
// read. It costs half of what ReadFile does, which tells where there are
// thousands; like Store it waits for nothing.
func (d Dir) ReadAttribute(name string) ([]byte, error) {
	buf := pages.Get().(*page)
	defer pages.Put(buf)
	data, err := d.readOnce(name, buf[:])
	return bytes.Clone(data), err
}

// ReadLine returns the contents of an attribute without the blanks around it. If there
// is no line's end, which most drivers write, the rest is missing as well, and that is
// io.ErrUnexpectedEOF.
func (d Dir) ReadLine(name string) (string, error) {
	buf := pages.Get().(*page)
	defer pages.Put(buf)
	data, err := d.readOnce(name, buf[:])
	if err == nil && !bytes.HasSuffix(data, []byte("\n")) {
		return "", io.ErrUnexpectedEOF
	}
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
