//go:build unix

package files

import (
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/strerror"
	"github.com/bellhop-vm/bellhop/qga"
)

// patience is how long a command waits for another client's command on the
// same file. It is libvirt's for the answer of a guest.
const patience = 5 * time.Second

// A file is an open file. One command at a time uses it, for the sake of its
// position.
type file struct {
	fd     int
	handle qga.Handle
	// turn holds an element while a command uses the file. It is no mutex
	// because the wait for it has an end.
	turn   chan struct{}
	closed bool // for whom it is the turn
}

// acquire waits until the file is ours, until release. The error is ready for
// the client.
func (f *file) acquire(ctx context.Context) error {
	select {
	case f.turn <- struct{}{}:
	default:
		end := time.NewTimer(patience)
		defer end.Stop()
		select {
		case f.turn <- struct{}{}:
		case <-end.C:
			return fmt.Errorf("handle '%d' is in use by another client", f.handle)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.closed {
		f.release()
		return notFound(f.handle)
	}
	return nil
}

func (f *file) release() { <-f.turn }

// flagsOf returns the flags of open(2) for the modes of fopen(3) that the
// protocol knows.
func flagsOf(mode string) (flags int, ok bool) {
	switch mode {
	case "r", "rb":
		return unix.O_RDONLY, true
	case "w", "wb":
		return unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, true
	case "a", "ab":
		return unix.O_WRONLY | unix.O_CREAT | unix.O_APPEND, true
	case "r+", "rb+", "r+b":
		return unix.O_RDWR, true
	case "w+", "wb+", "w+b":
		return unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC, true
	case "a+", "ab+", "a+b":
		return unix.O_RDWR | unix.O_CREAT | unix.O_APPEND, true
	}
	return 0, false
}

// open opens a file without waiting for anybody, and without making a terminal
// the agent's own. The error is ready for the client.
//
// A new file gets its permissions once it is open, whatever the umask; until
// then nobody else can open it. A dangling symbolic link is not followed to
// create its target.
func open(path, mode string) (int, error) {
	flags, ok := flagsOf(mode)
	if !ok {
		return -1, fmt.Errorf("invalid file open mode '%s'", mode)
	}
	flags |= unix.O_NOCTTY | unix.O_NONBLOCK | unix.O_CLOEXEC
	if flags&unix.O_CREAT != 0 {
		fd, err := openRetrying(path, flags|unix.O_EXCL)
		switch err {
		case nil:
			return publish(fd, path, mode)
		case unix.EEXIST:
			flags &^= unix.O_CREAT
		default:
			return -1, openFailed(path, mode, err)
		}
	}
	fd, err := openRetrying(path, flags)
	if err != nil {
		return -1, openFailed(path, mode, err)
	}
	return fd, nil
}

// openRetrying is open(2), again when a signal got in the way: the runtime
// sends itself some all the time.
func openRetrying(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// publish lets others open a new file.
func publish(fd int, path, mode string) (int, error) {
	if err := unix.Fchmod(fd, 0o666); err != nil {
		_ = unix.Unlink(path) // the failure before it is the one to tell
		unix.Close(fd)
		return -1, fmt.Errorf("failed to set permission 0666 on new file '%s' (mode: '%s'): %s",
			path, mode, strerror.Text(err))
	}
	return fd, nil
}

func openFailed(path, mode string, err error) error {
	return fmt.Errorf("failed to open file '%s' (mode: '%s'): %s", path, mode, strerror.Text(err))
}

// seek is lseek(2). Files of /proc know no end; what stat(2) says is their size stands
// for it, as in the C library.
func (f *file) seek(offset int64, whence int) (int64, error) {
	position, err := unix.Seek(f.fd, offset, whence)
	if whence != unix.SEEK_END || err != unix.EINVAL {
		return position, err
	}
	var st unix.Stat_t
	if unix.Fstat(f.fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return position, err
	}
	return unix.Seek(f.fd, st.Size+offset, unix.SEEK_SET)
}

// read fills buf as far as the file has data now. It returns how many bytes it
// read and, if those are fewer than asked for, why: io.EOF or the kernel's
// reason.
func (f *file) read(buf []byte) (n int64, err error) {
	for len(buf) > 0 {
		m, err := unix.Read(f.fd, buf)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0:
			return n, io.EOF
		default:
			n += int64(m)
			buf = buf[m:]
		}
	}
	return n, nil
}

// write is read's counterpart.
func (f *file) write(data []byte) (n int64, err error) {
	for len(data) > 0 {
		m, err := unix.Write(f.fd, data)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return n, err
		case m == 0:
			return n, unix.EIO // or this would go on for ever
		default:
			n += int64(m)
			data = data[m:]
		}
	}
	return n, nil
}
