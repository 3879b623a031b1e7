// Package root reads the guest's files below a directory: the root itself in an
// agent, a tree captured from another machine in a test. Paths in the code stay
// what they are on a real system.
package root

import (
	"bytes"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bellhop-vm/bellhop/internal/stuck"
)

// maxFile bounds a file that is read whole. What the kernel and the
// configuration of a system have to say is far shorter; a device or a log in
// its place must not fill the memory.
const maxFile = 16 << 20

// errLarge is the error of a file beyond maxFile.
var errLarge = errors.New("file too large")

// A Dir is the directory that takes the place of the root. Empty is the root.
type Dir string

// Path returns where name, an absolute path on the guest, really is.
func (d Dir) Path(name string) string {
	if d == "" {
		return name
	}
	return filepath.Join(string(d), name)
}

// ReadFile returns the contents of a file. It does not trust the size that the
// file claims, which in /proc and /sys is wrong. It never waits: what would have
// to is EAGAIN. That is also why it leaves the runtime's poller out, which would
// wait, and costs more than the reading where files are as short as those.
func (d Dir) ReadFile(name string) ([]byte, error) {
	fail := func(op string, err error) error { return &os.PathError{Op: op, Path: name, Err: err} }
	const flags = syscall.O_RDONLY | syscall.O_NONBLOCK | syscall.O_CLOEXEC
	fd, err := syscall.Open(d.Path(name), flags, 0)
	for err == syscall.EINTR {
		fd, err = syscall.Open(d.Path(name), flags, 0)
	}
	if err != nil {
		return nil, fail("open", err)
	}
	defer syscall.Close(fd)
	// Most files are small, and those of /proc the cheaper the fewer the reads.
	small := pages.Get().(*page)
	defer pages.Put(small)
	n := 0
	for n < len(small) {
		more, err := syscall.Read(fd, small[n:])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return bytes.Clone(small[:n]), fail("read", err)
		case more == 0:
			return bytes.Clone(small[:n]), nil
		default:
			n += more
		}
	}
	data := append(make([]byte, 0, 4*len(small)), small[:]...)
	for {
		n, err := syscall.Read(fd, data[len(data):cap(data)])
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return data, fail("read", err)
		case n == 0:
			return data, nil
		default:
			data = data[:len(data)+n]
		}
		if len(data) > maxFile {
			return data, fail("read", errLarge)
		}
		if len(data) == cap(data) {
			data = slices.Grow(data, len(data))
		}
	}
}

// diskReads are the reads of ReadDiskFile that are under way.
var diskReads stuck.Calls[string, []byte]

// ReadDiskFile is ReadFile for what is not the kernel's, but on a disk, which may not
// answer. That is ETIMEDOUT after a while. The data may be shared by several callers.
func (d Dir) ReadDiskFile(name string) ([]byte, error) {
	data, err := diskReads.Do(d.Path(name), stuck.DiskLimit, func() ([]byte, error) { return d.ReadFile(name) })
	if err == stuck.ErrStuck {
		err = &os.PathError{Op: "open", Path: name, Err: syscall.ETIMEDOUT}
	}
	return data, err
}

// Exists reports whether there is something called name.
func (d Dir) Exists(name string) bool {
	_, err := os.Stat(d.Path(name))
	return err == nil
}

// Readlink returns what a symbolic link points to.
func (d Dir) Readlink(name string) (string, error) {
	// Links of sysfs are not longer, and there may be thousands. What is
	// uncommon is for package os.
	var buf [512]byte
	if n, err := syscall.Readlink(d.Path(name), buf[:]); err == nil && n < len(buf) {
		return string(buf[:n]), nil
	}
	return os.Readlink(d.Path(name))
}

// Resolve returns name with every symbolic link in it followed, as realpath(3)
// does; absolute links stay below the directory.
func (d Dir) Resolve(name string) (string, error) {
	const maxLinks = 40
	resolved, rest := "/", path.Clean("/"+name)
	for links := 0; rest != "/" && rest != ""; {
		first, remaining, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
		next := path.Join(resolved, first)
		target, err := d.Readlink(next)
		switch {
		case err == nil:
			if links++; links > maxLinks {
				return "", &os.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
			}
			if path.IsAbs(target) {
				resolved = "/"
			}
			rest = path.Join("/", target)
			if !path.IsAbs(target) {
				rest = path.Join(resolved, target)
				resolved = "/"
			}
			rest = path.Join(rest, remaining)
		case errors.Is(err, syscall.EINVAL): // not a link
			resolved, rest = next, "/"+remaining
		default:
			return "", err
		}
	}
	return resolved, nil
}

// stores are the calls of Store that are under way.
var stores stuck.Calls[[2]string, struct{}]

// Store writes s to an attribute that exists. What the driver says to that is the
// result, and ETIMEDOUT if it takes longer than limit to say it; it goes on then. With
// a limit of 0 it may take as long as it likes.
func (d Dir) Store(name, s string, limit time.Duration) error {
	if limit == 0 {
		return d.store(name, s)
	}
	_, err := stores.Do([2]string{d.Path(name), s}, limit, func() (struct{}, error) {
		return struct{}{}, d.store(name, s)
	})
	if err == stuck.ErrStuck {
		err = &os.PathError{Op: "write", Path: name, Err: syscall.ETIMEDOUT}
	}
	return err
}

// store leaves the runtime's poller out: it would wait out EAGAIN, for ever, as the
// kernel never tells that such a file has become writable.
func (d Dir) store(name, s string) error {
	fd, err := syscall.Open(d.Path(name), syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.WriteString(s)
	return errors.Join(err, f.Close())
}
