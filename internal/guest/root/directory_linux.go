package root

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Directory is an open directory. To ask it for what is in it is cheaper than
// to go all the way from the root each time, which tells where there are
// hundreds of processors.
type Directory struct {
	fd   int
	name string
}

// Open opens a directory.
func (d Dir) Open(name string) (Directory, error) {
	const flags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	fd, err := unix.Open(d.Path(name), flags, 0)
	if err != nil {
		return Directory{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return Directory{fd, name}, nil
}

// Close closes the directory.
func (d Directory) Close() { _ = unix.Close(d.fd) }

// Check returns why there is no entry called name, or nil. With a slash at its
// end the name is that of a directory.
func (d Directory) Check(name string) error {
	if err := unix.Faccessat(d.fd, name, unix.F_OK, 0); err != nil {
		return d.fail("access", name, err)
	}
	return nil
}

// ReadAttribute returns the contents of an attribute, as it says them in one
// read; it waits for nothing.
func (d Directory) ReadAttribute(name string) ([]byte, error) {
	buf := pages.Get().(*page)
	defer pages.Put(buf)
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buf[:])
		switch {
		case err == nil:
			return bytes.Clone(buf[:n]), nil
		case err != unix.EINTR:
			return nil, d.fail("read", name, err)
		}
	}
}

// Names returns the names of all entries, sorted. It can be asked once.
func (d Directory) Names() ([]string, error) {
	var names []string
	e := entries{dir: d, buf: pages.Get().(*page)}
	defer pages.Put(e.buf)
	for {
		name, err := e.next()
		if err != nil || name == nil {
			slices.Sort(names)
			return names, err
		}
		names = append(names, string(name))
	}
}

// OpenNumbered opens a directory and returns the N of all entries that are called
// prefixN, in ascending order. It is how sysfs enumerates processors, memory
// blocks and the like, among other names such as cpufreq.
func (d Dir) OpenNumbered(name, prefix string) (dir Directory, numbers []uint64, err error) {
	if dir, err = d.Open(name); err != nil {
		return dir, nil, err
	}
	e := entries{dir: dir, buf: pages.Get().(*page)}
	defer pages.Put(e.buf)
	for {
		name, err := e.next()
		if err != nil {
			dir.Close()
			return Directory{}, nil, err
		}
		if name == nil {
			break
		}
		digits, ok := bytes.CutPrefix(name, []byte(prefix))
		if !ok || len(digits) == 0 || digits[0] < '0' || '9' < digits[0] || digits[0] == '0' && len(digits) > 1 {
			continue
		}
		if n, err := strconv.ParseUint(string(digits), 10, 64); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return dir, numbers, nil
}

// entries goes through the names in a directory.
type entries struct {
	dir  Directory
	rest int // where in buf the entries are that have not been returned yet
	end  int
	buf  *page
}

// next returns the name of an entry, which is good until the next call, or nil
// after the last one.
func (e *entries) next() ([]byte, error) {
	// The fields of a struct linux_dirent64: a serial number and an offset of
	// eight bytes each, the size of the entry, a type, and the name.
	const sizeAt, nameAt = 16, 19
	for {
		for e.end-e.rest > nameAt {
			entry := e.buf[e.rest:e.end]
			entry = entry[:min(max(nameAt, int(binary.NativeEndian.Uint16(entry[sizeAt:]))), len(entry))]
			e.rest += len(entry)
			name, _, _ := bytes.Cut(entry[nameAt:], []byte{0})
			if string(name) != "." && string(name) != ".." {
				return name, nil
			}
		}
		n, err := unix.Getdents(e.dir.fd, e.buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, e.dir.fail("readdir", "", err)
		case n == 0:
			return nil, nil
		}
		e.rest, e.end = 0, n
	}
}

func (d Directory) fail(op, name string, err error) error {
	return &os.PathError{Op: op, Path: strings.TrimSuffix(d.name+"/"+name, "/"), Err: err}
}
