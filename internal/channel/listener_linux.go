package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// backlog is how many clients may wait for a place.
const backlog = 16

// A Listener is a listening socket. It yields one stream a client.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
}

// ListenUnix listens on a unix socket at path. A socket that is there already
// is left over from an earlier agent and replaced; anything else is not.
func ListenUnix(path string) (*Listener, error) {
	var addr unix.RawSockaddrUnix
	if len(path) >= len(addr.Path) {
		return nil, fmt.Errorf("UNIX socket path '%s' is too long", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(path) // bind says what is wrong
	}
	l, err := listen(unix.AF_UNIX, &unix.SockaddrUnix{Name: path})
	if err != nil {
		return nil, fmt.Errorf("Failed to bind socket to %s: %s", path, strerror.Text(err)) //nolint:staticcheck // the C agent's words
	}
	return l, nil
}

// ListenVsock listens on a vsock address, CID:PORT, both decimal numbers of 32
// bits; 4294967295 stands for any.
func ListenVsock(address string) (*Listener, error) {
	c, p, _ := strings.Cut(address, ":")
	if c == "" || p == "" {
		return nil, fmt.Errorf("error parsing address '%s'", address)
	}
	cid, err := strconv.ParseUint(c, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("Failed to parse cid '%s'", c) //nolint:staticcheck // the C agent's words
	}
	port, err := strconv.ParseUint(p, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("Failed to parse port '%s'", p) //nolint:staticcheck // the C agent's words
	}
	l, err := listen(unix.AF_VSOCK, &unix.SockaddrVM{CID: uint32(cid), Port: uint32(port)})
	if err != nil {
		return nil, fmt.Errorf("Failed to bind socket to %s: %s", address, strerror.Text(err)) //nolint:staticcheck // the C agent's words
	}
	return l, nil
}

func listen(family int, addr unix.Sockaddr) (*Listener, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err = unix.Bind(fd, addr); err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return newListener(fd)
}

// Inherit takes over a listening socket that the service manager opened.
func Inherit(fd int) (*Listener, error) {
	switch domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); {
	case err != nil, domain != unix.AF_UNIX && domain != unix.AF_VSOCK:
		return nil, errors.New("unsupported listen fd type")
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return newListener(fd)
}

func newListener(fd int) (*Listener, error) {
	f := os.NewFile(uintptr(fd), "listening socket")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &Listener{f, raw}, nil
}

// Accept waits for a client.
func (l *Listener) Accept(ctx context.Context) (io.ReadWriteCloser, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.file.SetReadDeadline(past) })
	defer stop()
	for {
		var fd int
		var err error
		pollErr := l.raw.Read(func(lfd uintptr) bool {
			fd, _, err = unix.Accept4(int(lfd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return err != unix.EAGAIN
		})
		switch {
		case pollErr != nil:
			return nil, pollErr
		case err == nil:
			return newSocket(fd)
		case err == unix.EINTR, err == unix.ECONNABORTED:
		case err == unix.EBADF, err == unix.EINVAL, err == unix.ENOTSOCK, err == unix.EOPNOTSUPP:
			return nil, os.NewSyscallError("accept4", err)
		default:
			// No file descriptors or memory left, which may pass.
			if err := sleepUntil(ctx, time.Now().Add(retry)); err != nil {
				return nil, err
			}
		}
	}
}

// Close stops listening.
func (l *Listener) Close() error { return l.file.Close() }
