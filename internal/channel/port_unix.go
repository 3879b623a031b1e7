//go:build unix

package channel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bellhop-vm/bellhop/internal/strerror"
)

// retry is how long to wait before a device that has gone is opened again.
const retry = time.Second

// A Port is a character device with the host at its other end: a virtio-serial
// port or a serial line. It yields one stream after another.
//
// The kernel tells a virtio-serial guest when the host closes its end: reads
// return no bytes. That ends the stream, so that half a request of a host that
// left is not continued by the next one. The device stays open, because to
// QEMU, and so to libvirt, an open port means a living agent.
type Port struct {
	path string
	open func(path string) (*os.File, error)

	file *os.File
	raw  syscall.RawConn
	// opened is when the device was last opened, in this process or in vain.
	opened time.Time
	// first holds what has been read while waiting for a client.
	first  [4096]byte
	unread []byte
	// last is the client that is there, or was there last.
	last *stay
}

// OpenVirtioSerial opens the virtio-serial port at path.
func OpenVirtioSerial(path string) (*Port, error) {
	p := &Port{path: path, open: openDevice}
	return p, p.reopen()
}

func openDevice(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

func (p *Port) reopen() error {
	p.opened = time.Now()
	f, err := p.open(p.path)
	if err != nil {
		return fmt.Errorf("error opening channel '%s': %s", p.path, strerror.Text(err))
	}
	raw, err := f.SyscallConn()
	if err == nil {
		// A file that the poller does not take would be read in a busy loop.
		err = f.SetDeadline(time.Time{})
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("error opening channel '%s': not a device that can be waited for: %w", p.path, err)
	}
	p.file, p.raw = f, raw
	return nil
}

// Accept waits until the host sends something. There is one client at a time:
// it waits first until the stream before has been closed.
func (p *Port) Accept(ctx context.Context) (io.ReadWriteCloser, error) {
	if p.last != nil {
		select {
		case <-p.last.left:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	for {
		if p.file == nil {
			if err := sleepUntil(ctx, p.opened.Add(retry)); err != nil {
				return nil, err
			}
			if p.reopen() != nil {
				continue
			}
		}
		n, err := p.wait(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			p.unread = p.first[:n]
			p.last = &stay{port: p, left: make(chan struct{})}
			return p.last, nil
		}
		p.lose()
	}
}

// wait waits for the first bytes of a client.
func (p *Port) wait(ctx context.Context) (n int, err error) {
	if err := p.file.SetDeadline(time.Time{}); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(past) })
	defer stop()
	pollErr := p.raw.Read(func(fd uintptr) bool {
		n, err = readNow(fd, p.first[:])
		if n == 0 && err == nil && events(fd)&unix.POLLERR != 0 {
			err = io.EOF // a line that has hung up, for good
		}
		// No bytes from a virtio-serial port: the host is not there. Its
		// coming is no event, but what it sends is.
		return n > 0 || err != nil && err != unix.EAGAIN
	})
	return n, errors.Join(err, pollErr)
}

// lose closes a device that does not work any more.
func (p *Port) lose() {
	p.file.Close()
	p.file, p.raw = nil, nil
}

// Close closes the device.
func (p *Port) Close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// past is a deadline that has expired.
var past = time.Unix(1, 0)

// A stay is one client's time on a Port.
type stay struct {
	port *Port
	over atomic.Bool
	left chan struct{} // closed when it is over and the Port is free
	// answering says that something was written since the last read.
	answering bool
}

// arrival is how long after its first bytes a host may take to be there. The
// kernel learns of both by different ways, and of the host by the slower one.
const arrival = time.Second

func (s *stay) Read(b []byte) (n int, err error) {
	p := s.port
	if len(p.unread) > 0 {
		n = copy(b, p.unread)
		p.unread = p.unread[n:]
		return n, nil
	}
	pollErr := p.raw.Read(func(fd uintptr) bool {
		n, err = readNow(fd, b)
		return err != unix.EAGAIN
	})
	switch {
	case pollErr != nil:
		return 0, pollErr
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	s.answering = false
	return n, nil
}

// Write writes all of b, unless the host leaves. Nobody is there also when the
// host has just come, as far as the kernel knows; but not after a part of the
// reply went to it. The rest would wait for the next client, to whom it means
// nothing.
func (s *stay) Write(b []byte) (n int, err error) {
	var waiting bool
	for n < len(b) {
		var m int
		pollErr := s.port.raw.Write(func(fd uintptr) bool {
			m, err = writeNow(fd, b[n:])
			switch {
			case err == unix.EAGAIN && !hungUp(fd):
				return false
			case err == unix.EAGAIN && s.answering:
				err = unix.EPIPE
			case err == unix.EAGAIN:
				if waiting {
					return false
				}
				waiting = true
				err = s.SetWriteDeadline(time.Now().Add(arrival))
				return err != nil
			}
			return true
		})
		if pollErr != nil {
			return n, pollErr
		}
		if err != nil {
			return n, err
		}
		n += m
		s.answering = true
	}
	if waiting {
		return n, s.SetWriteDeadline(time.Time{})
	}
	return n, nil
}

// hungUp reports whether nobody is at the other end.
func hungUp(fd uintptr) bool {
	return events(fd)&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}

// events returns what poll(2) has to say of a device.
func events(fd uintptr) int16 {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	if _, err := unix.Poll(fds, 0); err != nil {
		return 0
	}
	return fds[0].Revents
}

// SetReadDeadline sets the time until which reads wait.
func (s *stay) SetReadDeadline(t time.Time) error {
	return s.setDeadline(s.port.file.SetReadDeadline, t)
}

// SetWriteDeadline sets the time until which writes wait.
func (s *stay) SetWriteDeadline(t time.Time) error {
	return s.setDeadline(s.port.file.SetWriteDeadline, t)
}

func (s *stay) setDeadline(set func(time.Time) error, t time.Time) error {
	err := set(t)
	if s.over.Load() {
		// Close may have come first, and its deadline is for good.
		return errors.Join(os.ErrClosed, set(past))
	}
	return err
}

// Close ends the client's time, and a read or write that is under way. The
// device stays open.
func (s *stay) Close() error {
	if s.over.Swap(true) {
		return os.ErrClosed
	}
	defer close(s.left)
	return s.port.file.SetDeadline(past)
}

// sleepUntil waits until t.
func sleepUntil(ctx context.Context, t time.Time) error {
	timer := time.NewTimer(time.Until(t))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
