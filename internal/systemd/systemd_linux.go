package systemd

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// listenStart is the descriptor of the first socket that is passed.
const listenStart = 3

// Notify sends a message to the service manager. It gives up after a second:
// a manager that is stuck must not stop the agent.
func (s *Service) Notify(message string) error {
	if s.notifySocket == "" {
		return nil
	}
	name := s.notifySocket
	if name[0] != '/' && name[0] != '@' {
		return fmt.Errorf("notify the service manager: unsupported address %q", name)
	}
	// Package unix makes the leading @ of an abstract address the zero byte that it stands for.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1})
	}
	if err == nil {
		err = unix.Sendto(fd, []byte(message), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}

// closeOnExec marks every socket that was passed.
func (s *Service) closeOnExec() error {
	for fd := listenStart; fd < listenStart+s.sockets; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return fmt.Errorf("Socket activation failed: invalid file descriptor fd = %d: %s", fd, strerror.Text(err)) //nolint:staticcheck // the C agent's text
		}
	}
	return nil
}

// Listener returns the descriptor of the socket that the service manager
// passed and its family, or -1 if there is none.
func (s *Service) Listener() (fd int, family Family, err error) {
	switch {
	case s.sockets == 0:
		return -1, "", nil
	case s.sockets > 1:
		return -1, "", ErrManySockets
	}
	domain, err := unix.GetsockoptInt(listenStart, unix.SOL_SOCKET, unix.SO_DOMAIN)
	switch {
	case err == nil && domain == unix.AF_UNIX:
		return listenStart, Unix, nil
	case err == nil && domain == unix.AF_VSOCK:
		return listenStart, Vsock, nil
	}
	return -1, "", ErrSocketType
}
