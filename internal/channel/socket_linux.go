package channel

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A socket is the connection of one client.
type socket struct {
	*os.File
	raw syscall.RawConn

	// What Read and Write are about, kept here because closures made for each
	// call would be garbage.
	in, out     transfer
	read, write func(fd uintptr) bool
}

// sendBuffer is how much of a reply may be on its way to a client: enough for it and
// us not to wait for each other in a large one, and no harm when it does not read.
const sendBuffer = 512 << 10

// A transfer is a read or a write under way.
type transfer struct {
	b   []byte
	n   int
	err error
}

func newSocket(fd int) (*socket, error) {
	f := os.NewFile(uintptr(fd), "client")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	// Only root gets so much; others keep what is usual.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer)
	s := &socket{File: f, raw: raw}
	s.read = func(fd uintptr) bool {
		if s.in.step(readNow, fd) {
			return true
		}
		// A client that shares our processor answers now, and then there is
		// nothing to wait for: it takes less to step aside than to be woken.
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		return s.in.step(readNow, fd)
	}
	s.write = func(fd uintptr) bool {
		for s.out.step(writeNow, fd) {
			if s.out.err != nil || len(s.out.b) == 0 {
				return true
			}
		}
		return false
	}
	return s, nil
}

// step reads or writes once. It returns false when there is nothing to read, or
// no room, at the moment.
func (t *transfer) step(call func(fd uintptr, b []byte) (int, error), fd uintptr) bool {
	n, err := call(fd, t.b)
	if err == unix.EAGAIN {
		return false
	}
	t.b, t.n, t.err = t.b[n:], t.n+n, err
	return true
}

// Read reads what there is, and waits for it if there is nothing.
func (s *socket) Read(b []byte) (int, error) {
	s.in.b = b
	err := s.raw.Read(s.read)
	n, err := s.in.end("read", err)
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return n, err
}

// Write writes all of b.
func (s *socket) Write(b []byte) (int, error) {
	s.out.b = b
	err := s.raw.Write(s.write)
	return s.out.end("write", err)
}

// end returns what became of the transfer, unless the poller failed, and
// forgets the caller's memory.
func (t *transfer) end(call string, pollErr error) (n int, err error) {
	n, err = t.n, pollErr
	if err == nil {
		err = os.NewSyscallError(call, t.err)
	}
	*t = transfer{}
	return n, err
}
